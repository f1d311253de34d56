"""Batch normalisation's effect on training: one small network with it and without, over learning rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import paddle
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from paddle import nn

from paddle_resnet.lessons.common.small_cnn import NormFactory, Trainings, train_grid
from paddle_resnet.lessons.common.training_loop import LessonData
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.framework.texts import Text
from paddle_resnet.models import BatchNorm
from paddle_resnet.models.blocks import convolution
from paddle_resnet.plots.curves import draw_runs
from paddle_resnet.plots.style import BLUE, GREY, RED, label_log_axis

STYLES: dict[str, dict[str, Any]] = {
    "with": {"label": "with BatchNorm", "color": BLUE, "marker": "o"},
    "without": {"label": "without", "color": RED, "marker": "s"},
}
RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SHOWN = (0.01, 0.1, 1.0)
SEEDS = (0, 1)
BATCH_SIZE = 64
EPOCHS, FULL_EPOCHS = 4, 1
SCALED_BY = 10.0
LEARNT = 1.0
"""Loss of the last epoch (nats) below which a training has learnt; guessing among ten classes gives ln 10 = 2.30."""

NORMALIZATIONS: dict[str, NormFactory | None] = {"with": nn.BatchNorm2D, "without": None}


def teach(page: Page, effort: Effort) -> None:
    """Train with and without BatchNorm at each learning rate."""
    data = LessonData.open(effort)
    epochs = effort.epochs(FULL_EPOCHS if effort.full else EPOCHS)
    page.section("recipe", config=data.config, batch_size=BATCH_SIZE, epochs=epochs, seeds=len(SEEDS))
    runs = train_grid(data, NORMALIZATIONS, [(BATCH_SIZE, rate) for rate in RATES], epochs, SEEDS)
    rows = zip(*runs.values(), strict=True)
    loss = partial(_loss, page)
    cells = [[f"{rate:g}", *map(loss, row), *map(_top1, row)] for rate, row in zip(RATES, rows, strict=True)]
    page.table("losses", cells)
    page.figure("learning_rates", partial(draw_trainings, runs), seeds=len(SEEDS))
    _conclude(page, runs)
    _scale_invariance(page)


def _conclude(page: Page, runs: dict[str, list[Trainings]]) -> None:
    losses = {name: np.array([each.mean_loss for each in by_rate]) for name, by_rate in runs.items()}
    learnt = {name: np.array(RATES)[values < LEARNT] for name, values in losses.items()}
    lower = np.array(RATES)[losses["with"] < losses["without"]]
    page.record(rates=RATES, rates_lower_with=lower)
    for name, by_rate in runs.items():
        page.record(**{f"last_epoch_loss_{name}": losses[name], f"rates_learnt_{name}": learnt[name]})
        page.record(**{f"test_top1_{name}": list(map(_top1, by_rate))})
    listed = {name: [f"{rate:g}" for rate in rates] or page.text("no_rate") for name, rates in learnt.items()}
    page.say("rates_learnt", lower=len(lower), rates=len(RATES), learnt=LEARNT, listed=listed)


def _scale_invariance(page: Page) -> None:
    """Scale a convolution's weights and compare output and gradient behind BatchNorm."""
    page.heading("scale_invariance_heading")
    random = np.random.default_rng(0)
    x, slope = (paddle.to_tensor(random.normal(size=(8, 4, 6, 6)).astype(np.float32)) for _ in range(2))
    paddle.seed(0)
    # An epsilon this small leaves the output unchanged up to rounding.
    layers = nn.Sequential(convolution(4, 4, 3), BatchNorm(4, epsilon=1e-12))
    weight = layers[0].weight
    outputs, gradients = [], []
    for factor in (1.0, SCALED_BY):
        weight.set_value(weight * factor)
        output = layers(x)
        (output * slope).sum().backward()
        outputs.append(output.numpy())
        gradients.append(weight.grad.numpy().copy())
        layers.clear_gradients()
    difference = float(np.abs(outputs[1] - outputs[0]).max())
    ratio = float(np.linalg.norm(gradients[1]) / np.linalg.norm(gradients[0]))
    page.record(scaled_weights_output_difference=difference, scaled_weights_gradient_ratio=ratio)
    page.values(
        f"weights of a convolution before BatchNorm, times {SCALED_BY:g}:",
        f"  output:   differs by at most {difference:.1e}",
        f"  gradient: its norm is {ratio:.4f} of what it was",
    )
    page.say("scale_invariance")


