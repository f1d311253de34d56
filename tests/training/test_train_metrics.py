"""Means over samples, whatever the sizes of the batches."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from sklearn.metrics import f1_score
from sklearn.utils import compute_class_weight

from paddle_resnet.config import TrainConfig
from paddle_resnet.errors import UsageError
from paddle_resnet.training.metrics import TrainMetrics
from paddle_resnet.training.optim.loss import SmoothedCrossEntropy, class_weights


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


def test_macro_f1_is_scikit_learns():
    """Over batches; one class has no images and is never predicted, another is predicted wrongly alone."""
    generator = np.random.default_rng(1)
    labels, predicted = generator.integers(0, 3, 40), generator.integers(0, 4, 40)
    means = TrainMetrics(classes=5)
    for batch in (slice(0, 30), slice(30, 40)):
        means.update(np.ones(len(labels[batch])), labels[batch], predicted[batch])
    assert means.name()[2] == "macro_f1"
    assert means.accumulate()[2] == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0))


def test_a_loss_beyond_64_nats_is_the_true_one():
    """Paddle's own cross-entropy ends there: half of the images at 64 would read as a mean of 32.0000."""
    logits = np.array([[0, 200.0, 199.0], [5, 0, 0], [0, 63.5, 0]], "float32")
    outputs = TrainMetrics().compute(paddle.to_tensor(logits), paddle.to_tensor([[0], [0], [0]]))
    np.testing.assert_allclose(outputs[0].numpy(), cross_entropy(logits, np.array([0, 0, 0])), rtol=1e-5)


BALANCED = TrainConfig(class_weights="balanced")


def test_balanced_weights_are_scikit_learns():
    labels = np.array([0] * 7 + [1] * 2 + [2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(class_weights(BALANCED, labels, "abc"), expected)
    assert class_weights(TrainConfig(), labels, "abc") is None
    with pytest.raises(UsageError, match="no training image of d"):
        class_weights(BALANCED, labels, "abcd")
    with pytest.raises(UsageError, match="2 weights for 3 classes: a, b, c"):
        class_weights(TrainConfig(class_weights=(1.0, 2.0)), labels, "abc")


LOGITS = np.array([[1.5, -0.5, 0.25], [0.0, 2.0, -1.0], [0.5, 0.5, 1.0], [-2.0, 0.0, 0.125]], "float32")
LABELS = np.array([[0], [2], [1], [2]])
WEIGHTS = np.array([0.5, 2.0, 4.0])


@pytest.mark.parametrize(("smoothing", "expected"), [(0.0, 1.7352914430381485), (0.1, 1.6812205875369504)])
def test_weighted_loss_is_pytorchs(smoothing, expected):
    """That of 2.14 in float64, ``CrossEntropyLoss(weight, label_smoothing)``: the mean is over the images' weights."""
    loss = SmoothedCrossEntropy(smoothing, WEIGHTS)(paddle.to_tensor(LOGITS), paddle.to_tensor(LABELS))
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_weighted_loss_of_mixed_images_in_closed_form():
    partners, lam = np.array([[1], [2], [0], [0]]), 0.3
    log_p = LOGITS - np.log(np.exp(LOGITS).sum(axis=1, keepdims=True))
    hot = np.eye(3)
    target = lam * hot[LABELS.ravel()] + (1 - lam) * hot[partners.ravel()]
    total = (target * WEIGHTS).sum()
    expected = -((0.9 * target + 0.1 / 3) * WEIGHTS * log_p).sum() / total
    loss = SmoothedCrossEntropy(0.1, WEIGHTS)
    mixed = [paddle.to_tensor(each) for each in (LABELS, partners, np.full((4, 1), lam, "float32"))]
    assert float(loss(paddle.to_tensor(LOGITS), *mixed)) == pytest.approx(expected, rel=1e-6)
    assert loss.total_weight(*mixed) == pytest.approx(total)
