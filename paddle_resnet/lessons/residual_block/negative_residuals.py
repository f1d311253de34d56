"""Negative residuals: a target below the input, learnt with and without a ReLU at the branch's end."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import paddle
from matplotlib.figure import Figure
from paddle import nn

from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.models.blocks import BasicBlock, projection_shortcut
from paddle_resnet.plots.style import BLUE, GREY, INK, RED, make_figure, plain_log_labels

CHANNELS, SIZE, BATCH = 3, 6, 64
STEPS = 600
RATE = 0.01
TARGET = 0.5
"""H(x) = TARGET * x: the residual H(x) - x is -x / 2."""

USUAL, RECTIFIED = "F ends in BatchNorm", "F ends in ReLU"
COLOURS = {USUAL: BLUE, RECTIFIED: RED}


@dataclass(frozen=True)
class FitResult:
    """A block trained to compute H(x) = x / 2.

    Attributes:
        errors: mean squared error of each step's batch.
        error: on new images, in evaluation mode.
        floor: smallest possible error on them of a branch without negative values.
        x: values of the new images, flat.
        residuals: the branch's outputs at the same positions.
    """

    errors: tuple[float, ...]
    error: float
    floor: float
    x: np.ndarray
    residuals: np.ndarray

    @property
    def negative_share(self) -> float:
        return float(np.mean(self.residuals < 0))


def teach(page: Page, effort: Effort) -> None:
    """Train both blocks, and compare the signs of their residuals."""
    steps = effort.epochs(STEPS)
    page.heading("sign_heading")
    page.say("sign_question", channels=CHANNELS)
    page.values(
        "target = 0.5 * x                          # x = |normal|, so x >= 0 as inside a ResNet",
        "block.bn2 = Sequential(block.bn2, ReLU())   # the second block only",
        f"{steps} steps of Adam, learning rate {RATE:g}, {BATCH} new images per step",
    )
    results = {USUAL: fit_block(steps, rectified=False), RECTIFIED: fit_block(steps, rectified=True)}
    page.table(
        "sign_fits",
        [
            [name.removeprefix("F ends in "), f"{fit.error:.5f}", f"{fit.floor:.5f}", f"{fit.negative_share:.0%}"]
            for name, fit in results.items()
        ],
    )
    usual, rectified = results[USUAL], results[RECTIFIED]
    page.record(sign_steps=steps, floor=usual.floor)
    for key, fit in (("usual", usual), ("rectified", rectified)):
        numbers = {"error": fit.error, "negative_share": fit.negative_share, "least_residual": fit.residuals.min()}
        page.record(**{f"{name}_{key}": number for name, number in numbers.items()})
    page.figure("residual_sign", partial(_draw, results))
    page.say("sign_outcome", usual=usual, rectified=rectified)


def fit_block(steps: int, *, rectified: bool) -> FitResult:
    """Train a block to compute H(x) = x / 2, and measure it on new images."""
    paddle.seed(0)
    random = np.random.default_rng(0)
    block = BasicBlock(CHANNELS, CHANNELS, 1, projection_shortcut)
    if rectified:
        block.bn2 = nn.Sequential(block.bn2, nn.ReLU())
    optimizer = paddle.optimizer.Adam(RATE, parameters=block.parameters())
    errors = []
    for _ in range(steps):
        x = _images(random)
        loss = (block(x) - TARGET * x).square().mean()
        errors.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
    block.eval()
    residuals: list[paddle.Tensor] = []
    hook = block.bn2.register_forward_post_hook(lambda _layer, _inputs, output: residuals.append(output))
    x = _images(random)
    with paddle.no_grad():
        error = (block(x) - TARGET * x).square().mean().item()
    hook.remove()
    floor = float(np.mean(((1 - TARGET) * x.numpy().astype(np.float64)) ** 2))
    return FitResult(tuple(errors), error, floor, x.numpy().ravel(), residuals[0].numpy().ravel())


def _images(random: np.random.Generator) -> paddle.Tensor:
    return paddle.to_tensor(np.abs(random.normal(size=(BATCH, CHANNELS, SIZE, SIZE))).astype(np.float32))


def _draw(results: dict[str, FitResult]) -> Figure:
    figure, (error, residual) = make_figure(9.5, 3.8, 1, 2)
    shown = slice(0, 1500)
    for name, fit in results.items():
        error.plot(range(1, len(fit.errors) + 1), fit.errors, color=COLOURS[name], label=name)
        residual.plot(fit.x[shown], fit.residuals[shown], ".", color=COLOURS[name], markersize=4, alpha=0.5, label=name)
    error.axhline(results[USUAL].floor, color=GREY, linestyle=":", label="least with F >= 0")
    error.set_yscale("log")
    plain_log_labels(error.yaxis, subs=(1.0,))
    error.set(xlabel="training step", ylabel="mean squared error")
    ends = np.array([0.0, max(fit.x[shown].max() for fit in results.values())])
    residual.plot(ends, (TARGET - 1) * ends, color=INK, linestyle="--", linewidth=1.3, label="H(x) - x = -x / 2")
    residual.axhline(0, color=GREY, linewidth=1)
    residual.set(xlabel="x", ylabel="F(x)")
    for axes in (error, residual):
        axes.legend(loc="lower left")
        axes.grid(True, axis="y")
    return figure
