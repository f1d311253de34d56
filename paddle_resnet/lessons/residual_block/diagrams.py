"""Diagrams of residual blocks, drawn from their summaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from paddle_resnet.models.summary import LayerSummary, ModelSummary
from paddle_resnet.plots.style import BLUE, GREEN, GREY, INK, ORANGE, make_figure, without_axes

ADDITIONS = {"AddReLU": ("ReLU",), "Add": ()}
"""Layers after the addition, by the kind of a block's last layer."""

FILLS = {"conv": BLUE, "BatchNorm": ORANGE, "ReLU": GREEN}
BOX_WIDTH, BOX_HEIGHT, STEP = 2.6, 0.62, 1.0
PLUS_RADIUS = 0.24
ARROW: dict[str, Any] = {"arrowstyle": "-|>", "color": INK, "shrinkA": 0, "shrinkB": 0}


@dataclass(frozen=True)
class Diagram:
    """A block with an identity shortcut: layers of the branch, layers after the addition, lines below the diagram."""

    title: str
    branch: tuple[str, ...]
    after: tuple[str, ...]
    caption: tuple[str, ...]


def diagram_of(title: str, summary: ModelSummary) -> Diagram:
    """Make the diagram of a block from its summary."""
    layers = [row for row in summary.leaves() if row.kind != "Identity"]
    *branch, addition = layers
    channels = summary.output_shape[1]
    return Diagram(
        title=title,
        branch=tuple(map(_label, branch)),
        after=ADDITIONS[addition.kind],
        caption=(
            f"{channels} channels in and out",
            f"{summary.parameters:,} parameters",
            f"{summary.macs / 1e6:.0f} million multiply-adds",
        ),
    )


def _label(row: LayerSummary) -> str:
    if row.kind.startswith("Conv2D"):
        kernel = row.kind.removeprefix("Conv2D ").split(",")[0]
        return f"conv {kernel}, {row.input_shape[1]} -> {row.output_shape[1]}"
    return "BatchNorm" if row.kind.startswith("BatchNorm") else row.kind


def draw_diagrams(diagrams: Sequence[Diagram]) -> Figure:
    """Draw the blocks side by side."""
    rows = max(len(diagram.branch) + len(diagram.after) for diagram in diagrams) + 2
    figure, panels = make_figure(9.5, 0.52 * rows + 1.6, 1, len(diagrams))
    for axes, diagram in zip(panels, diagrams, strict=True):
        _draw(axes, diagram)
        axes.set(xlim=(-2.0, 2.7), ylim=(-STEP * rows - 1.6, 0.7))
        without_axes(axes)
    return figure


def _draw(axes: Axes, diagram: Diagram) -> None:
    """Draw from top to bottom: x, the branch, the addition, the layers after it; the shortcut on the right."""
    axes.set_title(diagram.title, fontsize=12, fontweight="bold")
    axes.text(0, 0.12, "x", ha="center", va="bottom", fontsize=13, style="italic")
    end = _boxes(axes, diagram.branch, -STEP, 0.05)
    plus = -STEP * (len(diagram.branch) + 1)
    _arrow(axes, end, plus + PLUS_RADIUS)
    axes.add_patch(Circle((0, plus), PLUS_RADIUS, facecolor="white", edgecolor=INK, linewidth=1.5, zorder=3))
    axes.text(0, plus - 0.02, "+", ha="center", va="center", fontsize=14, zorder=4)
    style: dict[str, Any] = {**ARROW, "mutation_scale": 13, "linewidth": 2.2}
    axes.add_patch(FancyArrowPatch(path=_shortcut(plus), **style))
    axes.text(1.85, plus / 2, "identity", rotation=270, ha="left", va="center", color=GREY)
    end = _boxes(axes, diagram.after, plus - STEP, plus - PLUS_RADIUS)
    _arrow(axes, end, end - 0.5)
    axes.text(0, end - 0.85, "\n".join(diagram.caption), ha="center", va="top", fontsize=10)


def _boxes(axes: Axes, labels: Sequence[str], y: float, start: float) -> float:
    """Draw boxes from `y` downwards, and an arrow to each, the first from `start`; return the last box's lower edge."""
    for label in labels:
        fill = next((colour for word, colour in FILLS.items() if label.startswith(word)), GREY)
        corner = (-BOX_WIDTH / 2, y - BOX_HEIGHT / 2)
        style: dict[str, Any] = {"facecolor": (*to_rgb(fill), 0.22), "edgecolor": fill, "linewidth": 1.5}
        rounded = "round,pad=0,rounding_size=0.12"
        axes.add_patch(FancyBboxPatch(corner, BOX_WIDTH, BOX_HEIGHT, boxstyle=rounded, **style))
        axes.text(0, y - 0.02, label, ha="center", va="center", fontsize=10)
        _arrow(axes, start, y + BOX_HEIGHT / 2)
        start, y = y - BOX_HEIGHT / 2, y - STEP
    return start


def _arrow(axes: Axes, start: float, end: float) -> None:
    axes.add_patch(FancyArrowPatch((0, start), (0, end), mutation_scale=11, linewidth=1.3, **ARROW))


def _shortcut(plus: float) -> Path:
    """Make the path of the shortcut from x around the branch to the addition."""
    right, top, corner = 1.7, -0.2, 0.45
    start, upper = [(0, top), (right - corner, top)], [(right, top), (right, top - corner)]
    lower, end = [(right, plus + corner), (right, plus), (right - corner, plus)], [(PLUS_RADIUS, plus)]
    codes = [Path.MOVETO, Path.LINETO, Path.CURVE3, Path.CURVE3, Path.LINETO, Path.CURVE3, Path.CURVE3, Path.LINETO]
    return Path(start + upper + lower + end, codes)
