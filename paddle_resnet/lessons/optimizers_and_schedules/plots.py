"""The figures of the lesson on optimizers and schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from paddle_resnet.lessons.optimizers_and_schedules.updates import CURVATURES
from paddle_resnet.plots.curves import draw_values_and_mean
from paddle_resnet.plots.style import BLUE, GREEN, GREY, ORANGE, RED, label_log_axis, make_figure
from paddle_resnet.training import SeedStatistics

COLOURS = (BLUE, ORANGE, GREEN, RED)
MARKERS = ("o", "s", "^", "D")


def draw_paths(paths: Mapping[str, np.ndarray]) -> Figure:
    """Draw the paths over the valley's contours, and the loss by step."""
    figure, (plane, losses) = make_figure(10, 3.9, 1, 2)
    x, y = np.meshgrid(np.linspace(-1.1, 0.6, 200), np.linspace(-1.2, 1.2, 200))
    loss = 0.5 * (CURVATURES[0] * x**2 + CURVATURES[1] * y**2)
    plane.contour(x, y, loss, levels=np.geomspace(0.01, 20, 12), colors=GREY, linewidths=0.7)
    for (name, path), colour, marker in zip(paths.items(), COLOURS, MARKERS, strict=False):
        plane.plot(path[:, 0], path[:, 1], color=colour, marker=marker, markersize=4, linewidth=1.4)
        values = 0.5 * (CURVATURES * path**2).sum(1)
        losses.plot(
            np.arange(len(path)), values, color=colour, marker=marker, markersize=4, label=name.replace("_", " ")
        )
    plane.grid(False)
    plane.set(xlabel="w1", ylabel="w2", xlim=(-1.1, 0.6), ylim=(-1.2, 1.2))
    losses.set(xlabel="step", ylabel="loss", yscale="log", xticks=range(0, 21, 5))
    losses.yaxis.set_major_formatter("{x:g}")
    losses.legend(loc="lower left")
    return figure


def draw_schedules(rates: Mapping[str, Sequence[float]]) -> Figure:
    """Draw each schedule's factor of the peak rate over the share of the steps."""
    figure, axes = make_figure(9.5, 3.2)
    for (name, each), colour in zip(rates.items(), COLOURS, strict=True):
        axes.plot(np.linspace(0, 1, len(each)), each, color=colour, label=name)
    axes.set(xlabel="share of all steps", ylabel="learning rate, of its peak", ylim=(-0.02, 1.05))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def draw_optimizers(top1: Mapping[str, Mapping[float, SeedStatistics]]) -> Figure:
    """Draw each optimizer's validation top-1 over the learning rate: a dot a seed, a line through the means."""
    figure, axes = make_figure(9.5, 3.6)
    for (name, by_rate), colour, marker in zip(top1.items(), COLOURS, MARKERS, strict=False):
        rates, percents = list(by_rate), [100 * np.array(each.values) for each in by_rate.values()]
        draw_values_and_mean(axes, rates, percents, name, colour, marker)
    axes.set_xscale("log")
    label_log_axis(axes.xaxis, sorted({rate for by_rate in top1.values() for rate in by_rate}))
    axes.set(xlabel="peak learning rate", ylabel="validation top-1 (%)")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
