"""Curves and values of several runs that differ in their seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes


def draw_runs(axes: Axes, curves: Sequence[tuple[Sequence[float] | np.ndarray, ...]], label: str, **style: Any) -> None:
    """Draw one line per run, each curve being its x and y values; only the first line gets the label."""
    for index, (x, y) in enumerate(curves):
        axes.plot(x, y, label=label if index == 0 else None, **style)


def draw_mean_and_range(
    axes: Axes, x: Sequence[float] | np.ndarray, curves: np.ndarray, label: str, color: str, **style: Any
) -> None:
    """Draw the mean of `curves` ``[runs, n]`` as a line, and the range from the lowest to the highest as a band."""
    axes.plot(x, curves.mean(axis=0), color=color, label=label, clip_on=False, **style)
    axes.fill_between(x, curves.min(axis=0), curves.max(axis=0), color=color, alpha=0.12, linewidth=0)


def draw_values_and_mean(
    axes: Axes, x: Sequence[float], values: Sequence[Sequence[float]], label: str, color: str, marker: str
) -> None:
    """Draw a pale marker for every run's value at each x, and a line through the means."""
    for place, at_place in zip(x, values, strict=True):
        axes.plot([place] * len(at_place), at_place, marker, color=color, markersize=5, alpha=0.5, clip_on=False)
    axes.plot(x, [np.mean(at_place) for at_place in values], color=color, marker=marker, label=label)
