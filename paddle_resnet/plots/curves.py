"""Curves over epochs and steps: a run's history, a learning-rate sweep, and runs that differ in their seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from paddle_resnet.plots.style import BLUE, GREEN, GREY, ORANGE, make_figure, percent, plain_log_labels
from paddle_resnet.results import EpochRecord, Monitor

MARKERS_UP_TO = 40
MAX_SWEEP_LOSS = 1.5
"""The sweep's loss axis ends at this multiple of the first loss; higher losses show only divergence."""


def draw_learning_curves(history: Sequence[EpochRecord], title: str, monitor: Monitor = "top1") -> Figure:
    """Draw loss (nats), top-1 (percent) and the learning rate over the epochs, at least one, in three panels.

    The best epoch is marked, as chosen by what the run monitors.
    """
    figure, (loss, top1, rate) = make_figure(11, 4.2, 1, 3, title=title, title_size=13, width_ratios=[4, 4, 2.4])
    epochs = np.array([row.epoch for row in history])
    _plot(loss, epochs, [row.train_loss for row in history], BLUE, "training")
    _plot(loss, epochs, [row.validation_loss for row in history], ORANGE, "validation")
    loss.set_title("loss (nats)", loc="left")
    _plot(top1, epochs, [100 * row.train_top1 for row in history], BLUE, "training")
    _plot(top1, epochs, [100 * row.validation_top1 for row in history], ORANGE, "validation")
    top1.set_title("top-1 (%)", loc="left")
    _plot(rate, epochs, [row.learning_rate for row in history], GREEN, "learning rate")
    rate.set_title("learning rate", loc="left")
    for axes in (loss, rate):  # from zero to a little above the largest finite value
        drawn = np.concatenate([line.get_ydata() for line in axes.get_lines()])
        axes.set_ylim(0, 1.08 * max(drawn[np.isfinite(drawn)], default=1.0) or 1.0)
    best = max(history, key=lambda row: row.rank(monitor))
    best_top1 = best.validation_top1
    top1.plot(best.epoch, 100 * best_top1, "o", markersize=11, markerfacecolor="none", markeredgecolor=ORANGE)
    top1.set_title(f"best {percent(best_top1)}, epoch {best.epoch}", loc="right", fontsize=10)
    loss.legend(loc="upper right")
    top1.legend(loc="lower right")
    return figure


def _plot(axes: Axes, epochs: np.ndarray, values: Sequence[float], colour: str, label: str) -> None:
    markers = "o" if len(epochs) <= MARKERS_UP_TO else ""
    axes.plot(epochs, values, color=colour, marker=markers, markersize=4, label=label)
    axes.set_xlabel("epoch")
    axes.grid(True, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))
    margin = max(0.5, 0.02 * epochs[-1])
    axes.set_xlim(1 - margin, epochs[-1] + margin)


def draw_lr_sweep(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], proposed: float, title: str
) -> Figure:
    """Draw the loss (nats) of each step and its moving average over the learning rate, and mark the `proposed` rate."""
    figure, axes = make_figure(8, 4.6, title=title, title_size=13)
    axes.plot(rates, losses, color=GREY, alpha=0.5, linewidth=1, label="each step")
    axes.plot(rates, smoothed, color=BLUE, label="smoothed")
    axes.axvline(proposed, color=ORANGE, linestyle="--", label=f"proposed: {proposed:.2g}")
    axes.set_xscale("log")
    plain_log_labels(axes.xaxis, subs=(1.0,))
    axes.set_ylim(0.9 * min(loss for loss in losses if math.isfinite(loss)), MAX_SWEEP_LOSS * losses[0])
    axes.set_xlabel("learning rate")
    axes.set_title("loss (nats)", loc="left")
    axes.grid(True, axis="y")
    axes.legend(loc="upper left")
    return figure


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
    axes: Axes, x: Sequence[float], values: Sequence[Sequence[float] | np.ndarray], label: str, color: str, marker: str
) -> None:
    """Draw a pale marker for every run's value at each x, and a line through the means."""
    for place, at_place in zip(x, values, strict=True):
        axes.plot([place] * len(at_place), at_place, marker, color=color, markersize=5, alpha=0.5, clip_on=False)
    axes.plot(x, [np.mean(at_place) for at_place in values], color=color, marker=marker, label=label)
