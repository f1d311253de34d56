"""Batch normalisation: what it computes, its running statistics, and its effect on training."""

from __future__ import annotations

from functools import partial

import numpy as np
import paddle
from matplotlib.figure import Figure
from paddle import nn

from paddle_resnet.lessons.batch_norm import training as batch_norm_training
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.models.batch_norm import BatchNorm, batch_norm_gradients, batch_statistics
from paddle_resnet.plots.style import BLUE, GREEN, GREY, ORANGE, make_figure
from paddle_resnet.training.process_setup import ignore_paddle_warnings

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

MOMENTUM = 0.9

SAMPLES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"))
"""Colour and marker of each sample."""


@ignore_paddle_warnings()
def teach(page: Page, effort: Effort) -> None:
    """Compute it by hand and with Paddle, follow its running statistics, and train with and without it."""
    _features(page)
    _images(page)
    _scale_and_shift(page)
    _running_statistics(page)
    _evaluation(page)
    _one_value(page)
    _compare_with_paddle(page)
    batch_norm_training.teach(page, effort)


def _features(page: Page) -> None:
    page.section("normalizes")
    page.values(
        "mean     = x.mean(0)",
        "variance = ((x - mean) ** 2).mean(0)    # biased: divided by m, not by m - 1",
        "y        = gamma * (x - mean) / sqrt(variance + epsilon) + beta",
    )
    output = BatchNorm(FEATURES.shape[1])(paddle.to_tensor(FEATURES)).numpy()
    page.array("x, (3, 5)", FEATURES)
    page.array("BatchNorm(5)(x)", output)
    variance = _record_statistics(page, "features", FEATURES, output, axes=(0,))
    page.array("y.mean(0)", output.mean(0))
    page.values("y.var(0):", np.array2string(output.var(0, dtype=np.float64), precision=7, floatmode="fixed"))
    page.say("near_1", smallest=variance.min())
    page.figure("features", partial(draw_features, FEATURES, output))


def _images(page: Page) -> None:
    page.section("per_channel")
    output = BatchNorm(IMAGES.shape[1])(paddle.to_tensor(IMAGES)).numpy()
    page.array("x, (3, 3, 1, 2), first image", IMAGES[0])
    page.array("BatchNorm(3)(x), first image", output[0])
    _record_statistics(page, "images", IMAGES, output, axes=(0, 2, 3))
    statistics = [each(x, (0, 2, 3), np.float64) for x in (IMAGES, output) for each in (np.mean, np.var)]
    rows = np.transpose(statistics).round(6) + 0.0  # without -0.0
    page.table("channel_statistics", [[row, *(f"{value:.6f}" for value in rows[row])] for row in range(len(rows))])


