"""The figures of the lesson on gradients."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from paddle_resnet.lessons.gradients.layer_gradients import LayerGradients
from paddle_resnet.plots.style import BLUE, GREEN, RED

KINDS = {"plain": "plain", "resnet": "residual"}
COLOURS = {20: BLUE, 56: GREEN, 110: RED}
"""Colour of each depth."""

Measured = Mapping[tuple[str, int], LayerGradients]
"""Gradients by kind and depth of the network."""


def draw_by_layer(bare: Measured, normalized: Measured) -> Figure:
    """Draw the relative gradients of plain (left) and residual networks, without BatchNorm (above) and with it."""
    figure = Figure(figsize=(10, 7.2), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey="row")
    for row, (measured, words) in enumerate(((bare, "without BatchNorm"), (normalized, "with BatchNorm"))):
        for axes, (kind, title) in zip(panels[row], KINDS.items(), strict=True):
            for (of_kind, depth), gradients in measured.items():
                if of_kind == kind:
                    _curve(axes, gradients, COLOURS[depth], "-", f"{depth} layers")
            _frame(axes, f"{title}, {words}")
        panels[row, 0].set_ylabel("norm(dL/dW) / norm(W)")
    for axes in panels[1]:
        axes.set_xlabel("convolution, from the input to the output")
    panels[0, 0].legend(loc="best")
    return figure


def draw_before_and_after(before: Measured, after: Measured) -> Figure:
    """Draw the relative gradients of plain (left) and residual networks before (dashed) and after some training."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, (kind, title) in zip(panels, KINDS.items(), strict=True):
        for (of_kind, depth), gradients in after.items():
            if of_kind == kind:
                _curve(axes, before[kind, depth], COLOURS[depth], "--", f"{depth} layers, before")
                _curve(axes, gradients, COLOURS[depth], "-", f"{depth} layers, after")
        _frame(axes, title)
        axes.set_xlabel("convolution, from the input to the output")
    panels[0].set_ylabel("norm(dL/dW) / norm(W)")
    panels[1].legend(loc="best")
    return figure


def _curve(axes: Axes, gradients: LayerGradients, colour: str, style: str, label: str) -> None:
    convolutions = np.arange(1, len(gradients.relative) + 1)
    axes.plot(convolutions, gradients.relative, style, color=colour, linewidth=1.6, label=label)


def _frame(axes: Axes, title: str) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"1e{round(np.log10(value))}"))
    axes.set_title(title, loc="left")
    axes.grid(True, axis="y")
