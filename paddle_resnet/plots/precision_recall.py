"""Precision against recall, a curve for each class: what a threshold on its probability finds, and gets wrong."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, precision_recall_curve

from paddle_resnet.plots.style import GREY, percent, shortened
from paddle_resnet.results import Evaluation

CURVES = 10
LONGEST_NAME = 15


@dataclass(frozen=True, eq=False)
class ClassCurve:
    """One class against all others.

    Attributes:
        name: the class's.
        precision: by threshold, float64 `[n]`; recall: the same, falling from 1 to 0.
        average_precision: the mean of the precision over the recall, in steps, not interpolated.
    """

    name: str
    precision: np.ndarray
    recall: np.ndarray
    average_precision: float


def precision_recall_curves(evaluation: Evaluation) -> list[ClassCurve]:
    """Compute the curve of each class that has images, in the order of the classes."""
    curves = []
    for label, name in enumerate(evaluation.classes):
        truth, scores = evaluation.labels == label, evaluation.scores[:, label]
        if truth.any():
            precision, recall, _ = precision_recall_curve(truth, scores)
            curves.append(ClassCurve(name, precision, recall, float(average_precision_score(truth, scores))))
    return curves


def draw_precision_recall(evaluation: Evaluation, title: str) -> Figure:
    """Draw the curves; of more than 10 classes those of the lowest average precision, lowest first."""
    curves = precision_recall_curves(evaluation)
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
