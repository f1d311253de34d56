"""A training loop for what a run of the toolkit does not do: other inputs, or a fixed number of steps."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from itertools import chain, islice, repeat

import paddle
from paddle.nn import functional

from paddle_resnet import paddle_compat, signals
from paddle_resnet.config import AugmentConfig, TrainConfig
from paddle_resnet.console import least_log_level
from paddle_resnet.data import Normalize, Split, Splits, TrainLoader
from paddle_resnet.models import ImageClassifier
from paddle_resnet.onednn import accelerate
from paddle_resnet.training.metrics import TrainMetrics

Batches = Iterable[list[paddle.Tensor]]
"""Pairs of images float32 ``[n, C, S, S]`` and labels int64 ``[n, 1]``."""


def make_train_loader(
    splits: Splits,
    batch_size: int,
    image_size: int,
    seed: int,
    *,
    split: Split | None = None,
    augment: AugmentConfig | None = None,
) -> TrainLoader:
    """Make a loader of `split` (default: the training split), by default without augmentation."""
    normalize = Normalize(splits.mean, splits.std)
    split = splits.train if split is None else split
    augment = augment or AugmentConfig()
    return TrainLoader(split, batch_size, image_size, splits.resize, normalize, augment, seed=seed)


def take_batches(loader: TrainLoader, steps: int) -> Iterator[list[paddle.Tensor]]:
    """Yield `steps` batches, epoch after epoch."""
    return islice(chain.from_iterable(repeat(loader)), steps)


def apply_cpu_backend(network: ImageClassifier, train: TrainConfig | None = None) -> None:
    """Use the CPU backend of the config section `train` (default: `TrainConfig()`) for the layers of `network`.

    It logs nothing, because a lesson trains many networks.

    Raises:
        UsageError: the backend or precision that the config names is not available.
    """
    train = train or TrainConfig()
    with least_log_level(logging.ERROR):
        accelerate(network, train.cpu_backend, paddle.device.get_device(), train.cpu_precision)


def train_batches(
    network: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer, batches: Batches
) -> tuple[float, float]:
    """Take an optimizer and a scheduler step for each batch.

    Returns:
        Mean cross-entropy (nats) and top-1 (a fraction) over the samples, each measured before its step.
    """
    network.train()
    means = TrainMetrics()
    for images, labels in batches:
        logits = network(images)
        with signals.uninterrupted():
            functional.cross_entropy(logits, labels).backward()
        optimizer.step()
        optimizer.clear_grad()
        schedule = paddle_compat.learning_rate_of(optimizer)
        if isinstance(schedule, paddle.optimizer.lr.LRScheduler):
            schedule.step()
        _update(means, logits, labels)
    return _loss_and_top1(means)


def train_while_finite(
    network: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer, batches: Batches
) -> list[float]:
    """Take a step for each batch; return their losses (nats), which end before the first one that is not finite."""
    losses: list[float] = []
    for batch in batches:
        loss, _ = train_batches(network, optimizer, [batch])
        if not math.isfinite(loss):
            break
        losses.append(loss)
    return losses


def evaluate_batches(network: paddle.nn.Layer, batches: Batches) -> tuple[float, float]:
    """Return mean cross-entropy (nats) and top-1 (a fraction) over the samples, in evaluation mode."""
    network.eval()
    means = TrainMetrics()
    with paddle.no_grad():
        for images, labels in batches:
            _update(means, network(images), labels)
    return _loss_and_top1(means)


def _update(means: TrainMetrics, logits: paddle.Tensor, labels: paddle.Tensor) -> None:
    means.update(*(each.numpy() for each in means.compute(logits.detach(), labels)))


def _loss_and_top1(means: TrainMetrics) -> tuple[float, float]:
    loss, top1 = means.accumulate()
    return loss, top1
