"""The networks of the lesson on gradients, the norm of the loss's gradient in each convolution, and its plots."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import paddle
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from paddle import nn
from paddle.nn import functional

from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.models import ImageClassifier, create_model
from paddle_resnet.plots.style import BLUE, GREEN, RED, make_figure

KINDS = {"plain": "plain", "resnet": "residual"}
"""Words for the prefixes of the networks' names."""

COLOURS = {20: BLUE, 56: GREEN, 110: RED}
"""By depth."""

BATCH_SIZE = 32
IMAGE_SIZE = 32
SEED = 0
VANISHED = 0.1
"""Share of the last convolution's gradient below which the first one's has vanished."""

NetworkKey: TypeAlias = tuple[str, bool]
"""Name of a network, such as ``plain20``, and whether it has BatchNorm."""


@dataclass(frozen=True)
class LayerGradients:
    """The gradient of one batch's loss, by convolution from the input on.

    Attributes:
        names: of the convolutions, as in the state dict.
        norms: ``norm(dL/dW)`` of each, float64.
        weight_norms: ``norm(W)`` of each, float64.
        loss: of the batch, in nats.
    """

    names: tuple[str, ...]
    norms: np.ndarray
    weight_norms: np.ndarray
    loss: float

    @property
    def relative(self) -> np.ndarray:
        """Relative change of each convolution by an SGD step of learning rate 1: ``norm(dL/dW) / norm(W)``."""
        return self.norms / self.weight_norms

    @property
    def scale_free(self) -> np.ndarray:
        """``norm(dL/dW) norm(W)``, which scaling the weights before a BatchNorm does not change."""
        return self.norms * self.weight_norms

    @property
    def first_to_last(self) -> float:
        return float(self.relative[0] / self.relative[-1])

    @property
    def vanishes(self) -> bool:
        """Whether the first convolution has less than a tenth of the last one's gradient."""
        return self.first_to_last < VANISHED

    @property
    def growth(self) -> float:
        """Factor per layer towards the input, from a straight line through the logarithms.

        Below 1 the gradient vanishes on its way back, above 1 it explodes. NaN if a gradient is zero or not finite.
        """
        if not (np.isfinite(self.relative).all() and self.relative.all()):
            return math.nan
        slope, _ = np.polyfit(np.arange(len(self.relative)), np.log(self.relative), 1)
        return float(np.exp(-slope))


def measure_gradients(network: nn.Layer, images: paddle.Tensor, labels: paddle.Tensor) -> LayerGradients:
    """Compute the gradient of one batch in training mode. It updates running statistics and clears the gradients.

    Args:
        network: its convolutions form one sequence, as in networks of `PlainBlock`, or of `BasicBlock` with shortcuts
            of option A.
        images: float32 ``[N, 3, S, S]``.
        labels: int64 ``[N, 1]``.
    """
    network.train()
    network.clear_gradients()
    loss = functional.cross_entropy(network(images), labels)
    loss.backward()
    weights = {name: layer.weight for name, layer in network.named_sublayers() if isinstance(layer, nn.Conv2D)}
    norms = np.array([_norm(weight.grad) for weight in weights.values()])
    weight_norms = np.array([_norm(weight) for weight in weights.values()])
    network.clear_gradients()
    return LayerGradients(tuple(weights), norms, weight_norms, float(loss.item()))


def without_batch_norm(network: nn.Layer) -> nn.Layer:
    """Replace every BatchNorm by an identity, in place; return the network."""
    for layer in network.sublayers(include_self=True):
        for name, child in list(layer.named_children()):
            if isinstance(child, nn.BatchNorm2D):
                setattr(layer, name, nn.Identity())
    return network


def _norm(tensor: paddle.Tensor) -> float:
    # In float64, because the square of an exploding gradient overflows float32.
    return float(np.linalg.norm(tensor.numpy().astype(np.float64)))


def make_network(name: str, batch_norm: bool = True) -> ImageClassifier:
    """Make a network with the initial weights of a fixed seed; without `batch_norm`, each BatchNorm is an identity."""
    paddle.seed(SEED)
    network = create_model(name)
    return network if batch_norm else without_batch_norm(network)


def record_gradients(page: Page, name: str, gradients: LayerGradients) -> None:
    """Record the gradients of one network under names that begin with `name`."""
    for attribute in ("norms", "relative", "first_to_last", "growth", "loss"):
        page.record(**{f"{name}_{attribute}": getattr(gradients, attribute)})


def draw_initial(measured: Mapping[NetworkKey, LayerGradients]) -> Figure:
    """Draw the relative gradients of plain (left) and residual networks, without BatchNorm (above) and with it."""
    figure, panels = make_figure(10, 7.2, 2, 2, sharex=True, sharey="row")
    for row, batch_norm, words in zip(panels, (False, True), ("without BatchNorm", "with BatchNorm"), strict=True):
        for axes, (kind, title) in zip(row, KINDS.items(), strict=True):
            for depth in COLOURS:
                _draw_curve(axes, measured[f"{kind}{depth}", batch_norm], depth, "-", "")
            _frame(axes, f"{title}, {words}")
        row[0].set_ylabel("norm(dL/dW) / norm(W)")
    for axes in panels[1]:
        axes.set_xlabel("convolution, from the input to the output")
    panels[0, 0].legend(loc="best")
    return figure


def draw_before_and_after(
    before: Mapping[NetworkKey, LayerGradients], after: Mapping[NetworkKey, LayerGradients]
) -> Figure:
    """Draw the relative gradients of plain (left) and residual networks before (dashed) and after some training."""
    figure, panels = make_figure(10, 4.4, 1, 2, sharex=True, sharey=True)
    for axes, (kind, title) in zip(panels, KINDS.items(), strict=True):
        for depth in COLOURS:
            key = f"{kind}{depth}", True
            if key in after:
                _draw_curve(axes, before[key], depth, "--", ", before")
                _draw_curve(axes, after[key], depth, "-", ", after")
        _frame(axes, title)
        axes.set_xlabel("convolution, from the input to the output")
    panels[0].set_ylabel("norm(dL/dW) / norm(W)")
    panels[1].legend(loc="best")
    return figure


def _draw_curve(axes: Axes, gradients: LayerGradients, depth: int, style: str, when: str) -> None:
    convolutions = np.arange(1, len(gradients.relative) + 1)
    label = f"{depth} layers{when}"
    axes.plot(convolutions, gradients.relative, style, color=COLOURS[depth], linewidth=1.6, label=label)


def _frame(axes: Axes, title: str) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"1e{round(np.log10(value))}"))
    axes.set_title(title, loc="left")
