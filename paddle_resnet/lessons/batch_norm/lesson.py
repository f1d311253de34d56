"""Batch normalisation: what it computes, its running statistics, and its effect on training."""

from __future__ import annotations

from functools import partial

import numpy as np
import paddle
from matplotlib.figure import Figure
from paddle import nn

from paddle_resnet.lessons.batch_norm import running_statistics
from paddle_resnet.lessons.batch_norm import training as batch_norm_training
from paddle_resnet.lessons.batch_norm.running_statistics import EPSILON, FEATURES, IMAGES, largest
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.models.batch_norm import BatchNorm, batch_norm_gradients
from paddle_resnet.plots.style import BLUE, GREEN, GREY, ORANGE, make_figure
from paddle_resnet.training.process_setup import ignore_paddle_warnings

SAMPLES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"))
"""Colour and marker of each sample."""


@ignore_paddle_warnings()
def teach(page: Page, effort: Effort) -> None:
    """Compute it by hand and with Paddle, follow its running statistics, and train with and without it."""
    _features(page)
    _images(page)
    _scale_and_shift(page)
    running_statistics.teach(page)
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
