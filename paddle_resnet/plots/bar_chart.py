"""The plot of a benchmark: panels of horizontal bars, each with the range of its measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from paddle_resnet.plots.style import BLUE, GREEN, GREY, INK, ORANGE, RED, make_figure

COLOURS = {"onednn": BLUE, "onednn-bf16": GREEN, "native": GREY, "torch": ORANGE, "torch-bf16": RED}
COLOURS |= {"paddle fp32": BLUE, "paddle bf16": GREEN, "onnxruntime fp32": GREY, "onnxruntime int8": RED}
PANELS_PER_ROW = 2
WIDTH = 6.5  # inches of a panel


class Bar(NamedTuple):
    """One bar of a `Panel`; `summary` has ``median``, ``smallest`` and ``largest``."""

    label: str  # empty if the bar belongs to the one above; the plot then has a legend of the series
    series: str
    summary: Mapping[str, float]


class Panel(NamedTuple):
    """Bars of one unit."""

    title: str
    unit: str
    bars: Sequence[Bar]


def draw_panels(panels: Sequence[Panel], title: str, caption: str) -> Figure:
    """Draw medians as bars, each with a line from the smallest to the largest measurement."""
    across = min(PANELS_PER_ROW, len(panels))
    down = -(-len(panels) // across)
    bars = max(len(panel.bars) for panel in panels)
    height = down * (1.1 + 0.3 * bars) + 0.8
    figure, axes = make_figure(WIDTH * across, height, down, across, title=title, title_size=13, squeeze=False)
    for panel, place in zip(panels, axes.flat, strict=False):
        _draw(place, panel)
    for place in axes.flat[len(panels) :]:
        place.set_visible(False)
    if not all(bar.label for panel in panels for bar in panel.bars):
        series = list(dict.fromkeys(bar.series for panel in panels for bar in panel.bars))
        handles = [Patch(color=COLOURS.get(name, BLUE)) for name in series]
        figure.legend(handles, series, loc="outside upper right", ncols=len(series))
    figure.supxlabel(caption, x=0.01, ha="left", fontsize=8, color=GREY)
    return figure


def _draw(axes: Axes, panel: Panel) -> None:
    end = max(bar.summary["largest"] for bar in panel.bars) or 1.0
    for number, bar in enumerate(panel.bars):
        median, smallest, largest = (bar.summary[key] for key in ("median", "smallest", "largest"))
        axes.barh(number, median, height=0.65, color=COLOURS.get(bar.series, BLUE))
        axes.plot([smallest, largest], [number, number], color=INK, linewidth=1.2)
        axes.text(largest + 0.02 * end, number, f"{median:.3g}" if median < 100 else f"{median:.0f}", va="center")
    axes.set_yticks(range(len(panel.bars)), [bar.label for bar in panel.bars])
    axes.tick_params(axis="y", length=0, labelsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18 * end)
    axes.set_xlabel(panel.unit)
    axes.set_title(panel.title, loc="left")
    axes.grid(True, axis="x")
    axes.set_axisbelow(True)
