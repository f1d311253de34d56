"""Figures about groups: weights as blocks, dependencies between channels, costs, and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from paddle_resnet.lessons.grouped_convolution.costs import BlockCost
from paddle_resnet.plots.style import BLUE, GREEN, INK, ORANGE, RED


def draw_weights(dense: Mapping[int, np.ndarray], title: str) -> Figure:
    """Draw weights ``[out, in, k, k]`` by their number of groups: one square per kernel, coloured by its norm."""
    figure = Figure(figsize=(9.6, 3.1), layout="constrained")
    panels = figure.subplots(1, len(dense), sharey=True)
    largest = max(np.sqrt((weight**2).sum(axis=(2, 3))).max() for weight in dense.values())
    for axes, (groups, weight) in zip(panels, dense.items(), strict=True):
        norms = np.sqrt((weight**2).sum(axis=(2, 3)))
        drawn = axes.imshow(np.where(norms > 0, norms, np.nan), cmap="viridis", vmin=0, vmax=largest)
        _square_panel(axes, len(norms))
        count = f"{groups} group" + ("s" if groups > 1 else "")
        axes.set_title(f"{count}\n{np.count_nonzero(weight):,} weights", fontsize=11)
        axes.set_xlabel("input channel")
    panels[0].set_ylabel("output channel")
    figure.colorbar(drawn, ax=list(panels), shrink=0.85, label="norm of the 3x3 kernel", pad=0.01)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    return figure


def draw_dependencies(matrices: Mapping[str, np.ndarray], title: str) -> Figure:
    """Draw bool matrices ``[out, in]``: dark where the output channel depends on the input channel."""
    figure = Figure(figsize=(9.2, 4.1), layout="constrained")
    panels = figure.subplots(1, len(matrices), sharey=True)
    for axes, (label, matrix) in zip(panels, matrices.items(), strict=True):
        axes.imshow(matrix, cmap=ListedColormap(["#F1F1F1", BLUE]), vmin=0, vmax=1)
        _square_panel(axes, len(matrix))
        axes.set_title(f"{label}\n{matrix.mean():.0%} of the pairs", fontsize=11)
        axes.set_xlabel("input channel")
    panels[0].set_ylabel("output channel")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    return figure


def _square_panel(axes: Axes, channels: int) -> None:
    axes.spines[["top", "right"]].set_visible(True)
    axes.set_xticks([0, channels // 2, channels - 1])
    axes.set_yticks([0, channels // 2, channels - 1])


def draw_cardinality(blocks: Sequence[BlockCost], title: str) -> Figure:
    """Draw each block's weights by convolution, and the channels of its 3x3 convolution."""
    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    weights, widths = figure.subplots(1, 2, width_ratios=[5, 4])
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
    widths.plot(labels, [block.width for block in blocks], color=RED, marker="o")
    for place, block in enumerate(blocks):
        widths.annotate(
            f"{block.width}", (place, block.width), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=10
        )
    widths.set(ylim=(0, 1.2 * max(block.width for block in blocks)), ylabel="channels of the 3x3 convolution")
    widths.set_title("... and the 3x3 convolution gets wider", loc="left")
    widths.grid(True, axis="y")
    for axes in (weights, widths):
        axes.set_xlabel("groups x channels of each")
        axes.tick_params(axis="x", labelrotation=25)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    return figure


def draw_times(groups: Sequence[int], work: Sequence[int], times: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Draw multiply-adds and measured times by number of groups, relative to one group."""
    figure = Figure(figsize=(9.2, 4.4), layout="constrained")
    axes = figure.subplots()
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
    axes.set_yticks(
        [2.0**power for power in powers], [f"{2**power}" if power >= 0 else f"1/{2**-power}" for power in powers]
    )
    axes.minorticks_off()
    axes.set(xlabel="groups (log scale); the last is one for each channel", ylabel="relative to one group (log scale)")
    axes.grid(True)
    axes.legend(loc="lower left")
    axes.set_title(title, loc="left", fontweight="bold")
    return figure
