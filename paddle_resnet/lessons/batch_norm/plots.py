"""The figures of the lesson on batch normalisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from paddle_resnet.lessons.common.small_cnn import SmallCnnResult
from paddle_resnet.plots.curves import draw_runs
from paddle_resnet.plots.style import BLUE, GREEN, GREY, ORANGE, RED, label_log_axis

SAMPLES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"))
"""Colour and marker of each sample."""

WITH, WITHOUT = "with BatchNorm", "without"
COLOURS = {WITH: BLUE, WITHOUT: RED}


def draw_features(before: np.ndarray, after: np.ndarray) -> Figure:
    """Draw three samples ``[3, features]`` before and after normalisation, a column per feature."""
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    for axes, values, title in zip(figure.subplots(1, 2), (before, after), ("x", "BatchNorm(x)"), strict=True):
        for index, (sample, (colour, mark)) in enumerate(zip(values, SAMPLES, strict=True)):
            # Shifted, so that samples do not hide each other.
            places = np.arange(len(sample)) + 0.12 * (index - 1)
            axes.plot(places, sample, mark, color=colour, markersize=8, label=f"sample {index}")
        axes.set_xticks(range(values.shape[1]))
        axes.set_xlabel("feature")
        axes.set_title(title, loc="left")
        axes.grid(True, axis="y")
        axes.axhline(0, color=GREY, linewidth=1)
        axes.set_xlim(-0.5, values.shape[1] - 0.5)
    axes.set_ylim(-2, 2)
    figure.axes[0].set_ylabel("value")
    figure.axes[0].legend(loc="upper left")
    return figure


def draw_running_statistics(batches: Sequence[np.ndarray], running: np.ndarray) -> Figure:
    """Draw each batch's mean and variance, and the running statistics ``[steps, 2]``."""
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    steps = np.arange(1, len(batches) + 1)
    measured = np.array([[batch.mean(), batch.var()] for batch in batches])
    for column, (axes, title) in enumerate(zip(figure.subplots(1, 2), ("mean", "variance (biased)"), strict=True)):
        axes.plot(steps, measured[:, column], "o", color=GREY, markersize=4, alpha=0.7, label="of the batch")
        axes.plot(steps, running[:, column], color=BLUE, label="running")
        axes.axhline(
            measured[:, column].mean(), color=ORANGE, linestyle="--", linewidth=1.5, label="mean over the batches"
        )
        axes.set_title(title, loc="left")
        axes.set_xlabel("training step")
        axes.set_ylim(0, 1.4 * measured[:, column].max())  # room for the legend
        axes.grid(True, axis="y")
    figure.axes[0].set_ylabel("value")
    figure.axes[1].legend(loc="upper right")
    return figure


def draw_trainings(
    rates: Sequence[float], runs: Mapping[str, Sequence[Sequence[SmallCnnResult]]], shown: Sequence[float]
) -> Figure:
    """Draw loss curves at the rates `shown`, and below the last epoch's loss over all `rates`.

    `runs` holds, by name and rate, one run per seed.
    """
    figure = Figure(figsize=(9.5, 7.0), layout="constrained")
    grid = figure.add_gridspec(2, len(shown), height_ratios=[1, 1.1])
    panels = [figure.add_subplot(grid[0, column]) for column in range(len(shown))]
    for axes, rate in zip(panels, shown, strict=True):
        for name, by_rate in runs.items():
            curves = [_moving_average(run.losses) for run in by_rate[rates.index(rate)]]
            draw_runs(axes, curves, name, color=COLOURS[name], linewidth=1.4, alpha=0.85)
        axes.set_title(f"learning rate {rate:g}", loc="left")
        axes.set(xlabel="training step", ylim=(0, 3))
        axes.grid(True, axis="y")
    panels[0].set_ylabel("training loss (nats)")
    panels[0].legend(loc="upper right")
    _over_rates(figure.add_subplot(grid[1, :]), rates, runs)
    return figure


def _moving_average(losses: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps, and the mean of the up to 10 losses before each."""
    window = max(1, min(10, len(losses)))
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid") if losses else np.empty(0)
    return np.arange(window, window + len(smooth)), smooth


def _over_rates(axes: Axes, rates: Sequence[float], runs: Mapping[str, Sequence[Sequence[SmallCnnResult]]]) -> None:
    """Draw the last epoch's loss over the learning rate; a cross at the top marks a diverged run."""
    finite = [
        run.last_epoch_loss for by_rate in runs.values() for seeds in by_rate for run in seeds if not run.diverged
    ]
    top = 1.5 * max([*finite, 2.303])
    for (name, by_rate), marker in zip(runs.items(), ("o", "s"), strict=True):
        means = [float(np.mean([run.last_epoch_loss for run in seeds])) for seeds in by_rate]
        shown = [mean if np.isfinite(mean) else np.nan for mean in means]
        axes.plot(rates, shown, color=COLOURS[name], marker=marker, markersize=6, label=name)
        for rate, seeds in zip(rates, by_rate, strict=True):
            broken = sum(run.diverged for run in seeds)
            if broken:
                axes.plot(rate, top, "x", color=COLOURS[name], markersize=9, markeredgewidth=2.5, clip_on=False)
    axes.axhline(np.log(10), color=GREY, linestyle=":", linewidth=1.5)
    axes.text(rates[-1], np.log(10) * 0.93, "ln 10: guessing", color=GREY, ha="right", va="top", fontsize=10)
    axes.set(xscale="log", yscale="log")
    # The common style parses no math text, so the default labels of powers of ten would show their source.
    label_log_axis(axes.xaxis, rates)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(
        ylim=(None, top),
        xlabel="learning rate (cross: a run's loss stopped being a number)",
        ylabel="training loss, last epoch (nats)",
    )
    axes.grid(True, axis="y")
    axes.legend(loc="lower left")
