"""The figures of the lesson on normalisations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from paddle_resnet.lessons.common.small_cnn import Trainings
from paddle_resnet.plots.curves import draw_values_and_mean
from paddle_resnet.plots.style import BLUE, GREEN, GREY, INK, ORANGE, RED, label_log_axis, make_figure, without_axes

COLOURS = {"Batch": BLUE, "Layer": GREEN, "Instance": RED, "Group": ORANGE}
MARKERS = {"Batch": "o", "Layer": "^", "Instance": "v", "Group": "s"}
MARKER_SIZES = {"Batch": 7, "Layer": 14, "Instance": 10, "Group": 5}
"""Three lines coincide, so each marker is larger than the next."""

DEPTH = np.array([0.5, 0.38])
"""Direction of the batch axis in the drawing: right and up."""

SHADES = {"front": 1.0, "top": 1.25, "side": 0.8}
UNMARKED = {"front": "#F4F4F4", "top": "#FFFFFF", "side": "#E6E6E6"}


def draw_blocks(masks: Mapping[str, np.ndarray]) -> Figure:
    """Draw a block of N x C x HW cells for each mask ``[N, C, HW]``, with the batch as depth."""
    figure, panels = make_figure(10, 3.1, 1, len(masks))
    for axes, (name, mask) in zip(panels, masks.items(), strict=True):
        _draw_block(axes, mask)
        axes.set_title(f"{name} norm", fontsize=12)
    return figure


def _draw_block(axes: Axes, mask: np.ndarray) -> None:
    """Draw the visible faces: first image (front), last channel (side), first pixel (top)."""
    images, channels, pixels = mask.shape
    right, up = np.array([1.0, 0.0]), np.array([0.0, 1.0])

    def cell(corner: np.ndarray, one: np.ndarray, other: np.ndarray, marked: bool, face: str) -> None:
        colour = _shaded(BLUE, SHADES[face]) if marked else UNMARKED[face]
        corners = [corner, corner + one, corner + one + other, corner + other]
        axes.add_patch(Polygon(corners, facecolor=colour, edgecolor=INK, linewidth=0.8, joinstyle="round"))

    for channel in range(channels):
        for pixel in range(pixels):
            cell(channel * right + (pixels - 1 - pixel) * up, right, up, mask[0, channel, pixel], "front")
        for image in range(images):
            cell(channel * right + pixels * up + image * DEPTH, right, DEPTH, mask[image, channel, 0], "top")
    for image in range(images):
        for pixel in range(pixels):
            corner = channels * right + (pixels - 1 - pixel) * up + image * DEPTH
            cell(corner, DEPTH, up, mask[image, -1, pixel], "side")

    axes.text(channels / 2, -0.25, "C", ha="center", va="top")
    axes.text(-0.25, pixels / 2, "H, W", ha="center", va="center", rotation=90)
    middle = channels * right + images / 2 * DEPTH
    axes.text(middle[0] + 0.25, middle[1] - 0.2, "N", ha="left", va="top")
    axes.set(
        xlim=(-0.7, channels + images * DEPTH[0] + 0.2), ylim=(-0.9, pixels + images * DEPTH[1] + 0.2), aspect="equal"
    )
    without_axes(axes)


def _shaded(colour: str, factor: float) -> tuple[float, ...]:
    """Darken a colour by a factor below 1, or lighten it by one above 1."""
    channels = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    shaded = channels * factor if factor <= 1 else 1 - (1 - channels) * (2 - factor)
    return tuple(float(value) for value in shaded)


def draw_batch_sensitivity(batch_sizes: Sequence[int], spreads: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the variation of an image's output over the batch size, a line per normalisation."""
    figure, axes = make_figure(9.5, 3.6)
    for name, values in spreads.items():
        size = MARKER_SIZES[name]
        axes.plot(batch_sizes, values, color=COLOURS[name], marker=MARKERS[name], markersize=size, label=f"{name} norm")
    first = spreads["Batch"][0]
    guide = [first * (batch_sizes[0] / size) ** 0.5 for size in batch_sizes]
    axes.plot(batch_sizes, guide, color=GREY, linestyle=":", linewidth=1.5, label="1 / sqrt(N)")
    _batch_axis(axes, batch_sizes)
    axes.set(ylabel="scatter of the output", ylim=(-0.02, None))
    axes.legend(loc="upper right")
    return figure


def draw_trainings(batch_sizes: Sequence[int], runs: Mapping[str, Sequence[Trainings]]) -> Figure:
    """Draw training loss, test loss and test error over the batch size: a dot per run, a line through the means."""
    figure, panels = make_figure(9.5, 3.7, 1, 3)
    measures: dict[str, Callable[[Trainings], np.ndarray]] = {
        "training loss, last epoch (nats)": lambda each: each.last_epoch_losses,
        "test loss (nats)": lambda each: each.test_losses,
        "test error (%)": lambda each: 100 * (1 - each.test_top1),
    }
    for axes, (title, measure) in zip(panels, measures.items(), strict=True):
        for name, by_size in runs.items():
            values = list(map(measure, by_size))
            draw_values_and_mean(axes, batch_sizes, values, f"{name} norm", COLOURS[name], MARKERS[name])
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_ylim(bottom=0)
        _batch_axis(axes, batch_sizes)
    panels[0].legend(loc="upper right")
    return figure


def _batch_axis(axes: Axes, batch_sizes: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    label_log_axis(axes.xaxis, batch_sizes)
    axes.set_xlabel("batch size, N (images)")
