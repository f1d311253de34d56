"""The figures of a run: which there are, what they are drawn from, where they go."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paddle_resnet.evaluation.confusion_matrix import draw_confusion_matrix
from paddle_resnet.evaluation.drawing import save_figure
from paddle_resnet.evaluation.learning_curves import draw_learning_curves
from paddle_resnet.evaluation.measure import Evaluation
from paddle_resnet.evaluation.pictures import choose_mistakes, choose_samples, draw_mistakes, draw_samples

if TYPE_CHECKING:
    from paddle_resnet.data import Split
    from paddle_resnet.training.run_folder import RunFolder


def draw_figures(run: RunFolder, split_name: str, evaluation: Evaluation) -> list[Path]:
    """Draw the run's figures into its `figures/`: samples, learning curves, confusion matrix, confident mistakes.

    Returns:
        The files written. A run without a history (not a single epoch done) has no learning curves.
    """
    split: Split = getattr(run.splits(), split_name)
    name = run.config.name
    drawn = {
        f"samples_{split_name}.png": _samples(split, evaluation, f"{name}: {split_name} images"),
        f"confusion_matrix_{split_name}.png": partial(
            draw_confusion_matrix, evaluation.confusion, evaluation.classes, f"{name}: {split_name} images"
        ),
        f"mistakes_{split_name}.png": _mistakes(split, evaluation, f"{name}: most confident mistakes, {split_name}"),
    }
    history = run.history()
    if history:
        drawn["learning_curves.png"] = partial(draw_learning_curves, history, f"{name}: learning curves")
    for file, draw in drawn.items():
        save_figure(run.figures_path / file, draw)
    return [run.figures_path / file for file in drawn]


def _samples(split: Split, evaluation: Evaluation, title: str) -> partial:
    chosen = choose_samples(np.asarray(split.labels), len(evaluation.classes))
    return partial(draw_samples, split.batch(chosen), evaluation.labels[chosen], evaluation.classes, title)


def _mistakes(split: Split, evaluation: Evaluation, title: str) -> partial:
    chosen = choose_mistakes(evaluation)
    images = split.batch(chosen) if len(chosen) else np.zeros((0, 1, 1, 3), np.uint8)
    return partial(draw_mistakes, images, chosen, evaluation, title)
