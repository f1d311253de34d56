"""Negative residuals: a target below the input, learnt with and without a ReLU at the branch's end."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import paddle
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter
from paddle import nn

from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.models.blocks import BasicBlock, projection_shortcut
from paddle_resnet.plots.style import BLUE, GREY, INK, RED

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
    page.heading("The residual takes both signs", "残差可正可负")
    page.say(
        f"""Because features come from a ReLU, some texts assume that F(x) >= 0, and that a block can only add. But F(x)
        = H(x) - x must be negative wherever the block should make a value smaller. Here a block of {CHANNELS} channels
        learns H(x) = x / 2 from random x >= 0, so the residual it needs is -x / 2. It does so twice: as it is, with
        BatchNorm as the branch's last layer, and with an additional ReLU at the branch's end.""",
        f"""因为特征都经过 ReLU，有的文章就想当然地认为 F(x) >= 0，以为残差块只能做加法。但凡需要把某个值变小的地方，
        F(x) = H(x) - x 就必须为负。让一个 {CHANNELS} 通道的块从随机的 x >= 0 学习 H(x) = x / 2：所需的残差是 -x / 2。做
        两次：一次用原样的块，分支以 BatchNorm 结尾；一次在分支末尾多加一个 ReLU。""",
    )
    page.values(
        "target = 0.5 * x                          # x = |normal|, so x >= 0 as inside a ResNet",
        "block.bn2 = Sequential(block.bn2, ReLU())   # the second block only",
        f"{steps} steps of Adam, learning rate {RATE:g}, {BATCH} new images per step",
    )
    results = {USUAL: fit_block(steps, rectified=False), RECTIFIED: fit_block(steps, rectified=True)}
    page.table(
        "branch ends in | mean squared error | least possible if F >= 0 | share of F below 0",
        "分支末尾 | 均方误差 | F >= 0 时的下限 | F 为负的比例",
        [
            [name.removeprefix("F ends in "), f"{fit.error:.5f}", f"{fit.floor:.5f}", f"{fit.negative_share:.0%}"]
            for name, fit in results.items()
        ],
    )
    usual, rectified = results[USUAL], results[RECTIFIED]
    page.record(sign_steps=steps, floor=usual.floor)
    for key, fit in (("usual", usual), ("rectified", rectified)):
        page.record(**{f"error_{key}": fit.error, f"negative_share_{key}": fit.negative_share})
        page.record(**{f"least_residual_{key}": fit.residuals.min()})
    page.figure(
        "residual_sign",
        partial(_draw, results),
        """Left: the error during training; the dotted line is the lower bound with F >= 0. Right: the output of the
        branch for each value of x after training; the dashed line is the target.""",
        "左：学习过程中的误差，点线是 F >= 0 时的下限。右：训练之后分支对每个 x 值的回答，虚线是应有的值。",
    )
    page.say(
        f"""With F >= 0 the output is at least x, so the squared error is at least (x / 2)^2 at every value:
        {usual.floor:.4f} on average here. The branch with a ReLU reached {rectified.error:.4f}: the best it can do is
        to add nothing. The usual one reached {usual.error:.5f}, with {usual.negative_share:.0%} of its residuals below
        0. So the ReLU belongs after the addition, or before the branch; at the branch's end it makes the network worse
        (He et al. 2016, section 4.1).""",
        f"""若 F >= 0，输出就不小于 x，于是每个值上的平方误差至少是 (x / 2)^2，这里平均为 {usual.floor:.4f}。带 ReLU 的
        分支得到 {rectified.error:.4f}：它最好的选择就是什么都不做。原样的块得到 {usual.error:.5f}，残差中
        有 {usual.negative_share:.0%} 为负。所以 ReLU 应放在相加之后，或放在分支之前；放在分支末尾会使网络变差（何恺明等
        人 2016，4.1 节）。""",
    )


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
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    error, residual = figure.subplots(1, 2)
    for name, fit in results.items():
        error.plot(range(1, len(fit.errors) + 1), fit.errors, color=COLOURS[name], label=name)
        shown = slice(0, 1500)
        residual.plot(fit.x[shown], fit.residuals[shown], ".", color=COLOURS[name], markersize=4, alpha=0.5, label=name)
    floor = next(iter(results.values())).floor
    error.axhline(floor, color=GREY, linestyle=":", label="least with F >= 0")
    error.set_yscale("log")
    # The common style parses no math text, so the default labels of powers of ten would show their source.
    error.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    error.yaxis.set_minor_formatter(NullFormatter())
    error.set(xlabel="training step", ylabel="mean squared error")
    error.legend(loc="lower left")
    error.grid(True, axis="y")
    ends = np.array([0.0, max(fit.x[:1500].max() for fit in results.values())])
    residual.plot(ends, (TARGET - 1) * ends, color=INK, linestyle="--", linewidth=1.3, label="H(x) - x = -x / 2")
    residual.axhline(0, color=GREY, linewidth=1)
    residual.set(xlabel="x", ylabel="F(x)")
    residual.legend(loc="lower left")
    residual.grid(True, axis="y")
    return figure
