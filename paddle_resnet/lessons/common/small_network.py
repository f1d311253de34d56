"""Paddle's BatchNorm warns at each step of training that it tracks its statistics, which is what it is for."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import paddle
from paddle import nn
from paddle.nn import functional

from paddle_resnet.config import AugmentConfig, Config
from paddle_resnet.data import Normalize, Splits, TrainLoader, open_splits, uint8_batches
from paddle_resnet.errors import RunFailure
from paddle_resnet.evaluation.metrics import measure
from paddle_resnet.evaluation.scorer import NetworkScorer
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.models.blocks import convolution


@contextlib.contextmanager
def quiet_batch_norm() -> Iterator[None]:
    """Hide that one warning; also a decorator."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "When training, we now always track", UserWarning)
        yield


Normalization: TypeAlias = Callable[[int], nn.Layer]
"""Makes the normalisation of so many channels."""

WIDTHS = (16, 16, 32, 32, 64, 64)
EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Pictures:
    """The images of a lesson: the digits, or CIFAR-10 in the full form."""

    source: str
    image_size: int
    splits: Splits

    @classmethod
    def open(cls, effort: Effort) -> Pictures:
        """Open what `effort` asks for.

        Raises:
            UsageError: CIFAR-10 is asked for and cannot be got.
        """
        data = {"source": "cifar10", "image_size": 32} if effort.full else {"source": "digits", "image_size": 8}
        config = Config.from_values({"data": data}, effort.overrides).data
        return cls(config.source, config.image_size, open_splits(config))

    def normalize(self) -> Normalize:
        """The layer that turns pixels into the network's input."""
        return Normalize(self.splits.mean, self.splits.std)


@dataclass(frozen=True)
class SmallRun:
    """What a training gave.

    Attributes:
        losses: cross-entropy of each step's batch, in nats; it ends early where one is not finite.
        steps: how many steps there should have been.
        steps_an_epoch: of which so many are an epoch.
        top1: on the test split in evaluation mode, a fraction; NaN where the training did not end.
        loss: the mean cross-entropy there, in nats; likewise.
    """

    losses: tuple[float, ...]
    steps: int
    steps_an_epoch: int
    top1: float
    loss: float

    @property
    def diverged(self) -> bool:
        """Whether the loss or the answers stopped being numbers."""
        return len(self.losses) < self.steps or math.isnan(self.top1)

    @property
    def last_epoch_loss(self) -> float:
        """The mean training loss of the last epoch's steps, in nats; infinite where it diverged."""
        if self.diverged:
            return math.inf
        return sum(self.losses[-self.steps_an_epoch :]) / self.steps_an_epoch


def small_network(normalization: Normalization | None, classes: int) -> nn.Sequential:
    """Make six 3x3 convolutions, each followed by `normalization` and ReLU, then average pooling and a linear layer.

    The third and the fifth halve H and W. With None nothing is normalised, and the convolutions have a bias instead.
    The same seed gives the convolutions the same weights, whatever the normalisation.
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


def train_small(
    pictures: Pictures,
    normalization: Normalization | None,
    *,
    batch_size: int,
    learning_rate: float,
    epochs: int,
    seed: int,
) -> SmallRun:
    """Train a `small_network` by plain stochastic gradient descent, unaugmented, and measure it on the test split.

    Nothing else differs between two trainings of one seed: first weights and order of the images are the same.
    """
    paddle.seed(seed)
    network = small_network(normalization, len(pictures.splits.classes))
    loader = TrainLoader(
        pictures.splits.train,
        batch_size=batch_size,
        image_size=pictures.image_size,
        resize=pictures.splits.resize,
        normalize=pictures.normalize(),
        augment=AugmentConfig(),
        seed=seed,
    )
    optimizer = paddle.optimizer.SGD(learning_rate, parameters=network.parameters())
    losses: list[float] = []
    network.train()
    for _ in range(epochs):
        for images, labels in loader:
            loss = functional.cross_entropy(network(images), labels)
            value = loss.item()
            if not math.isfinite(value):
                return SmallRun(tuple(losses), epochs * len(loader), len(loader), math.nan, math.nan)
            losses.append(value)
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
    top1, test_loss = _measured(pictures, network)
    return SmallRun(tuple(losses), epochs * len(loader), len(loader), top1, test_loss)


def _measured(pictures: Pictures, network: nn.Layer) -> tuple[float, float]:
    """Top-1 and mean loss on the test split, which nothing was chosen by; NaN where the weights have diverged."""
    splits = pictures.splits
    batches = uint8_batches(splits.test, EVALUATION_BATCH, splits.resize, pictures.image_size)
    try:
        evaluation = measure(NetworkScorer(network, pictures.normalize()), batches, splits.classes)
    except RunFailure:
        return math.nan, math.nan
    return evaluation.top1, evaluation.loss
