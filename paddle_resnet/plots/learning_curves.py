"""Learning curves of a run (loss, top-1 and learning rate by epoch), and the loss of a learning-rate sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

from paddle_resnet.plots.style import BLUE, GREEN, GREY, ORANGE, percent
from paddle_resnet.results import EpochRecord

MARKERS_UP_TO = 40
MAX_SWEEP_LOSS = 1.5
"""The sweep's loss axis ends at this multiple of the first loss; higher losses show only divergence."""


def draw_learning_curves(history: Sequence[EpochRecord], title: str) -> Figure:
    """Draw loss (nats), top-1 (percent) and the learning rate over the epochs, in three panels.

    Args:
        history: the rows of `history.csv`, at least one; losses in nats, top-1 as fractions.
        title: of the plot.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    loss, top1, rate = figure.subplots(1, 3, width_ratios=[4, 4, 2.4])
    epochs = np.array([row.epoch for row in history])

    _plot(loss, epochs, [row.train_loss for row in history], BLUE, "training")
    _plot(loss, epochs, [row.validation_loss for row in history], ORANGE, "validation")
    loss.set_title("loss (nats)", loc="left")
    _from_zero(loss)
    loss.legend(loc="upper right")

    _plot(top1, epochs, [100 * row.train_top1 for row in history], BLUE, "training")
    _plot(top1, epochs, [100 * row.validation_top1 for row in history], ORANGE, "validation")
    top1.set_title("top-1 (%)", loc="left")
    _mark_best(top1, max(history, key=lambda row: row.rank))
    top1.legend(loc="lower right")

    _plot(rate, epochs, [row.learning_rate for row in history], GREEN, "learning rate")
    rate.set_title("learning rate", loc="left")
    _from_zero(rate)

    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    return figure


def _plot(axes: Axes, epochs: np.ndarray, values: Sequence[float] | np.ndarray, colour: str, label: str) -> None:
    markers = "o" if len(epochs) <= MARKERS_UP_TO else ""
    axes.plot(epochs, values, color=colour, marker=markers, markersize=4, label=label)
    axes.set_xlabel("epoch")
    axes.grid(True, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))
    margin = max(0.5, 0.02 * epochs[-1])
    axes.set_xlim(1 - margin, epochs[-1] + margin)


def _from_zero(axes: Axes) -> None:
    """Set the y axis from zero to a little above the largest finite value."""
    drawn = np.concatenate([line.get_ydata() for line in axes.get_lines()])
    axes.set_ylim(0, 1.08 * max(drawn[np.isfinite(drawn)], default=1.0) or 1.0)


def _mark_best(axes: Axes, best: EpochRecord) -> None:
    """Mark the epoch of checkpoint `best`, and name it in the panel's title line."""
    top1 = best.validation_top1
    axes.plot(best.epoch, 100 * top1, "o", markersize=11, markerfacecolor="none", markeredgecolor=ORANGE)
    axes.set_title(f"best {percent(top1)}, epoch {best.epoch}", loc="right", fontsize=10)


def draw_lr_sweep(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], proposed: float, title: str
) -> Figure:
    """Draw the loss (nats) of each step and its moving average over the learning rate, and mark the `proposed` rate."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color=GREY, alpha=0.5, linewidth=1, label="each step")
    axes.plot(rates, smoothed, color=BLUE, label="smoothed")
    axes.axvline(proposed, color=ORANGE, linestyle="--", label=f"proposed: {proposed:.2g}")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # the common style does not typeset powers
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(0.9 * min(loss for loss in losses if math.isfinite(loss)), MAX_SWEEP_LOSS * losses[0])
    axes.set_xlabel("learning rate")
    axes.set_title("loss (nats)", loc="left")
    axes.grid(True, axis="y")
    axes.legend(loc="upper left")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    return figure
