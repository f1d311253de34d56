"""The figures of a run: which there are, what they are drawn from, where they go."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from paddle_resnet.plots.confusion_matrix import draw_confusion_matrix
from paddle_resnet.plots.image_grids import choose_mistakes, choose_samples, draw_mistakes, draw_samples
from paddle_resnet.plots.learning_curves import draw_learning_curves
from paddle_resnet.plots.precision_recall import draw_precision_recall
from paddle_resnet.plots.style import save_figure
from paddle_resnet.results import Evaluation

if TYPE_CHECKING:
    from paddle_resnet.data import Split
    from paddle_resnet.training.run_folder import RunFolder
OF_A_SPLIT = ("samples", "confusion_matrix", "mistakes", "precision_recall")


def draw_figures(
    run: RunFolder, split_name: str, evaluation: Evaluation, figures: Sequence[str] = OF_A_SPLIT
) -> list[Path]:
    """Draw figures of a measured split into the run's `figures/`: ``<figure>_<split>.png``.

    Args:
        run: the run's folder.
        split_name: "train", "validation" or "test".
        evaluation: of that split.
        figures: names out of `OF_A_SPLIT`.

    Returns:
        The files written.
    """
    split: Split = getattr(run.splits(), split_name)
    title = f"{run.config.name}: {split_name} images"
    draws = {
        "samples": partial(_samples, split, evaluation, title),
        "confusion_matrix": partial(draw_confusion_matrix, evaluation.confusion, evaluation.classes, title),
        "mistakes": partial(_mistakes, split, evaluation, f"{run.config.name}: most confident mistakes, {split_name}"),
        "precision_recall": partial(draw_precision_recall, evaluation, title),
    }
    files = [run.figures_path / f"{figure}_{split_name}.png" for figure in figures]
    for figure, file in zip(figures, files, strict=True):
        save_figure(file, draws[figure])
    return files


def draw_history(run: RunFolder) -> list[Path]:
    """Draw the run's learning curves into its `figures/`; a run without a history (not one epoch done) has none."""
    history, file = run.history(), run.figures_path / "learning_curves.png"
    if not history:
        return []
    save_figure(file, partial(draw_learning_curves, history, f"{run.config.name}: learning curves"))
    return [file]


def _samples(split: Split, evaluation: Evaluation, title: str) -> Figure:
    chosen = choose_samples(np.asarray(split.labels), len(evaluation.classes))
    return draw_samples(split.batch(chosen), evaluation.labels[chosen], evaluation.classes, title)


def _mistakes(split: Split, evaluation: Evaluation, title: str) -> Figure:
    chosen = choose_mistakes(evaluation)
    images = split.batch(chosen) if len(chosen) else np.zeros((0, 1, 1, 3), np.uint8)
    return draw_mistakes(images, chosen, evaluation, title)
