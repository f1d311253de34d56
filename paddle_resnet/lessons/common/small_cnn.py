"""A small CNN with a choice of normalisation, trained by plain SGD for comparisons."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import paddle
from paddle import nn

from paddle_resnet.errors import RunFailure
from paddle_resnet.lessons.common.training_loop import LessonData, take_batches, train_while_finite
from paddle_resnet.models.blocks import convolution

NormFactory: TypeAlias = Callable[[int], nn.Layer]  # makes the normalisation layer for a number of channels
WIDTHS = (16, 16, 32, 32, 64, 64)


@dataclass(frozen=True)
class Trainings:
    """The trainings of a small CNN by one recipe, one a seed; losses are cross-entropies in nats."""

    losses: tuple[list[float], ...]  # by seed, of each step's batch; ends before the first one that is not finite
    test_losses: np.ndarray  # by seed, means over the test split; NaN if the training diverged
    test_top1: np.ndarray  # by seed, a fraction, in evaluation mode; NaN if the training diverged
    steps_per_epoch: int

    @property
    def diverged(self) -> int:
        """Number of trainings whose loss or weights are not finite."""
        return int(np.isnan(self.test_top1).sum())

    @property
    def last_epoch_losses(self) -> np.ndarray:
        """The mean training loss of the last epoch's steps by seed, in nats; infinite where it diverged."""
        means = np.array([sum(losses[-self.steps_per_epoch :]) / self.steps_per_epoch for losses in self.losses])
        return np.where(np.isnan(self.test_top1), math.inf, means)

    @property
    def mean_loss(self) -> float:
        """The mean of `last_epoch_losses`."""
        return float(self.last_epoch_losses.mean())


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
) -> dict[str, list[Trainings]]:
    """Train with each normalisation and each (batch size, learning rate) of `settings`, once a seed."""
    return {
        name: [_train_seeds(data, norm, size, rate, epochs, seeds) for size, rate in settings]
        for name, norm in normalizations.items()
    }


def _train_seeds(
    data: LessonData, normalization: NormFactory | None, size: int, rate: float, epochs: int, seeds: Sequence[int]
) -> Trainings:
    """Train by plain SGD without augmentation, and measure on the test split.

    Two trainings of one seed have the same initial weights and the same order of the images.
    """
    results = []
    for seed in seeds:
        paddle.seed(seed)
        network = small_cnn(normalization, len(data.splits.classes))
        loader = data.loader(size, seed)
        optimizer = paddle.optimizer.SGD(rate, parameters=network.parameters())
        steps = epochs * len(loader)
        losses = train_while_finite(network, optimizer, take_batches(loader, steps))
        results.append((losses, *(_test(data, network) if len(losses) == steps else (math.nan, math.nan))))
    losses_by_seed, test_losses, test_top1 = zip(*results, strict=True)
    return Trainings(losses_by_seed, np.array(test_losses), np.array(test_top1), len(loader))


def _test(data: LessonData, network: nn.Layer) -> tuple[float, float]:
    """Return mean loss and top-1 on the test split; NaN if the weights have diverged."""
    try:
        evaluation = data.measure(network, data.splits.test)
    except RunFailure:
        return math.nan, math.nan
    return evaluation.loss, evaluation.top1
