"""Figures of the inside of a network: filters and responses, feature maps, embeddings, heatmaps over images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paddle_resnet.plots.style import GREY, make_figure, shortened, without_axes

# Okabe and Ito's eight, and two more; each class is named on the page too.
CLASS_COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"),
    *("#56B4E9", "#222222", "#B8A800", "#909090", "#8C510A"),
)
HEAT = "inferno"


def draw_filters(filters: np.ndarray, responses: np.ndarray, title: str) -> Figure:
    """Draw filters with their responses to one image ``[n, H, W]`` below, in two bands.

    Filters are signed ``[n, k, k]``, or colours ``[n, k, k, 3]`` in 0..1; responses are signed.
    """
    columns = (len(filters) + 1) // 2
    figure, cells = _cells(9.6, 5.2, 4, columns, title=title)
    largest = np.abs(filters).max()
    for index, (kernel, response) in enumerate(zip(filters, responses, strict=True)):
        row, column = 2 * (index // columns), index % columns
        signed = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest} if kernel.ndim == 2 else {}
        drawn = cells[row, column].imshow(kernel, interpolation="nearest", **signed)
        reach = np.abs(response).max() or 1.0
        cells[row + 1, column].imshow(response, cmap="RdBu_r", vmin=-reach, vmax=reach, interpolation="nearest")
    if filters.ndim == 3:
        figure.colorbar(drawn, ax=cells[:, -1].tolist(), shrink=0.7, label="weight")
    for row, name in enumerate(("filter", "response", "filter", "response")):
        _name_row(cells[row, 0], name)
    return figure


def draw_maps(image: np.ndarray, maps: Mapping[str, np.ndarray], columns: int, title: str) -> Figure:
    """Draw an image, and for each entry of `maps` the channels of the largest mean, of ``[channels, H, W]``.

    Each map has its own scale, from black (0) to its largest value.
    """
    widths = [1.25, *columns * [1.0]]
    figure, cells = _cells(9.6, 1.12 * len(maps) + 0.5, len(maps), columns + 1, title=title, width_ratios=widths)
    cells[0, 0].imshow(image, interpolation="nearest")
    for row, (name, channels) in enumerate(maps.items()):
        first = cells[row, 1]
        _name_row(first, f"{name}\n{len(channels)} x {channels.shape[1]}x{channels.shape[2]}")
        strongest = np.argsort(-channels.mean(axis=(1, 2)), kind="stable")[:columns]
        for axes, channel in zip(cells[row, 1:], strongest, strict=False):
            axes.imshow(channels[channel], cmap=HEAT, vmin=0, interpolation="nearest")
    return figure


def draw_points(panels: Mapping[str, np.ndarray], labels: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Draw points ``[N, 2]`` in the colours of their classes, with the class names at the medians."""
    figure, cells = make_figure(9.4, 8.6, 2, 2, title=title)
    centred: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 11, "fontweight": "bold"}
    box = {"facecolor": "white", "edgecolor": GREY, "linewidth": 0.5, "alpha": 0.85, "boxstyle": "round,pad=0.15"}
    for axes, (name, points) in zip(cells.flat, panels.items(), strict=True):
        for label, class_name in enumerate(classes):
            own, colour = points[labels == label], CLASS_COLOURS[label % len(CLASS_COLOURS)]
            axes.scatter(*own.T, s=9, color=colour, alpha=0.75, linewidths=0)
            axes.text(*np.median(own, axis=0), shortened(class_name, 12), color=colour, bbox=box, **centred)
        axes.set(xticks=[], yticks=[])
        axes.set_title(name, loc="left")
    return figure


def draw_heatmaps(
    images: np.ndarray, captions: Sequence[str], rows: Mapping[str, tuple[np.ndarray, Sequence[str]]], title: str
) -> Figure:
    """Draw images uint8 ``[n, S, S, 3]`` under their captions, and below each the maps of `rows` as heat over it.

    A row has maps ``[n, S, S]``, each of which is scaled by its own largest value, and n labels.
    """
    figure, cells = _cells(9.6, 1.45 * (1 + len(rows)) + 0.9, 1 + len(rows), len(images), title=title)
    for axes, image, caption in zip(cells[0], images, captions, strict=True):
        axes.imshow(image, interpolation="nearest")
        axes.set_title(caption, fontsize=10)
    _name_row(cells[0, 0], "image")
    for row, (name, (maps, labels)) in zip(cells[1:], rows.items(), strict=True):
        _name_row(row[0], name)
        for axes, image, heat, label in zip(row, images, maps, labels, strict=True):
            axes.imshow(image.mean(axis=-1), cmap="gray", interpolation="nearest")
            axes.imshow(heat, cmap=HEAT, alpha=0.65, vmin=0, vmax=heat.max() or 1.0, interpolation="bilinear")
            axes.set_title(label, fontsize=10, pad=3)
    return figure


def _cells(width: float, height: float, rows: int, columns: int, **options: Any) -> tuple[Figure, np.ndarray]:
    """Make a grid of blank panels ``[rows, columns]``."""
    figure, cells = make_figure(width, height, rows, columns, squeeze=False, **options)
    for axes in cells.flat:
        without_axes(axes)
    return figure, cells


def _name_row(axes: Axes, name: str) -> None:
    axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10, labelpad=6)
