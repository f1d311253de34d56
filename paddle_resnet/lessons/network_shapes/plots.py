"""Drawings of a network's shapes: its parts as slabs, what each costs, and sides by depth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from paddle_resnet.lessons.common.network_costs import PartCost
from paddle_resnet.models.summary import Shape
from paddle_resnet.plots.style import BLUE, GREEN, GREY, INK, ORANGE, RED, make_figure, without_axes

SLANT = 0.3  # of a slab's side, along both axes of the page
FACES = ("#CFE3F1", "#E8F2F9", "#9CC4E0")  # front, top, side
GAP = 0.42  # between two slabs, in the drawing's units
MARKERS = ("o", "s", "^", "D")


def draw_route(stops: Sequence[tuple[str, Shape]], title: str) -> Figure:
    """Draw each stop ``(name, [channels, height, width])`` as a slab: the thicker, the more channels.

    Sides and thickness are drawn as square roots, or the last stages would be threads.
    """
    figure, axes = make_figure(9.6, 3.5)
    without_axes(axes)
    axes.set_aspect("equal")
    largest_side = max(shape[1] for _, shape in stops)
    most_channels = max(shape[0] for _, shape in stops)
    left = 0.0
    for name, (channels, side, _) in stops:
        height = 1.5 * math.sqrt(side / largest_side)
        thickness = 0.85 * math.sqrt(channels / most_channels)
        _slab(axes, left, height, thickness)
        middle = left + (thickness + SLANT * height) / 2
        above = height * (1 + SLANT) / 2
        axes.text(middle, above + 0.06, f"{channels}", ha="center", va="bottom", fontsize=11, fontweight="bold")
        axes.text(middle, above + 0.27, f"{side}x{side}", ha="center", va="bottom", fontsize=10, color=BLUE)
        for line, words in enumerate(name.splitlines()):
            axes.text(middle, -1.22 - 0.19 * line, words, ha="center", va="baseline", fontsize=10)
        left += thickness + SLANT * height + GAP
    axes.set(xlim=(-0.2, left - GAP + 0.2), ylim=(-1.5, 1.55))
    axes.set_title(title, loc="left", fontweight="bold")
    return figure


def _slab(axes: Axes, left: float, height: float, thickness: float) -> None:
    """Draw one box in oblique projection, centred on the line y = 0."""
    bottom = -height * (1 + SLANT) / 2
    origin, right, up = np.array([left, bottom]), np.array([thickness, 0.0]), np.array([0.0, height])
    back = np.array([SLANT * height, SLANT * height])
    front = [origin, origin + right, origin + right + up, origin + up]
    lid = [origin + up, origin + right + up, origin + right + up + back, origin + up + back]
    side = [origin + right, origin + right + back, origin + right + up + back, origin + right + up]
    for corners, colour in zip((front, lid, side), FACES, strict=True):
        axes.add_patch(Polygon(corners, closed=True, facecolor=colour, edgecolor=BLUE, linewidth=0.9))


def draw_costs(costs: Sequence[PartCost], title: str) -> Figure:
    """Draw each part's share of the parameters, the multiply-adds and the activations, side by side."""
    figure, panels = make_figure(9.6, 3.7, 1, 3, title=title, sharey=True)
    measures = (
        ("parameters", [cost.parameters for cost in costs], BLUE),
        ("multiply-adds", [cost.macs for cost in costs], ORANGE),
        ("numbers in the outputs", [cost.activations for cost in costs], GREEN),
    )
    for axes, (name, amounts, colour) in zip(panels, measures, strict=True):
        shares = [100 * amount / sum(amounts) for amount in amounts]
        axes.bar([cost.label for cost in costs], shares, color=colour, width=0.7)
        for place, (share, amount) in enumerate(zip(shares, amounts, strict=True)):
            axes.text(place, share + 1.0, format_count(amount), ha="center", fontsize=9, color=INK)
        axes.set_title(f"{name}: {format_count(sum(amounts))}", loc="left", fontsize=11)
        axes.tick_params(axis="x", labelrotation=40, labelsize=10)
    panels[0].set_ylabel("share of the network (%)")
    return figure


def draw_sides(sides: Mapping[str, Sequence[int]], places: Sequence[str], title: str) -> Figure:
    """Draw the side of the maps in pixels after each place of the network, a line for each label of `sides`."""
    figure, axes = make_figure(9.2, 4.2)
    beside: dict[str, Any] = {"xytext": (9, 0), "textcoords": "offset points", "va": "center", "fontweight": "bold"}
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    for (label, values), colour, marker in zip(sides.items(), (BLUE, GREEN, ORANGE, RED), MARKERS, strict=False):
        axes.plot(range(len(values)), values, color=colour, marker=marker, label=label)
        end = (len(values) - 1, values[-1])
        axes.annotate(f"{values[-1]}", end, color=colour, bbox=box, zorder=3, **beside)
    axes.set_yscale("log", base=2)
    ticks = [1, 2, 4, 8, 16, 32, 64, 128, 256]
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.axhline(3, color=GREY, linewidth=1, linestyle="--")
    axes.text(0.0, 2.75, "below: a 3x3 window is larger than the map", fontsize=9, color=GREY, va="top")
    axes.set_xticks(range(len(places)), places)
    axes.set(xlabel="after", ylabel="side (pixels, log scale)")
    axes.legend(loc="upper right")
    axes.set_title(title, loc="left", fontweight="bold")
    return figure


def format_count(number: int) -> str:
    """A count in three digits: ``11.2M``."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