def _loss(page: Page, trainings: Trainings) -> str | Text:
    """The mean over the seeds, and the smallest and the largest; how many diverged, if any did."""
    losses = trainings.last_epoch_losses
    if trainings.diverged:
        return page.text("diverged", diverged=trainings.diverged, seeds=len(losses))
    return f"{trainings.mean_loss:.3f} ({min(losses):.3f} – {max(losses):.3f})"


def _top1(trainings: Trainings) -> str:
    return "-" if trainings.diverged else f"{100 * np.mean(trainings.test_top1):.1f}%"


def draw_trainings(runs: Mapping[str, Sequence[Trainings]]) -> Figure:
    """Draw loss curves at the rates `SHOWN`, and below the last epoch's loss over all `RATES`."""
    figure = Figure(figsize=(9.5, 7.0), layout="constrained")
    grid = figure.add_gridspec(2, len(SHOWN), height_ratios=[1, 1.1])
    panels = [figure.add_subplot(grid[0, column]) for column in range(len(SHOWN))]
    for axes, rate in zip(panels, SHOWN, strict=True):
        for name, by_rate in runs.items():
            curves = [_moving_average(losses) for losses in by_rate[RATES.index(rate)].losses]
            style = STYLES[name]
            draw_runs(axes, curves, style["label"], color=style["color"], linewidth=1.4, alpha=0.85)
        axes.set_title(f"learning rate {rate:g}", loc="left")
        axes.set(xlabel="training step", ylim=(0, 3))
    panels[0].set_ylabel("training loss (nats)")
    panels[0].legend(loc="upper right")
    _draw_over_rates(figure.add_subplot(grid[1, :]), runs)
    return figure


def _moving_average(losses: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps, and the mean of the up to 10 losses before each."""
    window = max(1, min(10, len(losses)))
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid") if losses else np.empty(0)
    return np.arange(window, window + len(smooth)), smooth


def _draw_over_rates(axes: Axes, runs: Mapping[str, Sequence[Trainings]]) -> None:
    """Draw the last epoch's loss over the learning rate; a cross at the top marks a diverged run."""
    losses = np.array([each.last_epoch_losses for by_rate in runs.values() for each in by_rate])
    top = 1.5 * max([*losses[np.isfinite(losses)], 2.303])
    for name, by_rate in runs.items():
        means = [each.mean_loss if np.isfinite(each.mean_loss) else np.nan for each in by_rate]
        axes.plot(RATES, means, markersize=6, **STYLES[name])
        for rate, each in zip(RATES, by_rate, strict=True):
            if each.diverged:
                colour = STYLES[name]["color"]
                axes.plot(rate, top, "x", color=colour, markersize=9, markeredgewidth=2.5, clip_on=False)
    axes.axhline(np.log(10), color=GREY, linestyle=":", linewidth=1.5)
    axes.text(RATES[-1], np.log(10) * 0.93, "ln 10: guessing", color=GREY, ha="right", va="top", fontsize=10)
    axes.set(xscale="log", yscale="log")
    # The common style parses no math text, so the default labels of powers of ten would show their source.
    label_log_axis(axes.xaxis, RATES)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(
        ylim=(None, top),
        xlabel="learning rate (cross: a run's loss stopped being a number)",
        ylabel="training loss, last epoch (nats)",
    )
    axes.legend(loc="lower left")
