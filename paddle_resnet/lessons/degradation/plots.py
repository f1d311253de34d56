"""The figures of the lesson on degradation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from paddle_resnet.lessons.common.runs import TrainingResult
from paddle_resnet.plots.curves import draw_mean_and_range
from paddle_resnet.plots.style import BLUE, RED

KINDS = {"plain": "plain", "resnet": "residual"}
DEPTHS = {20: BLUE, 56: RED}
"""The two depths, and their colours."""


def draw_curves(results: Mapping[str, Sequence[TrainingResult]]) -> Figure:
    """Draw error by epoch, plain and residual side by side, both depths in each panel."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (kind, title) in zip(panels, KINDS.items(), strict=True):
        for depth, colour in DEPTHS.items():
            trainings = results[f"{kind}{depth}"]
            training = 100 * np.stack([each.training_curve for each in trainings])
            validation = 100 * np.stack([each.validation_curve for each in trainings])
            epochs = np.arange(1, training.shape[1] + 1)
            draw_mean_and_range(axes, epochs, training, f"{depth} layers, training", colour, marker="o", markersize=4)
            draw_mean_and_range(axes, epochs, validation, f"{depth} layers, validation", colour, linestyle="--")
        axes.set_title(title, loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(True, axis="y")
    panels[0].set(ylabel="error (%)", ylim=(0, None))
    panels[1].legend(loc="upper right")
    return figure


def draw_final_errors(results: Mapping[str, Sequence[TrainingResult]]) -> Figure:
    """Draw every seed's training and test error after training, network by network."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    names = [f"{kind}{depth}" for kind in KINDS for depth in DEPTHS]
    for position, name in enumerate(names):
        colour = DEPTHS[int(name.lstrip("".join(KINDS)))]
        trainings = results[name]
        _points(axes, position - 0.13, [training.training_error for training in trainings], colour, filled=True)
        _points(axes, position + 0.13, [training.test_error for training in trainings], colour, filled=False)
    axes.plot([], [], "o", color="black", label="training images")
    axes.plot([], [], "o", color="black", markerfacecolor="none", label="test images")
    axes.legend(loc="upper right")
    axes.set_xticks(range(len(names)), [f"{title}, {depth} layers" for title in KINDS.values() for depth in DEPTHS])
    axes.set(xlim=(-0.6, len(names) - 0.4), ylim=(0, None), ylabel="error after training (%)")
    axes.grid(True, axis="y")
    return figure


def _points(axes: Axes, position: float, fractions: Sequence[float], colour: str, *, filled: bool) -> None:
    percents = 100 * np.array(fractions)
    places = position + np.linspace(-0.05, 0.05, len(percents)) if len(percents) > 1 else np.array([position])
    face = colour if filled else "none"
    axes.plot(places, percents, "o", color=colour, markerfacecolor=face, markersize=7, clip_on=False)
    axes.hlines(percents.mean(), position - 0.1, position + 0.1, color=colour, linewidth=1.5)
