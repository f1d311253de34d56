"""Grids of images: samples of a split, the most confident mistakes, and the most confused classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from paddle_resnet.plots.style import RED, make_figure, percent, shortened, without_axes
from paddle_resnet.results import ConfusedPair, Evaluation

COLUMNS = 8
LONGEST_NAME = 15
CELL, GAP = 1.45, 0.1  # inches an image, and between two


def draw_samples(images: np.ndarray, labels: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Draw uint8 images `[n, H, W, 3]`, each below the name of its class."""
    grid = _Grid(len(images), title, caption_lines=1)
    for position, (image, label) in enumerate(zip(images, labels, strict=True)):
        grid.show(position, image)
        grid.caption(position, 0.05, shortened(classes[label], LONGEST_NAME), fontsize=10)
    return grid.figure


def draw_mistakes(images: np.ndarray, chosen: np.ndarray, evaluation: Evaluation, title: str) -> Figure:
    """Draw wrongly classified images, each below its prediction with the probability, and its true class.

    The images, uint8 `[n, H, W, 3]`, are those at the positions `chosen` of the evaluated split.
    """
    if len(chosen) == 0:
        return _no_mistakes(evaluation, title)
    grid = _Grid(len(images), title, caption_lines=2)
    predicted = evaluation.predicted
    for position, (image, index) in enumerate(zip(images, chosen, strict=True)):
        grid.show(position, image)
        wrong, truth = evaluation.classes[predicted[index]], evaluation.classes[evaluation.labels[index]]
        probability = percent(float(evaluation.scores[index, predicted[index]]))
        words = f"{shortened(wrong, 11)} {probability}"
        grid.caption(position, 0.23, words, fontsize=9, color=RED, fontweight="bold")
        grid.caption(position, 0.05, f"is {shortened(truth, LONGEST_NAME)}", fontsize=9)
    return grid.figure


def draw_confused_pairs(
    examples: Sequence[np.ndarray], pairs: Sequence[ConfusedPair], evaluation: Evaluation, title: str
) -> Figure:
    """Draw a row of example images, uint8 `[<= 8, H, W, 3]`, for each pair of a true and a predicted class."""
    if not pairs:
        return _no_mistakes(evaluation, title)
    columns = max(map(len, examples))
    grid = _Grid(len(pairs) * columns, title, caption_lines=1, columns=columns)
    for row, (images, pair) in enumerate(zip(examples, pairs, strict=True)):
        for column, image in enumerate(images):
            grid.show(row * columns + column, image)
        true, predicted = (shortened(evaluation.classes[label], 30) for label in pair[:2])
        share = percent(pair.images / pair.support)
        words = f"{true} taken for {predicted}: {pair.images:,} of {pair.support:,} ({share})"
        grid.caption(row * columns, 0.05, words, ha="left", fontsize=10)
    return grid.figure


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
            axes.imshow(image, interpolation=_interpolation(image))
            without_axes(axes)
    rows[0][0].set_title("before", fontsize=10)
    return figure


class _Grid:
    """Cells for images, in rows; lengths are inches from the figure's upper left corner.

    All are in one `Axes`: one for each image would take most of the time of drawing.
    """

    def __init__(self, number: int, title: str, caption_lines: int, columns: int = COLUMNS) -> None:
        self.columns = min(columns, max(number, 1))
        rows = max(1, math.ceil(number / self.columns))
        self.row = CELL + 0.2 * caption_lines
        width, height = max(4.0, self.columns * CELL), rows * self.row + 0.55
        self.column = 0.98 * CELL
        self.first = 0.01 * width, 0.42 + 0.21 * caption_lines
        self.figure = Figure(figsize=(width, height))
        self.figure.suptitle(title, x=0.015, y=1 - 0.12 / height, ha="left", va="top", fontsize=13, fontweight="bold")
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(height, 0))
        self.axes.set_axis_off()

    def corner(self, position: int) -> tuple[float, float]:
        """Return where the cell begins."""
        row, column = divmod(position, self.columns)
        return self.first[0] + column * self.column, self.first[1] + row * self.row

    def show(self, position: int, image: np.ndarray) -> None:
        """Show uint8 pixels `[H, W, 3]` as large as fits: those of small images with hard edges."""
        height, width = image.shape[:2]
        most_width, most_height = self.column - GAP, CELL - GAP
        scale = min(most_width / width, most_height / height)
        left, top = self.corner(position)
        left += (most_width - scale * width) / 2
        extent = (left, left + scale * width, top + scale * height, top)
        self.axes.imshow(image, interpolation=_interpolation(image), extent=extent, aspect="auto")

    def caption(self, position: int, above: float, words: str, ha: str = "center", **style: Any) -> None:
        """Write a line whose baseline is `above` the cell."""
        left, top = self.corner(position)
        self.axes.text(left if ha == "left" else left + (self.column - GAP) / 2, top - above, words, ha=ha, **style)


def _interpolation(image: np.ndarray) -> str:
    """Pixels of small images have hard edges, those of large ones are smoothed."""
    return "nearest" if max(image.shape[:2]) <= 64 else "antialiased"
