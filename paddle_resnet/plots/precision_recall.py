"""Precision over recall, one curve a class."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from paddle_resnet.plots.style import GREY, percent, shortened
from paddle_resnet.results import PrecisionRecallCurve

CURVES = 10
LONGEST_NAME = 15


def draw_precision_recall(curves: Sequence[PrecisionRecallCurve], title: str) -> Figure:
    """Draw the curves; with more than 10 classes, only those of the lowest average precision, lowest first."""
    mean = float(np.mean([curve.average_precision for curve in curves]))
    shown = curves
    if len(curves) > CURVES:
        shown = sorted(curves, key=lambda curve: curve.average_precision)[:CURVES]
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    for number, curve in enumerate(shown):
        label = f"{shortened(curve.name, LONGEST_NAME)}  {percent(curve.average_precision)}"
        colour = mpl.colormaps["tab10"](number)
        axes.plot(curve.recall, curve.precision, color=colour, linewidth=1.5, drawstyle="steps-post", label=label)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.grid(True)
    axes.set_title(f"mean average precision {percent(mean)} over {len(curves)} classes", loc="left")
    few = "average precision" if shown is curves else f"the {CURVES} lowest"
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), title=few, labelcolor=GREY)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    return figure
