"""The running statistics of batch normalisation: in training, in evaluation, and for a batch of one."""

from __future__ import annotations

from functools import partial

import numpy as np
import paddle
from matplotlib.figure import Figure
from paddle import nn

from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.models.batch_norm import BatchNorm, batch_statistics
from paddle_resnet.plots.style import BLUE, GREY, ORANGE, make_figure

# Three samples of five features with different means and scales.
FEATURES = np.array(
    [[1.0, 10.0, -3.0, 0.2, 50.0], [2.0, 14.0, -1.0, 0.8, 20.0], [6.0, 12.0, -8.0, 0.5, 80.0]], np.float32
)
# Three images of three channels, 1 x 2 pixels.
IMAGES = np.array(
    [
        [[[1.0, 3.0]], [[10.0, 14.0]], [[-2.0, 2.0]]],
        [[[2.0, 6.0]], [[11.0, 19.0]], [[-1.0, 4.0]]],
        [[[4.0, 8.0]], [[12.0, 18.0]], [[0.0, 9.0]]],
    ],
    np.float32,
)
EPSILON = 1e-5
"""Paddle's default."""


def largest(values: np.ndarray | paddle.Tensor) -> float:
    """Return the largest absolute value."""
    return float(np.abs(np.asarray(values)).max())


MOMENTUM = 0.9
NEW = (0.0, 1.0, 1.0)
"""Running mean and variance (twice: biased, unbiased) of a new layer."""


def teach(page: Page) -> None:
    """Follow the running statistics, evaluate with them, and pass a batch of one."""
    _running_statistics(page)
    _evaluation(page)
    _one_value(page)


def _running_statistics(page: Page) -> None:
    page.section("kept_for_evaluation")
    page.values(f"running = momentum * running + (1 - momentum) * batch        # momentum = {MOMENTUM}")
    batches = np.random.default_rng(0).normal(5.0, 3.0, (60, 8, 1)).astype(np.float32)
    # Columns: mean, biased variance, unbiased variance.
    measured = np.stack(
        [batches.mean((1, 2), np.float64), *(batches.var((1, 2), np.float64, ddof=ddof) for ddof in (0, 1))], axis=1
    )
    layer = nn.BatchNorm1D(1)
    in_layer, formula = [], [np.array(NEW)]
    for batch, new in zip(batches, measured, strict=True):
        layer(paddle.to_tensor(batch))
        in_layer.append((layer._mean.item(), layer._variance.item()))
        formula.append(MOMENTUM * formula[-1] + (1 - MOMENTUM) * new)
    running, by_formula = np.array(in_layer), np.array(formula[1:])
    means = measured[:, 0], running[:, 0], by_formula[:, 0]
    rows = np.stack([*means, measured[:, 1], running[:, 1], by_formula[:, 1], by_formula[:, 2]], axis=1)[:4]
    page.table("steps", [[step, *(f"{value:.4f}" for value in row)] for step, row in enumerate(rows, start=1)])
    page.record(
        running_error=largest(running - by_formula[:, :2]),
        running_variance_from_unbiased=largest(running[-1, 1] - by_formula[-1, 2]),
        running_first_mean=running[0, 0],
        batch_first_mean=measured[0, 0],
        running_last=running[-1],
    )
    page.figure("running_statistics", partial(draw_running_statistics, measured[:, :2], running))
    # The conventions of PyTorch, and its momentum in Paddle.
    swapped = nn.BatchNorm1D(1, momentum=0.1)
    swapped(paddle.to_tensor(batches[0]))
    page.record(swapped_first_mean=swapped._mean.item())
    page.table(
        "conventions",
        [
            ["running =", "momentum * running + (1 - momentum) * batch", "(1 - momentum) * running + momentum * batch"],
            ["momentum", "0.9", "0.1"],
            [page.text("variance"), "sum / m", "sum / (m - 1)"],
        ],
    )
    page.say("two_conventions", swapped=swapped._mean.item(), paddle=0.1 * measured[0, 0])


