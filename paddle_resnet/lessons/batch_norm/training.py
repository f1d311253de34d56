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
from paddle_resnet.lessons.framework.texts import Text
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
    page.heading("training_heading")
    page.say("recipe", data=data, batch_size=BATCH_SIZE, epochs=epochs, seeds=len(SEEDS))
    runs = train_grid(data, NORMALIZATIONS, [(BATCH_SIZE, rate) for rate in RATES], epochs, SEEDS)
    page.table(
        "losses",
        [
            [f"{rate:g}", *(_loss(by_rate[i]) for by_rate in runs.values())]
            + [_top1(by_rate[i]) for by_rate in runs.values()]
            for i, rate in enumerate(RATES)
        ],
    )
    page.figure("learning_rates", partial(draw_trainings, RATES, runs, SHOWN), seeds=len(SEEDS))
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
        "rates_learnt",
        lower=len(lower),
        rates=len(RATES),
        learnt=LEARNT,
        learnt_with=_listed(page, learnt[WITH]),
        learnt_without=_listed(page, learnt[WITHOUT]),
    )


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


def _listed(page: Page, rates: Sequence[float]) -> list[str] | Text:
    return [f"{rate:g}" for rate in rates] or page.text("no_rate")
