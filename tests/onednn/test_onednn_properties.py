"""Every oneDNN operation over generated shapes: against float64 numpy and Paddle's own, forward and all gradients."""

from __future__ import annotations

import threading

import numpy as np
import onednn_reference as reference
import paddle
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onednn_checks import (
    NCHW,
    NHWC,
    assert_all_near,
    assert_near,
    gradients,
    inputs_of,
    poison_memory,
    random_gradient,
)
from paddle.nn import functional

from paddle_resnet.onednn import convolution, primitives, unavailable_reason
from paddle_resnet.onednn import layers as onednn_layers
from paddle_resnet.onednn.geometry import Window

pytestmark = [pytest.mark.slow, pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason()))]

FRACTION_AFTER_CANCELLING = 0.5
"""A sum below this fraction of what its terms' sizes make likely has lost digits that no order of adding can keep."""

SMALLEST_DISTANCE_FROM_ZERO = 1e-5
"""Nearer than this, float32 may round a ReLU's argument to the other side of zero."""

seeds = st.integers(0, 2**32 - 1)
batches = st.integers(1, 3)


def examples(count):
    """The same examples in every run, as many as said; a slow machine is no failure."""
    return settings(max_examples=count, derandomize=True, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def poisoned_memory():
    with pytest.MonkeyPatch.context() as monkeypatch:
        poison_memory(monkeypatch)
        yield


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assume_no_cancelling(values, typical_size):
    """Leave out examples in which every sum happens to end near zero: their largest value is no measure of error."""
    assume(np.abs(values).max() >= FRACTION_AFTER_CANCELLING * typical_size)


def smallest_image(window):
    """The smallest height and width in which the padded window has a place."""
    return tuple(
        max(1, dilation * (size - 1) + 1 - before - after)
        for size, before, after, dilation in zip(
            window.size, window.padding_before, window.padding_after, window.dilation, strict=True
        )
    )


def sees_pixels(window, height, width):
    """Whether some place of the window has a row of the image, and some a column.

    Where all that the window meets is padding, oneDNN 3.6.2 reads outside its memory.
    """
    for length, size, stride, before, after, dilation in zip((height, width), *window, strict=True):
        places = np.arange(0, before + length + after - dilation * (size - 1), stride)
        met = places[:, None] + dilation * np.arange(size)
        if not ((met >= before) & (met < before + length)).any():
            return False
    return True


def paddings(window):
    (top, left), (bottom, right) = window.padding_before, window.padding_after
    return [top, bottom, left, right]


@st.composite
def convolutions(draw):
    """x ``[N, H, W, C]``, weight, bias or None, window and groups: plain, grouped or depthwise."""
    window = Window(draw(pairs(1, 5)), draw(pairs(1, 3)), draw(pairs(0, 3)), draw(pairs(0, 3)), draw(pairs(1, 3)))
    groups = draw(st.sampled_from([1, 1, 2, 3, 8, 16, 17]))
    inputs, outputs = (draw(st.integers(1, 20 if groups == 1 else 4)) for _ in range(2))
    if draw(st.booleans()) and groups > 3:
        inputs = outputs = 1  # depthwise
    height, width = (size + draw(st.integers(0, 8)) for size in smallest_image(window))
    assume(sees_pixels(window, height, width))
    seed = draw(seeds)
    x = normal(seed, draw(batches), height, width, inputs * groups)
    weight = normal(seed + 1, outputs * groups, inputs, *window.size)
    bias = normal(seed + 2, outputs * groups) if draw(st.booleans()) else None
    return x, weight, bias, window, groups


@examples(300)
@given(convolutions())
def test_convolution(case):
    check_convolution(case)


@examples(100)
@given(convolutions())
def test_a_convolution_of_long_rows_without_avx512(case):
    """The gradient of the weights over the batch as width, whatever the size of the images."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(convolution, "_has_long_rows", lambda image: True)
        monkeypatch.setattr(primitives, "_local", threading.local())  # without primitives built for another layout
        check_convolution(case)


def check_convolution(case):
    x, weight, bias, window, groups = case
    expected, expected_gradients = reference.convolution(x, weight, bias, window, groups, random_gradient())
    # The root of the sum of the terms' squares, for each of the sums.
    squares, gradient_squares = reference.convolution(
        x**2, weight**2, None if bias is None else bias**2, window, groups, lambda shape: random_gradient()(shape) ** 2
    )
    for values, typical in zip((expected, *expected_gradients), (squares, *gradient_squares), strict=True):
        assume_no_cancelling(values, np.sqrt(typical.max()))

    inputs = inputs_of(x, weight, bias)
    bias_input = None if bias is None else inputs[2]
    result = onednn_layers.conv2d(*inputs[:2], bias_input, window, groups)
    found_gradients = gradients(result, inputs)
    assert_near(result, expected)
    assert_all_near(found_gradients, expected_gradients[: len(inputs)])

    native = functional.conv2d(
        inputs[0].transpose(NCHW),
        inputs[1],
        bias_input,
        stride=window.stride,
        padding=paddings(window),
        dilation=window.dilation,
        groups=groups,
    ).transpose(NHWC)
    assert_near(result, native)
    assert_all_near(found_gradients, gradients(native, inputs))


@st.composite
def normalisations(draw):
    """x ``[N, H, W, C]`` with at least 8 pixels, scale and shift, running mean and variance, momentum, epsilon.

    The pixels' mean is not far from zero beside their deviation: float32 rounds the mean, and the gradient of the scale
    takes that rounding times all of the result's gradient, in every implementation.
    """
    height, width = draw(pairs(1, 9))
    batch, channels, seed = draw(batches), draw(st.integers(1, 33)), draw(seeds)
    assume(batch * height * width >= 8)
    rng = np.random.default_rng(seed)
    mean, deviation = rng.uniform(-0.5, 0.5), rng.uniform(0.5, 2)
    x = ((rng.normal(size=(batch, height, width, channels)) + mean) * deviation).astype(np.float32)
    scale, shift, mean = rng.normal(size=(3, channels)).astype(np.float32)
    variance = rng.uniform(0.5, 2, channels).astype(np.float32)
    momentum, epsilon = draw(st.sampled_from([0.0, 0.7, 0.9])), draw(st.sampled_from([1e-5, 1e-3]))
    return x, (scale, shift), (mean, variance), momentum, epsilon


@examples(200)
@given(normalisations(), st.booleans(), st.booleans())
def test_batch_norm(case, training, relu):
    x, parameters, statistics, momentum, epsilon = case
    used = None if training else statistics
    before_relu, _ = reference.batch_norm(x, *parameters, used, epsilon, False, random_gradient())
    expected, expected_gradients = reference.batch_norm(x, *parameters, used, epsilon, relu, random_gradient())
    if relu:
        assume(np.abs(before_relu).min() > SMALLEST_DISTANCE_FROM_ZERO)
    pixels = x.size // x.shape[-1]
    for values, typical in zip((expected, *expected_gradients), (1, 0.1, pixels**0.5, pixels**0.5), strict=True):
        assume_no_cancelling(values, typical)
    columns, kept = x.astype(np.float64).reshape(pixels, -1), momentum if training else 1.0
    expected_running = [
        kept * old + (1 - kept) * new for old, new in zip(statistics, (columns.mean(0), columns.var(0)), strict=True)
    ]
    assume_no_cancelling(expected_running[0], 0.2)

    inputs = inputs_of(x, *parameters)
    running, native_running = ([paddle.to_tensor(array) for array in statistics] for _ in range(2))
    options = {"training": training, "momentum": momentum, "epsilon": epsilon}
    result = onednn_layers.batch_norm(*inputs, *running, relu=relu, **options)
    found_gradients = gradients(result, inputs)
    assert_near(result, expected)
    assert_all_near(found_gradients, expected_gradients)

    native = functional.batch_norm(inputs[0], *native_running, *inputs[1:], data_format="NHWC", **options)
    native = functional.relu(native) if relu else native
    assert_near(result, native)
    assert_all_near(found_gradients, gradients(native, inputs))

    assert_all_near(running, expected_running)
    assert_all_near(running, native_running)


@examples(100)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), seeds, st.booleans(), st.sampled_from(["shortcut", "none"]))
def test_add_relu(shape, seed, share_gradient, shortcut_kind):
    """With a shortcut of zeros it is the ReLU alone."""
    x, shortcut = normal(seed, *shape), normal(seed + 1, *shape)
    if shortcut_kind == "none":
        shortcut[:] = 0
    shortcut.flat[0] = -x.flat[0]  # a sum of exactly zero has no gradient
    inputs = inputs_of(x, shortcut)
    result = onednn_layers.add(*inputs, relu=True, share_gradient=share_gradient)
    found_gradients = gradients(result, inputs)
    total = x.astype(np.float64) + shortcut
    expected = random_gradient()(shape) * (total > 0)
    assert_near(result, np.maximum(total, 0))
    assert_all_near(found_gradients, [expected, expected], 0)

    native = functional.relu(inputs[0] + inputs[1])
    assert_near(result, native, 0)
    assert_all_near(found_gradients, gradients(native, inputs), 0)


@st.composite
def max_pools(draw):
    """x ``[N, H, W, C]`` and a window of which every place has a pixel; values with many equal maxima, or none."""
    size = draw(pairs(1, 4))
    before, after = (tuple(draw(st.integers(0, length - 1)) for length in size) for _ in range(2))
    window = Window(size, draw(pairs(1, 3)), before, after)
    height, width = (smallest + draw(st.integers(0, 8)) for smallest in smallest_image(window))
    shape, seed = (draw(batches), height, width, draw(st.integers(1, 33))), draw(seeds)
    if draw(st.booleans()):
        return np.random.default_rng(seed).integers(-2, 3, shape).astype(np.float32), window
    return normal(seed, *shape), window


@examples(150)
@given(max_pools())
def test_max_pool(case):
    """Of equal maxima, the first takes the gradient, as Paddle does it."""
    x, window = case
    expected, expected_gradients = reference.max_pool(x, window, random_gradient())
    inputs = inputs_of(x)
    result = onednn_layers.max_pool2d(inputs[0], window)
    found_gradients = gradients(result, inputs)
    assert_near(result, expected, 0)
    assert_all_near(found_gradients, expected_gradients)

    native = functional.max_pool2d(inputs[0].transpose(NCHW), window.size, window.stride, paddings(window))
    native = native.transpose(NHWC)
    assert_near(result, native, 0)
    assert_all_near(found_gradients, gradients(native, inputs))


@examples(100)
@given(batches, pairs(1, 12), st.integers(1, 40), seeds)
def test_global_average_pool(batch, size, channels, seed):
    x = normal(seed, batch, *size, channels)
    expected = x.astype(np.float64).mean((1, 2))
    assume_no_cancelling(expected, (size[0] * size[1]) ** -0.5)
    inputs = inputs_of(x)
    result = onednn_layers.global_average_pool(inputs[0]).flatten(1)
    found_gradients = gradients(result, inputs)
    assert_near(result, expected)
    gradient = random_gradient()(expected.shape).astype(np.float64)[:, None, None, :] / (size[0] * size[1])
    assert_all_near(found_gradients, [np.broadcast_to(gradient, x.shape)])

    native = functional.adaptive_avg_pool2d(inputs[0].transpose(NCHW), 1).reshape([batch, channels])
    assert_near(result, native)
    assert_all_near(found_gradients, gradients(native, inputs))


@examples(100)
@given(batches, pairs(1, 9), st.integers(1, 20), st.integers(1, 3), st.integers(1, 20), seeds)
def test_zero_pad_shortcut(batch, size, channels, stride, new_channels, seed):
    x = normal(seed, batch, *size, channels)
    expected = np.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, new_channels)))
    inputs = inputs_of(x)
    result = onednn_layers.zero_pad_shortcut(inputs[0], stride, new_channels)
    found_gradients = gradients(result, inputs)
    expected_gradient = np.zeros_like(x)
    expected_gradient[:, ::stride, ::stride] = random_gradient()(expected.shape)[..., :channels]
    assert_near(result, expected, 0)
    assert_all_near(found_gradients, [expected_gradient], 0)

    native = functional.pad(inputs[0][:, ::stride, ::stride], [0, 0, 0, 0, 0, 0, 0, new_channels])
    assert_near(result, native, 0)
    assert_all_near(found_gradients, gradients(native, inputs), 0)
