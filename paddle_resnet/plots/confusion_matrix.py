"""The plot of a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from paddle_resnet.plots.style import percent, shortened

COUNTS_UP_TO = 20  # classes; with more, counts are not readable
NAMES_UP_TO = 120  # classes; with more, names are not readable
LONGEST_NAME = 18
LIGHT, DARK = "#FFFFFF", "#222222"


def draw_confusion_matrix(confusion: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Draw counts `[true, predicted]` as text, and as colour the fraction of the true class's images."""
    number = len(classes)
    totals = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, totals, out=np.zeros(confusion.shape), where=totals > 0)
    with_counts = number <= COUNTS_UP_TO
    side = max(5.5, 2.4 + (0.58 if with_counts else 0.125) * min(number, NAMES_UP_TO))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    # The colour follows the square root, so that 1% is visible.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1), interpolation="nearest")
    figure.colorbar(
        image,
        ax=axes,
        shrink=0.7,
        aspect=30,
        pad=0.02,
        ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1],
        format=PercentFormatter(1, decimals=0),
        label="share of the true class's images",
    )
    _name_classes(axes, classes, size=10 if with_counts else 6.5)
    if with_counts:
        _write_counts(axes, confusion, shares)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    images = int(confusion.sum())
    top1 = float(np.trace(confusion)) / max(images, 1)
    axes.set_title(f"{title}\n{percent(top1)} of {images:,} images right", loc="left", fontweight="bold")
    return figure


def _name_classes(axes: Axes, classes: Sequence[str], size: float) -> None:
    if len(classes) > NAMES_UP_TO:
        return
    names = [shortened(name, LONGEST_NAME) for name in classes]
    upright = max(map(len, names)) > 2
    axes.set_xticks(range(len(names)), names, rotation=90 if upright else 0, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.tick_params(length=0)


def _write_counts(axes: Axes, confusion: np.ndarray, shares: np.ndarray) -> None:
    for (true, predicted), count in np.ndenumerate(confusion):
        if count:
            colour = LIGHT if shares[true, predicted] > 0.3 else DARK
            axes.text(predicted, true, f"{count}", ha="center", va="center", color=colour, fontsize=9)
