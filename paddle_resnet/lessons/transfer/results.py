"""Accuracy by initialisation and by number of images per class, and its figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paddle_resnet.plots.style import BLUE, GREEN, GREY, ORANGE, label_log_axis
from paddle_resnet.training import SeedStatistics

SCRATCH, TUNED, LAST, PIXELS = "from scratch", "fine-tuned", "last layer alone", "pixels alone"
CHINESE = {SCRATCH: "从头训练", TUNED: "微调", LAST: "只训练最后一层", PIXELS: "只用像素"}
MARKS = {SCRATCH: "o", TUNED: "s", LAST: "^", PIXELS: "D"}
COLOURS = {SCRATCH: ORANGE, TUNED: BLUE, LAST: GREEN, PIXELS: GREY}


@dataclass(frozen=True)
class Results:
    """Top-1 on the new task's test images by initialisation and images per class, one value per seed."""

    top1: dict[str, dict[int, list[float]]]
    pretrained_top1: list[float]

    def statistics(self, start: str, number: int) -> SeedStatistics:
        return SeedStatistics.of(self.top1[start][number])

    def gain(self, start: str, number: int) -> SeedStatistics:
        """Gain over training from scratch, paired by seed."""
        pairs = zip(self.top1[start][number], self.top1[SCRATCH][number], strict=True)
        return SeedStatistics.of([value - scratch for value, scratch in pairs])

    def best(self, number: int) -> str:
        return max(COLOURS, key=lambda start: self.statistics(start, number).mean)


def draw_by_number(results: Results) -> Figure:
    """Draw the top-1 of every initialisation, and the gain of two of them, over the images per class."""
    numbers = list(results.top1[SCRATCH])
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    top1, gain = figure.subplots(1, 2)
    for place, (start, colour) in enumerate(COLOURS.items()):
        # Shifted, so that the error bars do not overlap.
        shifted = [number * 1.05 ** (place - 1.5) for number in numbers]
        style: dict[str, Any] = {"color": colour, "marker": MARKS[start], "markersize": 5, "capsize": 3, "label": start}
        spreads = [results.statistics(start, number) for number in numbers]
        dashed = "--" if start == PIXELS else "-"
        _with_bars(top1, shifted, spreads, [each.std for each in spreads], linestyle=dashed, **style)
        if start in (TUNED, LAST):
            gains = [results.gain(start, number) for number in numbers]
            _with_bars(gain, shifted, gains, [each.ci95 for each in gains], **style)
    gain.axhline(0, color=GREY, linewidth=1)
    top1.set_ylabel("test top-1 (%)")
    gain.set_ylabel("gain over training from scratch (points)")
    for axes in (top1, gain):
        axes.set_xscale("log")
        label_log_axis(axes.xaxis, numbers)
        axes.set_xlabel("training images per class")
        axes.grid(True, axis="y")
    figure.legend(*top1.get_legend_handles_labels(), loc="outside upper center", ncols=len(COLOURS))
    return figure


def _with_bars(
    axes: Axes, x: Sequence[float], spreads: Sequence[SeedStatistics], bars: Sequence[float], **style: Any
) -> None:
    axes.errorbar(x, [100 * each.mean for each in spreads], yerr=[100 * bar for bar in bars], **style)
