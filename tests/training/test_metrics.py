"""Means over samples, whatever the sizes of the batches."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from paddle_resnet.training.metrics import TrainMetrics
from paddle_resnet.training.optim.loss import SmoothedCrossEntropy


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    logits = logits.astype("float64")
    return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]


def test_batches_weigh_by_their_images():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(13, 4)).astype("float32")
    labels = generator.integers(0, 4, 13)
    means = TrainMetrics()
    for batch in (slice(0, 10), slice(10, 13)):
        outputs = means.compute(paddle.to_tensor(logits[batch]), paddle.to_tensor(labels[batch, None]))
        means.update(*(each.numpy() for each in outputs))
    loss, top1 = means.accumulate()
    assert loss == pytest.approx(cross_entropy(logits, labels).mean(), rel=1e-5)
    assert top1 == (logits.argmax(axis=1) == labels).mean()
    means.reset()
    assert means.accumulate() == [0.0, 0.0]


def test_label_smoothing_follows_its_paper():
    """Szegedy et al. 2016: (1 - e) on the class plus e / K on each of the K classes."""
    logits = np.array([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]], "float32")
    labels = np.array([0, 1])
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    target = np.eye(3)[labels] * 0.9 + 0.1 / 3
    expected = -(target * log_probabilities).sum(axis=1).mean()
    loss = SmoothedCrossEntropy(0.1)(paddle.to_tensor(logits), paddle.to_tensor(labels[:, None]))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