def _record_statistics(page: Page, name: str, x: np.ndarray, output: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Record the errors of the output's mean and variance; return the variance of x."""
    variance = x.var(axes, dtype=np.float64)
    nearly_without_epsilon = BatchNorm(x.shape[1], epsilon=1e-12)(paddle.to_tensor(x)).numpy()
    found = output.var(axes, dtype=np.float64)
    errors = {
        "mean_error": output.mean(axes, dtype=np.float64),
        "variance_below_1": 1 - found,
        "variance_error": found - variance / (variance + EPSILON),
        "variance_error_tiny_epsilon": nearly_without_epsilon.var(axes, dtype=np.float64) - 1,
    }
    page.record(**{f"{name}_{key}": largest(values) for key, values in errors.items()})
    return variance


def _scale_and_shift(page: Page) -> None:
    page.heading("scale_and_shift_heading")
    layer = BatchNorm(FEATURES.shape[1])
    layer.weight.set_value(np.full(5, 2.0, np.float32))
    layer.bias.set_value(np.full(5, 3.0, np.float32))
    scaled = layer(paddle.to_tensor(FEATURES)).numpy()
    mean, variance = FEATURES.mean(0), FEATURES.var(0)
    layer.weight.set_value(np.sqrt(variance + EPSILON))
    layer.bias.set_value(mean)
    restored = layer(paddle.to_tensor(FEATURES)).numpy()
    page.record(
        scaled_mean=scaled.mean(0),
        scaled_deviation=scaled.std(0),
        restored_error=largest((restored - FEATURES) / np.sqrt(variance)),
    )
    page.values(
        f"gamma = 2, beta = 3:  y.mean(0) = {_short(scaled.mean(0))},  y.std(0) = {_short(scaled.std(0))}",
        f"gamma = sqrt(variance + epsilon), beta = mean:  y[0] = {_short(restored[0])},  x[0] = {_short(FEATURES[0])}",
    )
    page.say("scale_and_shift")


def _compare_with_paddle(page: Page) -> None:
    page.heading("against_paddle_heading")
    random = np.random.default_rng(1)
    x, slope = (random.normal(1.0, 2.0, (8, 5, 4, 6)).astype(np.float32) for _ in range(2))
    state = {name: random.uniform(0.5, 2.0, 5).astype(np.float32) for name in ("weight", "bias", "_mean", "_variance")}
    reference, ours = nn.BatchNorm2D(5), BatchNorm(5)
    for layer in (reference, ours):
        layer.set_state_dict(state)
    expected, found = _forward_and_backward(reference, x, slope), _forward_and_backward(ours, x, slope)
    closed = batch_norm_gradients(paddle.to_tensor(slope), paddle.to_tensor(x), reference.weight)
    names = ["y", "dL/dx", "dL/dgamma", "dL/dbeta"]
    ours_errors = [_relative(a, b) for a, b in zip(found, expected, strict=True)]
    closed_errors = [_relative(a.numpy(), b) for a, b in zip(closed, expected[1:], strict=True)]
    page.values(
        "g     = dL/dy",
        "dL/dx = gamma / sqrt(variance + epsilon) * (g - mean(g) - z * mean(g * z))      # z = the normalised x",
    )
    sizes = [f"{largest(value):.4f}" for value in expected]
    columns = [f"{error:.1e}" for error in ours_errors], ["", *(f"{error:.1e}" for error in closed_errors)]
    page.table("against_paddle", list(zip(names, sizes, *columns, strict=True)))
    x_gradient = expected[1].astype(np.float64)
    page.record(
        ours_relative_errors=ours_errors,
        closed_form_relative_errors=closed_errors,
        x_gradient_sum=largest(x_gradient.sum((0, 2, 3))) / largest(x_gradient),
    )
    page.say("two_directions")


def _forward_and_backward(layer: nn.Layer, x: np.ndarray, slope: np.ndarray) -> list[np.ndarray]:
    """Return the output, and the gradients of ``(output * slope).sum()`` by x, gamma and beta."""
    argument = paddle.to_tensor(x, stop_gradient=False)
    output = layer(argument)
    (output * paddle.to_tensor(slope)).sum().backward()
    return [each.numpy().copy() for each in (output, argument.grad, layer.weight.grad, layer.bias.grad)]


def _relative(found: np.ndarray, expected: np.ndarray) -> float:
    return largest(found - expected) / largest(expected)


def _short(values: np.ndarray) -> str:
    return np.array2string(values, precision=3, floatmode="fixed", suppress_small=True)


def draw_features(before: np.ndarray, after: np.ndarray) -> Figure:
    """Draw three samples ``[3, features]`` before and after normalisation, a column per feature."""
    figure, panels = make_figure(9.5, 3.6, 1, 2)
    for axes, values, title in zip(panels, (before, after), ("x", "BatchNorm(x)"), strict=True):
        for index, (sample, (colour, mark)) in enumerate(zip(values, SAMPLES, strict=True)):
            # Shifted, so that samples do not hide each other.
            places = np.arange(len(sample)) + 0.12 * (index - 1)
            axes.plot(places, sample, mark, color=colour, markersize=8, label=f"sample {index}")
        axes.set_xticks(range(values.shape[1]))
        axes.set(xlabel="feature", xlim=(-0.5, values.shape[1] - 0.5))
        axes.set_title(title, loc="left")
        axes.axhline(0, color=GREY, linewidth=1)
    panels[1].set_ylim(-2, 2)
    panels[0].set_ylabel("value")
    panels[0].legend(loc="upper left")
    return figure


def largest(values: np.ndarray | paddle.Tensor) -> float:
    """Return the largest absolute value."""
    return float(np.abs(np.asarray(values)).max())


def _running_statistics(page: Page) -> None:
    page.section("kept_for_evaluation")
    page.values(f"running = momentum * running + (1 - momentum) * batch        # momentum = {MOMENTUM}")
    batches = np.random.default_rng(0).normal(5.0, 3.0, (60, 8, 1)).astype(np.float32)
    # Columns: mean, biased variance, unbiased variance. A new layer begins with 0 and 1.
    measured = np.stack(
        [batches.mean((1, 2), np.float64), *(batches.var((1, 2), np.float64, ddof=ddof) for ddof in (0, 1))], axis=1
    )
    layer = nn.BatchNorm1D(1)
    in_layer, formula = [], [np.array([0.0, 1.0, 1.0])]
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
