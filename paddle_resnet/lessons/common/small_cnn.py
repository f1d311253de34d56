"""A small CNN with a choice of normalisation, trained by plain SGD for comparisons."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional

from paddle_resnet.config import Config
from paddle_resnet.data import Normalize, Splits, open_splits, uint8_batches
from paddle_resnet.errors import RunFailure
from paddle_resnet.evaluation.metrics import measure
from paddle_resnet.evaluation.scorer import NetworkScorer
from paddle_resnet.lessons.common.training_loop import make_train_loader
from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.models.blocks import convolution


@contextlib.contextmanager
def ignore_batch_norm_warning() -> Iterator[None]:
    """Hide Paddle's warning, at each training step, that BatchNorm tracks its statistics; also a decorator."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "When training, we now always track", UserWarning)
        yield


NormFactory: TypeAlias = Callable[[int], nn.Layer]
"""Makes the normalisation layer for a number of channels."""

WIDTHS = (16, 16, 32, 32, 64, 64)
EVALUATION_BATCH = 256


@dataclass(frozen=True)
class LessonData:
    """The data of a lesson: the digits, or CIFAR-10 in the full form."""

    source: str
    image_size: int
    splits: Splits

    @classmethod
    def open(cls, effort: Effort) -> LessonData:
        """Open the data set of `effort`.

        Raises:
            UsageError: CIFAR-10 is missing and cannot be downloaded.
        """
        data = {"source": "cifar10", "image_size": 32} if effort.full else {"source": "digits", "image_size": 8}
        config = Config.from_values({"data": data}, effort.overrides).data
        return cls(config.source, config.image_size, open_splits(config))


@dataclass(frozen=True)
class SmallCnnResult:
    """The result of a training.

    Attributes:
        losses: cross-entropy of each step's batch, in nats; ends before the first one that is not finite.
        steps: planned number of steps.
        steps_per_epoch: steps of one epoch.
        top1: on the test split in evaluation mode, a fraction; NaN if the training diverged.
        loss: mean cross-entropy on the test split, in nats; NaN if the training diverged.
    """

    losses: tuple[float, ...]
    steps: int
    steps_per_epoch: int
    top1: float
    loss: float

    @property
    def diverged(self) -> bool:
        return len(self.losses) < self.steps or math.isnan(self.top1)

    @property
    def last_epoch_loss(self) -> float:
        """The mean training loss of the last epoch's steps, in nats; infinite where it diverged."""
        if self.diverged:
            return math.inf
        return sum(self.losses[-self.steps_per_epoch :]) / self.steps_per_epoch


def small_cnn(normalization: NormFactory | None, classes: int) -> nn.Sequential:
    """Make six 3x3 convolutions, each followed by `normalization` and ReLU, then average pooling and a linear layer.

    The third and the fifth halve H and W. Without normalisation (None) the convolutions have a bias. One seed gives the
    convolutions the same weights with every normalisation.
    """
    layers: list[nn.Layer] = []
    channels = 3
    for width in WIDTHS:
        stride = 1 if width == channels or not layers else 2
        layers.append(convolution(channels, width, 3, stride, bias=normalization is None))
        if normalization is not None:
            layers.append(normalization(width))
        layers.append(nn.ReLU())
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(channels, classes))


def train_grid(
    data: LessonData,
    normalizations: Mapping[str, NormFactory | None],
    settings: Sequence[tuple[int, float]],
    epochs: int,
    seeds: Sequence[int],
) -> dict[str, list[list[SmallCnnResult]]]:
    """Train with each normalisation, then each (batch size, learning rate) of `settings`, then each seed."""

    def train(normalization: NormFactory | None, size: int, rate: float) -> list[SmallCnnResult]:
        run = partial(train_small_cnn, data, normalization, batch_size=size, learning_rate=rate, epochs=epochs)
        return [run(seed=seed) for seed in seeds]

    return {name: [train(norm, size, rate) for size, rate in settings] for name, norm in normalizations.items()}


def train_small_cnn(
    data: LessonData,
    normalization: NormFactory | None,
    *,
    batch_size: int,
    learning_rate: float,
    epochs: int,
    seed: int,
) -> SmallCnnResult:
    """Train a `small_cnn` by plain SGD without augmentation, and measure it on the test split.

    Two trainings of one seed have the same initial weights and the same order of the images.
    """
    paddle.seed(seed)
    network = small_cnn(normalization, len(data.splits.classes))
    loader = make_train_loader(data.splits, batch_size, data.image_size, seed)
    optimizer = paddle.optimizer.SGD(learning_rate, parameters=network.parameters())
    losses: list[float] = []
    network.train()
    for _ in range(epochs):
        for images, labels in loader:
            loss = functional.cross_entropy(network(images), labels)
            value = loss.item()
            if not math.isfinite(value):
                return SmallCnnResult(tuple(losses), epochs * len(loader), len(loader), math.nan, math.nan)
            losses.append(value)
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
    top1, test_loss = _test(data, network)
    return SmallCnnResult(tuple(losses), epochs * len(loader), len(loader), top1, test_loss)


def _test(data: LessonData, network: nn.Layer) -> tuple[float, float]:
    """Return top-1 and mean loss on the test split; NaN if the weights have diverged."""
    splits = data.splits
    batches = uint8_batches(splits.test, EVALUATION_BATCH, splits.resize, data.image_size)
    try:
        evaluation = measure(NetworkScorer(network, Normalize(splits.mean, splits.std)), batches, splits.classes)
    except RunFailure:
        return math.nan, math.nan
    return evaluation.top1, evaluation.loss


def mean_last_epoch_loss(results: Sequence[SmallCnnResult]) -> float:
    """Return the mean training loss of the last epoch over several trainings, in nats."""
    return float(np.mean([result.last_epoch_loss for result in results]))
