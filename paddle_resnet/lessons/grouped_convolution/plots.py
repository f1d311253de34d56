"""Figures about groups: weights as blocks, dependencies between channels, costs, and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from paddle_resnet.lessons.grouped_convolution.costs import BlockCost
from paddle_resnet.plots.style import BLUE, GREEN, INK, ORANGE, RED, make_figure


def draw_weights(dense: Mapping[int, np.ndarray], title: str) -> Figure:
    """Draw weights ``[out, in, k, k]`` by their number of groups: one square per kernel, coloured by its norm."""
    matrices = {}
    for groups, weight in dense.items():
        norms = np.sqrt((weight**2).sum(axis=(2, 3)))
        label = f"{groups} group{'s' * (groups > 1)}\n{np.count_nonzero(weight):,} weights"
        matrices[label] = np.where(norms > 0, norms, np.nan)
    largest = max(map(np.nanmax, matrices.values()))
    figure, panels = _draw_matrices(matrices, 9.6, 3.1, title, cmap="viridis", vmax=largest)
    figure.colorbar(panels[-1].images[0], ax=list(panels), shrink=0.85, label="norm of the 3x3 kernel", pad=0.01)
    return figure


def draw_dependencies(matrices: Mapping[str, np.ndarray], title: str) -> Figure:
    """Draw bool matrices ``[out, in]``: dark where the output channel depends on the input channel."""
    named = {f"{label}\n{matrix.mean():.0%} of the pairs": matrix for label, matrix in matrices.items()}
    figure, _ = _draw_matrices(named, 9.2, 4.1, title, cmap=ListedColormap(["#F1F1F1", BLUE]), vmax=1)
    return figure


def _draw_matrices(
    matrices: Mapping[str, np.ndarray], width: float, height: float, title: str, **style: Any
) -> tuple[Figure, Sequence[Axes]]:
    """Draw matrices ``[out, in]`` side by side."""
    figure, panels = make_figure(width, height, 1, len(matrices), title=title, sharey=True)
    for axes, (label, matrix) in zip(panels, matrices.items(), strict=True):
        axes.imshow(matrix, vmin=0, **style)
        axes.spines[["top", "right"]].set_visible(True)
        channels = [0, len(matrix) // 2, len(matrix) - 1]
        axes.set(xticks=channels, yticks=channels, xlabel="input channel")
        axes.set_title(label, fontsize=11)
    panels[0].set_ylabel("output channel")
    return figure, panels


def draw_cardinality(blocks: Sequence[BlockCost], title: str) -> Figure:
    """Draw each block's weights by convolution, and the channels of its 3x3 convolution."""
    figure, (weights, widths) = make_figure(9.6, 4.0, 1, 2, title=title, width_ratios=[5, 4])
    labels = [block.label for block in blocks]
    layers = (
        ("1x1, 256 to width", [block.reduce for block in blocks], BLUE),
        ("3x3, grouped", [block.grouped for block in blocks], ORANGE),
        ("1x1, width to 256", [block.expand for block in blocks], GREEN),
    )
    bottom = np.zeros(len(blocks))
    for name, amounts, colour in layers:
        thousands = np.array(amounts) / 1000
        weights.bar(labels, thousands, bottom=bottom, color=colour, width=0.7, label=name)
        bottom += thousands
    weights.set(ylabel="weights of the block (thousands)", ylim=(0, 1.42 * bottom.max()))
    weights.legend(loc="upper left", fontsize=10)
    weights.set_title("the cost stays ...", loc="left")
    channels = [block.width for block in blocks]
    widths.plot(labels, channels, color=RED, marker="o")
    above: dict[str, Any] = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center", "fontsize": 10}
    for point in enumerate(channels):
        widths.annotate(f"{point[1]}", point, **above)
    widths.set(ylim=(0, 1.2 * max(channels)), ylabel="channels of the 3x3 convolution")
    widths.set_title("... and the 3x3 convolution gets wider", loc="left")
    widths.grid(True, axis="y")
    for axes in (weights, widths):
        axes.set_xlabel("groups x channels of each")
        axes.tick_params(axis="x", labelrotation=25)
    return figure


def draw_times(groups: Sequence[int], work: Sequence[int], times: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Draw multiply-adds and measured times by number of groups, relative to one group."""
    figure, axes = make_figure(9.2, 4.4)
    axes.plot(groups, [amount / work[0] for amount in work], color=INK, linestyle="--", label="multiply-adds (counted)")
    for (backend, seconds), colour, marker in zip(times.items(), (BLUE, ORANGE), ("o", "s"), strict=False):
        relative = [value / seconds[0] for value in seconds]
        axes.plot(groups, relative, color=colour, marker=marker, label=f"time, {backend} (measured)")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(list(groups), [str(number) for number in groups])
    low = int(np.floor(np.log2(work[-1] / work[0])))
    high = int(np.ceil(np.log2(max(1.0, *(max(seconds) / seconds[0] for seconds in times.values())))))
    powers = range(low, high + 1)
    labels = [f"{2**power}" if power >= 0 else f"1/{2**-power}" for power in powers]
    axes.set_yticks([2.0**power for power in powers], labels)
    axes.minorticks_off()
    axes.set(xlabel="groups (log scale); the last is one for each channel", ylabel="relative to one group (log scale)")
    axes.grid(True)
    axes.legend(loc="lower left")
    axes.set_title(title, loc="left", fontweight="bold")
    return figure
