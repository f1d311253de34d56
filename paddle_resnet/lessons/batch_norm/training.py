"""Batch normalisation's effect on training: one small network with it and without, over learning rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import paddle
from paddle import nn

from paddle_resnet.lessons.batch_norm.plots import WITH, WITHOUT, draw_trainings
from paddle_resnet.lessons.common.small_cnn import (
    LessonData,
    NormFactory,
    SmallCnnResult,
    mean_last_epoch_loss,
    train_grid,
)
from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.models import BatchNorm
from paddle_resnet.models.blocks import convolution

RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SHOWN = (0.01, 0.1, 1.0)
SEEDS = (0, 1)
BATCH_SIZE = 64
EPOCHS, FULL_EPOCHS = 4, 1
SCALED_BY = 10.0
LEARNT = 1.0
"""Loss of the last epoch (nats) below which a training has learnt; guessing among ten classes gives ln 10 = 2.30."""

NORMALIZATIONS: dict[str, NormFactory | None] = {WITH: nn.BatchNorm2D, WITHOUT: None}


def teach(page: Page, effort: Effort) -> None:
    """Train with and without BatchNorm at each learning rate."""
    data = LessonData.open(effort)
    epochs = effort.epochs(FULL_EPOCHS if effort.full else EPOCHS)
    page.heading("Its effect on training", "它对训练的作用")
    page.say(
        f"""Six 3x3 convolutions, each with ReLU, and a linear layer: once with BatchNorm after each convolution, once
        with biases instead. Initial weights, order of the images and everything else are the same. Training is plain
        SGD on {data.source}, batches of {BATCH_SIZE}, {epochs} epochs, {len(SEEDS)} seeds, no schedule. Only the
        learning rate varies.""",
        f"""六个 3×3 卷积，每个后接 ReLU，最后一个线性层；一种在每个卷积后加 BatchNorm，另一种改为给卷积加偏置。初始权
        重、图像顺序和其他一切都相同：在 {data.source} 上做普通随机梯度下降，批大小 {BATCH_SIZE}，{epochs} 轮，
        {len(SEEDS)} 个随机种子，学习率不衰减。只有学习率不同。""",
    )
    runs = train_grid(data, NORMALIZATIONS, [(BATCH_SIZE, rate) for rate in RATES], epochs, SEEDS)
    page.table(
        f"learning rate | loss, {WITH} | loss, {WITHOUT} | test top-1, {WITH} | test top-1, {WITHOUT}",
        "学习率 | 损失，有 BatchNorm | 损失，没有 | 测试准确率，有 BatchNorm | 测试准确率，没有",
        [
            [f"{rate:g}", *(_loss(by_rate[i]) for by_rate in runs.values())]
            + [_top1(by_rate[i]) for by_rate in runs.values()]
            for i, rate in enumerate(RATES)
        ],
    )
    page.figure(
        "learning_rates",
        partial(draw_trainings, RATES, runs, SHOWN),
        f"""Above: training loss at three learning rates, one line per seed, means of 10 steps. Below: mean loss of the
        last epoch's steps by learning rate, mean of {len(SEEDS)} seeds.""",
        f"""上：三种学习率下的训练损失，每条线一个种子，取 10 步平均。下：最后一轮的平均训练损失随学习率的变化，
        {len(SEEDS)} 个种子的均值。""",
    )
    _conclude(page, runs)
    _scale_invariance(page)


def _conclude(page: Page, runs: dict[str, list[list[SmallCnnResult]]]) -> None:
    losses = {name: [mean_last_epoch_loss(seeds) for seeds in by_rate] for name, by_rate in runs.items()}
    learnt = {
        name: [rate for rate, loss in zip(RATES, by_rate, strict=True) if loss < LEARNT]
        for name, by_rate in losses.items()
    }
    lower = [rate for rate, a, b in zip(RATES, losses[WITH], losses[WITHOUT], strict=True) if a < b]
    page.record(
        rates=RATES,
        last_epoch_loss_with=losses[WITH],
        last_epoch_loss_without=[loss if math.isfinite(loss) else "diverged" for loss in losses[WITHOUT]],
        test_top1_with=[_top1(seeds) for seeds in runs[WITH]],
        test_top1_without=[_top1(seeds) for seeds in runs[WITHOUT]],
        rates_learnt_with=learnt[WITH],
        rates_learnt_without=learnt[WITHOUT],
        rates_lower_with=lower,
    )
    page.say(
        f"""The last epoch's mean loss was lower with BatchNorm at {len(lower)} of {len(RATES)} rates. The loss fell
        below {LEARNT:g} nats with BatchNorm at {_listed(learnt[WITH])}, and without it at {_listed(learnt[WITHOUT])}
        (mean of the seeds; guessing is 2.30).""",
        f"""在 {len(RATES)} 种学习率中，有 {len(lower)} 种是有 BatchNorm 的网络最后一轮的平均损失更低。损失降
        到 {LEARNT:g} 以下的学习率，有 BatchNorm 时是：{_listed(learnt[WITH], zh=True)}；没有时是：
        {_listed(learnt[WITHOUT], zh=True)}（取各种子的均值；随机猜测是 2.30）。""",
    )


def _scale_invariance(page: Page) -> None:
    """Scale a convolution's weights and compare output and gradient behind BatchNorm."""
    page.heading("One reason that can be computed", "一个算得出来的原因")
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
    page.say(
        """If a convolution's weights are scaled by a, BatchNorm divides by a again: the output stays, and the gradient
        by the weights becomes 1/a of what it was (section 3.3). So a step that is too long leaves larger weights, and
        later steps are smaller in relation to them. Whether this explains the benefit is disputed. The paper's own
        explanation is "internal covariate shift". Santurkar et al. (2018, https://arxiv.org/abs/1805.11604) did not
        find it, and point to a smoother loss. This lesson measures the effect here, and does not settle its cause.""",
        """把卷积的权重乘以 a，BatchNorm 又会把 a 除掉：输出不变，而对权重的梯度变成原来的 1/a（论文 3.3 节）。所以步长
        过大会使权重变大，而权重越大，后面的步长就越小。这是不是它有效的真正原因则是另一回事，至今仍有争议：论文自己的解
        释是“内部协变量偏移”，但 Santurkar 等人的实验并不支持（2018，https://arxiv.org/abs/1805.11604 ），他们认为关键在
        于损失曲面更平滑。本课只测量它在这里起了什么作用，并不裁定为什么。""",
    )


def _loss(seeds: Sequence[SmallCnnResult]) -> str:
    """The mean over the seeds, and the smallest and the largest."""
    losses = [run.last_epoch_loss for run in seeds]
    broken = sum(run.diverged for run in seeds)
    if broken:
        return f"NaN ({broken}/{len(seeds)})"
    return f"{np.mean(losses):.3f} ({min(losses):.3f} – {max(losses):.3f})"


def _top1(seeds: Sequence[SmallCnnResult]) -> str:
    measured = [run.top1 for run in seeds if not run.diverged]
    return f"{100 * np.mean(measured):.1f}%" if len(measured) == len(seeds) else "-"


def _listed(rates: Sequence[float], zh: bool = False) -> str:
    if not rates:
        return "无" if zh else "none of the rates"
    return ("、" if zh else ", ").join(f"{rate:g}" for rate in rates)