def _evaluation(page: Page) -> None:
    page.heading("evaluation_heading")
    layer = nn.BatchNorm1D(FEATURES.shape[1])
    x = paddle.to_tensor(FEATURES)
    layer.eval()
    while_new = layer(x).numpy()
    layer.train()
    layer(x)
    layer.eval()
    after_a_step = layer(x).numpy()
    alone = layer(x[:1]).numpy()
    mean, variance = (1 - MOMENTUM) * FEATURES.mean(0), MOMENTUM + (1 - MOMENTUM) * FEATURES.var(0)
    by_formula = (FEATURES - mean) / np.sqrt(variance + EPSILON)
    page.array("x[0]", FEATURES[0])
    page.array("new layer, eval", while_new[0])
    page.array("after one step of training, eval", after_a_step[0])
    page.array("the same, the first sample alone", alone[0])
    page.array("(x - running mean) / sqrt(running variance + epsilon)", by_formula[0])
    page.record(
        new_eval_error=largest(while_new - FEATURES / np.sqrt(1 + EPSILON)),
        alone_minus_in_batch=largest(alone[0] - after_a_step[0]),
        trained_eval_error=largest(after_a_step - by_formula),
        trained_eval_distance_from_input=largest(after_a_step - FEATURES),
    )
    page.say("evaluation")


def _one_value(page: Page) -> None:
    page.heading("one_value_heading")
    sample = FEATURES[:1]
    beta = np.arange(1, 6, dtype=np.float32)
    x = paddle.to_tensor(sample)
    mean, variance = batch_statistics(x)
    by_equations = ((x - mean) / paddle.sqrt(variance + EPSILON) + paddle.to_tensor(beta)).numpy()
    outputs = {}
    for name, layer in (("paddle.nn.BatchNorm1D", nn.BatchNorm1D(5)), ("our BatchNorm", BatchNorm(5))):
        layer.bias.set_value(beta)
        layer.train()
        outputs[name] = layer(x).numpy()
        page.record(**{f"one_value_running_mean_{'paddle' if 'paddle' in name else 'ours'}": largest(layer._mean)})
    pair = nn.BatchNorm2D(3)(paddle.to_tensor(IMAGES[:1])).numpy()
    page.array("x, (1, 5)", sample)
    page.array("the equations, beta = 1, 2, 3, 4, 5", by_equations)
    for name, output in outputs.items():
        page.array(f"{name}, train", output)
    page.array("paddle.nn.BatchNorm2D(3), train, on the first image alone (two pixels per channel)", pair[0])
    page.record(
        one_value_equations_minus_beta=largest(by_equations - beta),
        one_value_paddle_minus_input=largest(outputs["paddle.nn.BatchNorm1D"] - sample),
        one_value_ours_minus_input=largest(outputs["our BatchNorm"] - sample),
        two_values=np.abs(pair).ravel(),
    )
    page.say("one_value")
    page.say("two_pixels")


def draw_running_statistics(measured: np.ndarray, running: np.ndarray) -> Figure:
    """Draw each batch's mean and variance, and the running statistics, each ``[steps, 2]``."""
    figure, panels = make_figure(9.5, 3.6, 1, 2)
    steps = np.arange(1, len(measured) + 1)
    for axes, title, of_batches, kept in zip(panels, ("mean", "variance (biased)"), measured.T, running.T, strict=True):
        axes.plot(steps, of_batches, "o", color=GREY, markersize=4, alpha=0.7, label="of the batch")
        axes.plot(steps, kept, color=BLUE, label="running")
        mean = of_batches.mean()
        axes.axhline(mean, color=ORANGE, linestyle="--", linewidth=1.5, label="mean over the batches")
        axes.set_title(title, loc="left")
        axes.set(xlabel="training step", ylim=(0, 1.4 * of_batches.max()))  # space for the legend
    panels[0].set_ylabel("value")
    panels[1].legend(loc="upper right")
    return figure
