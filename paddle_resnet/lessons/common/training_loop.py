"""Data and a training loop for what a run of the toolkit does not do: other inputs, or a fixed number of steps."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, repeat

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional

from paddle_resnet import paddle_compat, signals
from paddle_resnet.config import AugmentConfig, Config, TrainConfig
from paddle_resnet.console import least_log_level
from paddle_resnet.data import Normalize, Split, TrainLoader, open_splits, uint8_batches
from paddle_resnet.evaluation.metrics import measure
from paddle_resnet.evaluation.scorer import NetworkScorer
from paddle_resnet.lessons.common.runs import image_settings
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.models import ImageClassifier
from paddle_resnet.onednn import accelerate
from paddle_resnet.results import Evaluation
from paddle_resnet.training.metrics import TrainMetrics

EVALUATION_BATCH = 256
Batches = Iterable[list[paddle.Tensor]]  # pairs of images float32 ``[n, C, S, S]`` and labels int64 ``[n, 1]``


class LessonData:
    """The images of a config, as a lesson's networks are trained and measured on them.

    Raises:
        UsageError: the data set is missing and cannot be downloaded.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.splits = open_splits(config.data)
        self.normalize = Normalize(self.splits.mean, self.splits.std)

    @classmethod
    def open(cls, effort: Effort, digits_size: int = 8) -> LessonData:
        """Open the digits, or CIFAR-10 in the full form."""
        return cls(Config.from_values(image_settings(effort, size=digits_size, pad=0), effort.overrides))

    def loader(
        self, batch_size: int, seed: int, split: Split | None = None, augment: AugmentConfig | None = None
    ) -> TrainLoader:
        """Load `split` (default: the training images) in a random order, by default without augmentation."""
        split, size = self.splits.train if split is None else split, self.config.data.image_size
        augment = augment or AugmentConfig()
        return TrainLoader(split, batch_size, size, self.splits.resize, self.normalize, augment, seed=seed)

    def batches(self, split: Split) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield pixels, uint8 ``[n, S, S, 3]``, and labels, int64 ``[n]``."""
        return uint8_batches(split, EVALUATION_BATCH, self.splits.resize, self.config.data.image_size)

    def measure(self, network: nn.Layer, split: Split, classes: Sequence[str] | None = None) -> Evaluation:
        """Measure a network in evaluation mode; raise RunFailure where its scores are not finite."""
        return measure(NetworkScorer(network, self.normalize), self.batches(split), classes or self.splits.classes)


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


def train_batches(network: nn.Layer, optimizer: paddle.optimizer.Optimizer, batches: Batches) -> tuple[float, float]:
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
        means.update(*(each.numpy() for each in means.compute(logits.detach(), labels)))
    loss, top1 = means.accumulate()
    return loss, top1


def train_while_finite(network: nn.Layer, optimizer: paddle.optimizer.Optimizer, batches: Batches) -> list[float]:
    """Take a step for each batch; return their losses (nats), which end before the first one that is not finite."""
    losses: list[float] = []
    for batch in batches:
        loss, _ = train_batches(network, optimizer, [batch])
        if not math.isfinite(loss):
            break
        losses.append(loss)
    return losses
