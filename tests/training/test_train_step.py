"""Gradient accumulation: micro-batches take the step of the whole batch."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle import nn

from paddle_resnet.training.metrics import TrainMetrics
from paddle_resnet.training.optim.loss import SmoothedCrossEntropy
from paddle_resnet.training.train_step import TrainStepModel

pytestmark = pytest.mark.slow

CLASSES, INPUTS = 4, 6


def batches(images, steps=3):
    generator = np.random.default_rng(0)
    for _ in range(steps):
        yield generator.normal(size=(images, INPUTS)).astype("float32"), generator.integers(0, CLASSES, (images, 1))


def trained(images, micro_batch, weights=None):
    """Train a linear network in micro-batches; return its weight and bias, and each step's loss and metrics."""
    paddle.seed(0)
    network = nn.Linear(INPUTS, CLASSES)
    model = TrainStepModel(network, None, None, micro_batch=micro_batch)
    optimizer = paddle.optimizer.Momentum(
        0.3, 0.9, network.parameters(), weight_decay=0.01, grad_clip=nn.ClipGradByGlobalNorm(0.3)
    )
    model.prepare(optimizer, SmoothedCrossEntropy(0.1, weights), TrainMetrics())
    outcomes = []
    for inputs, labels in batches(images):
        (loss,), (metrics,) = model.train_batch([paddle.to_tensor(inputs)], [paddle.to_tensor(labels)])
        outcomes.append([float(loss), *metrics])
    return network.weight.numpy(), network.bias.numpy(), outcomes


def by_hand(images, weights=(1.0,) * CLASSES):
    """The same training of the whole batch in float64; the loss is smoothed by 0.1."""
    paddle.seed(0)
    network = nn.Linear(INPUTS, CLASSES)
    values = [network.weight.numpy().astype("float64"), network.bias.numpy().astype("float64")]
    velocities = [0.0, 0.0]
    losses = []
    for inputs, labels in batches(images):
        logits = inputs.astype("float64") @ values[0] + values[1]
        logarithms = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        target = 0.9 * np.eye(CLASSES)[labels.ravel()] + 0.1 / CLASSES
        weighted, total = target * weights, np.take(weights, labels).sum()
        losses.append(-(weighted * logarithms).sum() / total)
        error = (np.exp(logarithms) * weighted.sum(axis=1, keepdims=True) - weighted) / total
        gradients = [inputs.T.astype("float64") @ error, error.sum(axis=0)]
        scale = min(1.0, 0.3 / np.sqrt(sum((gradient**2).sum() for gradient in gradients)))
        for place, gradient in enumerate(gradients):
            velocities[place] = 0.9 * velocities[place] + scale * gradient + 0.01 * values[place]
            values[place] = values[place] - 0.3 * velocities[place]
    return *values, losses


@pytest.mark.parametrize("weights", [(1.0,) * CLASSES, (0.2, 5.0, 1.0, 3.0)])
@pytest.mark.parametrize(("images", "micro_batch"), [(40, 10), (35, 10), (40, 40), (3, 10)])
def test_micro_batches_take_the_step_of_the_batch(images, micro_batch, weights):
    """With weights of the classes too: the mean is over those of the whole batch."""
    weight, bias, outcomes = trained(images, micro_batch, None if weights[0] == 1 else np.array(weights))
    expected_weight, expected_bias, losses = by_hand(images, weights)
    np.testing.assert_allclose(weight, expected_weight, atol=1e-6)
    np.testing.assert_allclose(bias, expected_bias, atol=1e-6)
    np.testing.assert_allclose([loss for loss, *_ in outcomes], losses, rtol=1e-6)


def test_metrics_count_each_image_once():
    parts, whole = (trained(35, size)[2] for size in (10, 35))
    np.testing.assert_allclose(parts, whole, rtol=1e-6)
