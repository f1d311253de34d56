"""The plots of a run: what each is drawn from, and its file in the run's ``figures/``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from paddle_resnet.evaluation.examples import choose_mistakes, choose_samples
from paddle_resnet.evaluation.metrics import precision_recall_curves
from paddle_resnet.plots.classification import draw_confusion_matrix, draw_precision_recall
from paddle_resnet.plots.curves import draw_learning_curves
from paddle_resnet.plots.image_grids import draw_mistakes, draw_samples
from paddle_resnet.plots.style import save_figure
from paddle_resnet.results import Evaluation

if TYPE_CHECKING:
    from paddle_resnet.data import Split
    from paddle_resnet.training.run_folder import RunFolder

SPLIT_PLOTS = ("samples", "confusion_matrix", "mistakes", "precision_recall")


def draw_split_plots(
    run: RunFolder, split_name: str, evaluation: Evaluation, plots: Sequence[str] = SPLIT_PLOTS
) -> dict[str, Path]:
    """Draw plots of a measured split into the run's ``figures/``.

    Args:
        run: the run.
        split_name: "train", "validation" or "test".
        evaluation: of that split.
        plots: names out of `SPLIT_PLOTS`.

    Returns:
        The files by plot: ``figures/<plot>_<split>.png``.
    """
    split: Split = getattr(run.splits(), split_name)
    title = f"{run.config.name}: {split_name} images"
    draw: dict[str, Callable[[], Figure]] = {
        "samples": partial(_samples, split, evaluation, title),
        "confusion_matrix": partial(draw_confusion_matrix, evaluation.confusion, evaluation.classes, title),
        "mistakes": partial(_mistakes, split, evaluation, f"{run.config.name}: most confident mistakes, {split_name}"),
        "precision_recall": lambda: draw_precision_recall(precision_recall_curves(evaluation), title),
    }
    files = {plot: run.figures_path / f"{plot}_{split_name}.png" for plot in plots}
    for plot, file in files.items():
        save_figure(file, draw[plot])
    return files


def draw_history_plot(run: RunFolder) -> None:
    """Draw ``figures/learning_curves.png``, unless the run has not finished an epoch."""
    if history := run.history():
        title = f"{run.config.name}: learning curves"
        save_figure(run.figures_path / "learning_curves.png", lambda: draw_learning_curves(history, title))


def _samples(split: Split, evaluation: Evaluation, title: str) -> Figure:
    chosen = choose_samples(np.asarray(split.labels), len(evaluation.classes))
    return draw_samples(split.batch(chosen), evaluation.labels[chosen], evaluation.classes, title)


def _mistakes(split: Split, evaluation: Evaluation, title: str) -> Figure:
    chosen = choose_mistakes(evaluation)
    images = split.batch(chosen) if len(chosen) else np.zeros((0, 1, 1, 3), np.uint8)
    return draw_mistakes(images, chosen, evaluation, title)
