"""Training in a lesson's own loop, where a run of the toolkit does not fit: another input, a fixed number of steps."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import paddle
from paddle.nn import functional

from paddle_resnet import paddle_compat, signals
from paddle_resnet.config import TrainConfig
from paddle_resnet.console import least_log_level
from paddle_resnet.models import ImageClassifier
from paddle_resnet.training.cpu_backend import use_cpu_backend
from paddle_resnet.training.metrics import SampleMeans

Batches = Iterable[list[paddle.Tensor]]
"""Pairs of images float32 ``[n, C, S, S]`` and labels int64 ``[n, 1]``."""


def use_fast_layers(network: ImageClassifier, train: TrainConfig | None = None) -> None:
    """Give the layers to oneDNN where the config's `train` (None: the defaults) and the machine allow it.

    A lesson trains many networks, so none is logged.

    Raises:
        UsageError: what the config asks for by name cannot be.
    """
    train = train or TrainConfig()
    with least_log_level(logging.ERROR):
        use_cpu_backend(network, train.cpu_backend, paddle.device.get_device(), train.cpu_precision)


def train_on(network: ImageClassifier, optimizer: paddle.optimizer.Optimizer, batches: Batches) -> tuple[float, float]:
    """Take one step for each batch, with the rate that the schedule has for it.

    Returns:
        Mean cross-entropy (nats) and top-1 (a fraction) over the samples, each as they were before its step.
    """
    network.train()
    means = SampleMeans()
    for images, labels in batches:
        logits = network(images)
        with signals.undisturbed():
            functional.cross_entropy(logits, labels).backward()
        optimizer.step()
        optimizer.clear_grad()
        schedule = paddle_compat.learning_rate_of(optimizer)
        if isinstance(schedule, paddle.optimizer.lr.LRScheduler):
            schedule.step()
        _count(means, logits, labels)
    return _loss_and_top1(means)


def measure_on(network: ImageClassifier, batches: Batches) -> tuple[float, float]:
    """Mean cross-entropy (nats) and top-1 (a fraction) over the samples, in evaluation mode."""
    network.eval()
    means = SampleMeans()
    with paddle.no_grad():
        for images, labels in batches:
            _count(means, network(images), labels)
    return _loss_and_top1(means)


def _count(means: SampleMeans, logits: paddle.Tensor, labels: paddle.Tensor) -> None:
    losses, correct = means.compute(logits.detach(), labels)
    means.update(losses.numpy(), correct.numpy())


def _loss_and_top1(means: SampleMeans) -> tuple[float, float]:
    loss, top1 = means.accumulate()
    return loss, top1
