"""Grids of images: samples of a split, the most confident mistakes, and the most confused classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paddle_resnet.plots.style import RED, make_figure, percent, shortened, without_axes
from paddle_resnet.results import Evaluation

COLUMNS = 8
LONGEST_NAME = 15
CELL = 1.45  # inches an image


def draw_samples(images: np.ndarray, labels: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Draw uint8 images `[n, H, W, 3]`, each below the name of its class."""
    figure, cells = _grid(len(images), title, caption_lines=1)
    for axes, image, label in zip(cells, images, labels, strict=False):
        _show(axes, image)
        axes.set_title(shortened(classes[label], LONGEST_NAME), fontsize=10, loc="center", pad=3)
    return figure


def draw_mistakes(images: np.ndarray, chosen: np.ndarray, evaluation: Evaluation, title: str) -> Figure:
    """Draw wrongly classified images, each below its prediction with the probability, and its true class.

    Args:
        images: uint8 `[n, H, W, 3]`.
        chosen: their positions in `evaluation`, int64 `[n]`.
        evaluation: of the split.
        title: of the plot.
    """
    if len(chosen) == 0:
        return _no_mistakes(evaluation, title)
    figure, cells = _grid(len(images), title, caption_lines=2)
    predicted = evaluation.predicted
    for axes, image, index in zip(cells, images, chosen, strict=False):
        _show(axes, image)
        wrong, truth = evaluation.classes[predicted[index]], evaluation.classes[evaluation.labels[index]]
        probability = percent(float(evaluation.scores[index, predicted[index]]))
        centre: dict[str, Any] = {"ha": "center", "transform": axes.transAxes, "fontsize": 9}
        axes.text(0.5, 1.17, f"{shortened(wrong, 11)} {probability}", color=RED, fontweight="bold", **centre)
        axes.text(0.5, 1.03, f"is {shortened(truth, LONGEST_NAME)}", **centre)
    return figure


def draw_confused_pairs(
    examples: Sequence[np.ndarray], pairs: Sequence[tuple[int, int]], evaluation: Evaluation, title: str
) -> Figure:
    """Draw a row of example images, uint8 `[<= 8, H, W, 3]`, for each pair of a true and a predicted class."""
    if not pairs:
        return _no_mistakes(evaluation, title)
    figure, cells = _grid(len(pairs) * COLUMNS, title, caption_lines=1)
    for row, (images, (true, predicted)) in enumerate(zip(examples, pairs, strict=True)):
        for axes, image in zip(cells[row * COLUMNS :], images, strict=False):
            _show(axes, image)
        for axes in cells[row * COLUMNS + len(images) : (row + 1) * COLUMNS]:
            axes.set_visible(False)
        wrong, whole = evaluation.confusion[true, predicted], evaluation.confusion[true].sum()
        names = (shortened(evaluation.classes[label], 30) for label in (true, predicted))
        words = "{} taken for {}".format(*names) + f": {wrong:,} of {whole:,} ({percent(wrong / whole)})"
        cells[row * COLUMNS].set_title(words, loc="left", fontsize=10, pad=3)
    return figure


def _no_mistakes(evaluation: Evaluation, title: str) -> Figure:
    figure, axes = make_figure(6, 2)
    without_axes(axes)
    axes.set_title(title, loc="left", fontweight="bold")
    axes.text(0.5, 0.5, f"No mistakes: all {evaluation.images:,} images right.", ha="center", va="center", fontsize=12)
    return figure


def draw_augmentations(originals: np.ndarray, draws: Sequence[np.ndarray], title: str) -> Figure:
    """Draw a row for each of the images uint8 ``[n, h, w, 3]``: itself, then its augmentations ``[n, S, S, 3]``."""
    figure, rows = make_figure(
        CELL * (len(draws) + 1), CELL * len(originals) + 0.5, len(originals), len(draws) + 1, title=title, squeeze=False
    )
    for number, row in enumerate(rows):
        for axes, image in zip(row, (originals[number], *(draw[number] for draw in draws)), strict=True):
            _show(axes, image)
            without_axes(axes)
    rows[0][0].set_title("before", fontsize=10)
    return figure


def _grid(number: int, title: str, caption_lines: int) -> tuple[Figure, list[Axes]]:
    """Make a grid of cells for `number` images; extra cells stay blank."""
    columns = min(COLUMNS, max(number, 1))
    rows = max(1, math.ceil(number / columns))
    width, height = max(4.0, columns * CELL), rows * (CELL + 0.2 * caption_lines) + 0.55
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, x=0.015, y=1 - 0.12 / height, ha="left", va="top", fontsize=13, fontweight="bold")
    figure.subplots_adjust(
        left=0.01, right=0.99, bottom=0.08 / height, top=1 - (0.42 + 0.21 * caption_lines) / height, wspace=0.08
    )
    figure.subplots_adjust(hspace=(0.14 + 0.19 * caption_lines) / CELL)
    cells = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in cells:
        without_axes(axes)
    return figure, cells


def _show(axes: Axes, image: np.ndarray) -> None:
    """Show pixels: those of small images with hard edges, those of large ones smoothed."""
    axes.imshow(image, interpolation="nearest" if max(image.shape[:2]) <= 64 else "antialiased")
