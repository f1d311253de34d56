"""How well a network tells classes apart: the confusion matrix, precision over recall, and calibration."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from paddle_resnet.plots.style import BLUE, GREY, INK, ORANGE, make_figure, percent, shortened
from paddle_resnet.results import Calibration, PrecisionRecallCurve

COUNTS_UP_TO = 20  # classes; with more, counts are not readable
COLOUR_IS_SHARE_UP_TO = 5  # classes
NAMES_UP_TO = 120  # classes; with more, names are not readable
CURVES = 10


def draw_confusion_matrix(confusion: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Draw counts `[true, predicted]` as text, and as colour the fraction of the true class's images."""
    totals = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, totals, out=np.zeros(confusion.shape), where=totals > 0)
    with_counts = len(classes) <= COUNTS_UP_TO
    side = max(5.5, 2.4 + (0.58 if with_counts else 0.125) * min(len(classes), NAMES_UP_TO))
    figure, axes = make_figure(side + 0.8, side)
    # Of many classes the colour follows the square root, so that 1% is visible. Of few, mistakes would look like hits.
    few = len(classes) <= COLOUR_IS_SHARE_UP_TO
    norm = PowerNorm(1.0 if few else 0.5, vmin=0, vmax=1)
    image = axes.imshow(shares, cmap="Blues", norm=norm, interpolation="nearest")
    figure.colorbar(
        image,
        ax=axes,
        shrink=0.7,
        aspect=30,
        pad=0.02,
        ticks=[0, 0.25, 0.5, 0.75, 1] if few else [0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1],
        format=PercentFormatter(1, decimals=0),
        label="share of the true class's images",
    )
    if len(classes) <= NAMES_UP_TO:
        names, size = [shortened(name, 18) for name in classes], 10 if with_counts else 6.5
        axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0, fontsize=size)
        axes.set_yticks(range(len(names)), names, fontsize=size)
        axes.tick_params(length=0)
    for true, predicted in np.argwhere(confusion) if with_counts else ():
        colour = "white" if norm(shares[true, predicted]) > 0.55 else INK
        axes.text(predicted, true, f"{confusion[true, predicted]}", ha="center", va="center", color=colour, fontsize=9)
    axes.set(xlabel="predicted", ylabel="true")
    images = int(confusion.sum())
    top1 = float(np.trace(confusion)) / max(images, 1)
    axes.set_title(f"{title}\n{percent(top1)} of {images:,} images right", loc="left", fontweight="bold")
    return figure


def draw_precision_recall(curves: Sequence[PrecisionRecallCurve], title: str) -> Figure:
    """Draw a curve for each class; with more than 10 classes, only those of the lowest average precision."""
    mean = float(np.mean([curve.average_precision for curve in curves]))
    few = len(curves) <= CURVES
    shown = curves if few else sorted(curves, key=lambda curve: curve.average_precision)[:CURVES]
    figure, axes = make_figure(8, 4.6, title=title, title_size=13)
    for number, curve in enumerate(shown):
        colour = mpl.colormaps["tab10"](number)
        label = f"{shortened(curve.name, 15)}  {percent(curve.average_precision)}"
        axes.plot(curve.recall, curve.precision, color=colour, linewidth=1.5, drawstyle="steps-post", label=label)
    axes.set(xlabel="recall", ylabel="precision", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.grid(True)
    axes.set_title(f"mean average precision {percent(mean)} over {len(curves)} classes", loc="left")
    legend = "average precision" if few else f"the {CURVES} lowest"
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), title=legend, labelcolor=GREY)
    return figure


def draw_calibration(calibration: Calibration, title: str) -> Figure:
    """Draw a reliability diagram: accuracy and mean confidence of each bin, and its share of the images."""
    bins = len(calibration.images)
    places, width = (np.arange(bins) + 0.5) / bins, 0.9 / bins
    used = places[calibration.images > 0]
    figure, (axes, below) = make_figure(
        6, 6.6, 2, title=title, title_size=13, sharex=True, gridspec_kw={"height_ratios": [4, 1]}
    )
    axes.bar(places, calibration.accuracy, width, color=BLUE, label="accuracy")
    confidence = calibration.confidence[calibration.images > 0]
    ends = used - width / 2, used + width / 2
    axes.hlines(confidence, *ends, color=ORANGE, linewidth=3, label="mean confidence")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1.2, linestyle="--", label="perfect calibration")
    axes.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    figure.legend(loc="outside lower center", ncols=3)
    axes.set_title(f"expected calibration error {percent(calibration.error)}", loc="left")
    below.bar(places, calibration.images / calibration.images.sum(), width, color=GREY)
    below.set(xlabel="confidence: probability of the predicted class", ylabel="images")
    for each in (axes, below):
        each.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        each.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure
