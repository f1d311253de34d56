"""The figures of the lesson on depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paddle_resnet.lessons.common.runs import TrainingResult
from paddle_resnet.plots.style import BLUE, ORANGE


def draw_costs(parameters: Mapping[int, int], milliseconds: Mapping[int, float]) -> Figure:
    """Draw parameters (millions) and time (milliseconds an image) over the layers."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    _line(left, {depth: count / 1e6 for depth, count in parameters.items()}, "parameters (millions)")
    _line(right, milliseconds, "time (ms an image)")
    return figure


def draw_errors(results: Mapping[int, Sequence[TrainingResult]]) -> Figure:
    """Draw training and test error over the layers, a point for each seed."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    kinds = {
        "training images": (
            BLUE,
            "o",
            {depth: [each.training_error for each in runs] for depth, runs in results.items()},
        ),
        "test images": (ORANGE, "s", {depth: [each.test_error for each in runs] for depth, runs in results.items()}),
    }
    for label, (colour, mark, errors) in kinds.items():
        depths = list(errors)
        axes.plot(depths, [100 * np.mean(errors[depth]) for depth in depths], color=colour, label=label)
        for depth in depths:
            percents = 100 * np.array(errors[depth])
            axes.plot([depth] * len(percents), percents, mark, color=colour, markersize=6, clip_on=False)
    axes.set_xticks(list(results))
    axes.set_xlabel("layers")
    axes.set_ylabel("error after training (%)")
    axes.set_ylim(bottom=0)
    axes.grid(True, axis="y")
    axes.legend(loc="best")
    return figure


def _line(axes: Axes, values: Mapping[int, float], label: str) -> None:
    axes.plot(list(values), list(values.values()), "o-", color=BLUE)
    axes.set_xticks(list(values))
    axes.set_xlim(0, max(values) * 1.05)
    axes.set_ylim(0, max(values.values()) * 1.1)
    axes.set_xlabel("layers")
    axes.set_ylabel(label)
    axes.grid(True, axis="y")
