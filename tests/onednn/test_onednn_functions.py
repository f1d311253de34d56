"""oneDNN's operations in the cases that need a look of their own; generated shapes are in `test_onednn_properties`."""

from __future__ import annotations

import weakref

import numpy as np
import onednn_reference as reference
import paddle
import pytest
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

from paddle_resnet.onednn import layers as onednn_layers
from paddle_resnet.onednn import tensors, unavailable_reason
from paddle_resnet.onednn.geometry import Window

pytestmark = pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason()))


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch):
    poison_memory(monkeypatch)


@pytest.mark.slow
def test_a_strided_1x1_convolution_is_right_every_time():
    rng = np.random.default_rng(1)
    x, weight = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 4, 4, 4), (8, 4, 1, 1)))
    window = Window((1, 1), (2, 2), (0, 0), (0, 0))
    _, expected = reference.convolution(x, weight, None, window, 1, random_gradient())
    inputs = inputs_of(x, weight)
    for _ in range(1000):  # oneDNN's own was wrong in about one of 500, with two threads
        assert_all_near(gradients(onednn_layers.conv2d(*inputs, None, window), inputs), expected[:2])


@pytest.mark.parametrize("shape", [(2, 6, 5, 16), (1, 3, 3, 8), (3, 7, 2, 5), (4, 1, 1, 3), (1, 9, 9, 1)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_batch_norm(shape, training, relu):
    rng = np.random.default_rng(5)
    x = (rng.normal(size=shape) * 2 + 1).astype(np.float32)
    weight, bias, mean = rng.normal(size=(3, shape[-1])).astype(np.float32)
    variance = rng.uniform(0.5, 2, shape[-1]).astype(np.float32)
    running, native_running = ([paddle.to_tensor(mean), paddle.to_tensor(variance)] for _ in range(2))
    settings = {"training": training, "momentum": 0.7, "epsilon": 1e-3}

    expected, expected_gradients = reference.batch_norm(
        x, weight, bias, None if training else (mean, variance), 1e-3, relu, random_gradient()
    )
    inputs = inputs_of(x, weight, bias)
    result = onednn_layers.batch_norm(*inputs, *running, relu=relu, **settings)
    found_gradients = gradients(result, inputs)
    assert_near(result, expected)
    assert_all_near(found_gradients, expected_gradients)

    native = functional.batch_norm(inputs[0], *native_running, *inputs[1:], data_format="NHWC", **settings)
    native = functional.relu(native) if relu else native
    assert_near(result, native)
    assert_all_near(found_gradients, gradients(native, inputs))

    kept = 0.7 if training else 1.0
    pixels = x.astype(np.float64).reshape(-1, shape[-1])
    assert_near(running[0], kept * mean + (1 - kept) * pixels.mean(0))
    assert_near(running[1], kept * variance + (1 - kept) * pixels.var(0))
    assert_all_near(running, native_running)


def test_batch_norm_backward_uses_the_statistics_of_forward():
    rng = np.random.default_rng(2)
    x, (weight, bias) = rng.normal(size=(2, 4, 4, 3)).astype(np.float32), rng.normal(size=(2, 3)).astype(np.float32)
    mean, variance = paddle.zeros([3]), paddle.ones([3])
    inputs = inputs_of(x, weight, bias)
    result = onednn_layers.batch_norm(*inputs, mean, variance, training=False)
    onednn_layers.batch_norm(*inputs, mean, variance, training=True)
    assert mean.abs().max().item() > 0
    _, expected = reference.batch_norm(x, weight, bias, (np.zeros(3), np.ones(3)), 1e-5, False, random_gradient())
    assert_all_near(gradients(result, inputs), expected)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_without_gradient(relu, training):
    rng = np.random.default_rng(8)
    x, (weight, bias) = rng.normal(size=(2, 5, 4, 16)).astype(np.float32), rng.normal(size=(2, 16)).astype(np.float32)
    mean, variance = paddle.zeros([16]), paddle.ones([16])
    with paddle.no_grad():
        result = onednn_layers.batch_norm(*inputs_of(x, weight, bias), mean, variance, training=training, relu=relu)
    statistics = None if training else (np.zeros(16), np.ones(16))
    expected, _ = reference.batch_norm(x, weight, bias, statistics, 1e-5, relu, random_gradient())
    assert_near(result, expected)
    assert (mean.abs().max().item() > 0) == training


@pytest.mark.parametrize("shape", [(2, 6, 5, 16), (1, 3, 3, 7), (3, 5), (11,)])
@pytest.mark.parametrize("share_gradient", [True, False])
def test_add_relu(shape, share_gradient):
    x, shortcut = np.random.default_rng(3).normal(size=(2, *shape)).astype(np.float32)
    shortcut.flat[0] = -x.flat[0]  # a sum of exactly zero has no gradient
    inputs = inputs_of(x, shortcut)
    result = onednn_layers.add(*inputs, relu=True, share_gradient=share_gradient)
    assert_near(result, np.maximum(x.astype(np.float64) + shortcut, 0))
    expected = random_gradient()(shape) * (x + shortcut > 0)
    assert_all_near(gradients(result, inputs), [expected, expected])


def test_add_relu_keeps_its_two_gradients_apart():
    x, shortcut = inputs_of(np.ones((2, 3), np.float32), np.ones((2, 3), np.float32))
    first, second = (onednn_layers.add(x, other, relu=True) for other in (shortcut, x))
    (first.sum() + 5 * x.sum() + second.sum()).backward()
    assert x.grad.numpy().tolist() == [[8.0] * 3] * 2
    assert shortcut.grad.numpy().tolist() == [[1.0] * 3] * 2


@pytest.mark.parametrize(
    "window",
    [
        Window((3, 3), (2, 2), (1, 1), (1, 1)),
        Window((2, 2), (2, 2), (0, 0), (0, 0)),
        Window((3, 2), (1, 2), (1, 0), (0, 1)),
    ],
)
@pytest.mark.parametrize("shape", [(2, 7, 9, 16), (1, 5, 4, 3)])
def test_max_pool(window, shape):
    x = np.random.default_rng(4).integers(0, 4, shape).astype(np.float32)  # with many equal maxima
    expected, expected_gradients = reference.max_pool(x, window, random_gradient())
    inputs = inputs_of(x)
    result = onednn_layers.max_pool2d(inputs[0], window)
    found_gradients = gradients(result, inputs)
    assert_near(result, expected)
    assert_all_near(found_gradients, expected_gradients)
    with paddle.no_grad():
        assert_near(onednn_layers.max_pool2d(inputs[0], window), expected)

    (top, left), (bottom, right) = window.padding_before, window.padding_after
    native = functional.max_pool2d(
        inputs[0].transpose(NCHW), window.size, window.stride, [top, bottom, left, right]
    ).transpose(NHWC)
    assert_near(result, native)
    assert_all_near(found_gradients, gradients(native, inputs))


@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 2), (2, 1)])
def test_average_pool(size, stride):
    x = np.random.default_rng(4).normal(size=(2, 9, 7, 16)).astype(np.float32)
    inputs = inputs_of(x)
    result = onednn_layers.average_pool2d(inputs[0], Window((size, size), (stride, stride), (0, 0), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (size, size), (1, 2))
    assert_near(result, windows[:, ::stride, ::stride].mean((-2, -1)))
    native = functional.avg_pool2d(inputs[0].transpose(NCHW), size, stride).transpose(NHWC)
    assert_all_near(gradients(result, inputs), gradients(native, inputs))


@pytest.mark.parametrize("shape", [(2, 7, 9, 16), (1, 1, 1, 3), (3, 8, 8, 64)])
def test_global_average_pool(shape):
    x = np.random.default_rng(4).normal(size=shape).astype(np.float32)
    inputs = inputs_of(x)
    result = onednn_layers.global_average_pool(inputs[0]).flatten(1)
    assert_near(result, x.astype(np.float64).mean((1, 2)))
    gradient = random_gradient()((shape[0], shape[3]))[:, None, None, :] / (shape[1] * shape[2])
    assert_all_near(gradients(result, inputs), [np.broadcast_to(gradient, shape)])


@pytest.mark.parametrize(
    ("shape", "stride", "new_channels"),
    [((2, 6, 5, 16), 2, 16), ((2, 5, 7, 8), 2, 8), ((1, 7, 4, 3), 3, 2), ((2, 3, 3, 4), 1, 4)],
)
def test_zero_pad_shortcut(shape, stride, new_channels):
    x = np.random.default_rng(4).normal(size=shape).astype(np.float32)
    inputs = inputs_of(x)
    result = onednn_layers.zero_pad_shortcut(inputs[0], stride, new_channels)
    assert np.array_equal(result.numpy(), np.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, new_channels))))
    expected = np.zeros(shape, np.float32)
    expected[:, ::stride, ::stride] = random_gradient()(result.shape)[..., : shape[3]]
    assert_all_near(gradients(result, inputs), [expected], 0)


UNIT = Window((3, 3), (1, 1), (1, 1), (1, 1))


def small_convolution():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(2, 5, 4, 3)).astype(np.float32)
    weight = rng.normal(size=(6, 3, 3, 3)).astype(np.float32)
    bias = rng.normal(size=6).astype(np.float32)
    return inputs_of(x, weight, bias), reference.convolution(x, weight, bias, UNIT, 1, random_gradient())


@pytest.mark.parametrize("frozen", [(0,), (1,), (2,), (0, 2), (1, 2), (0, 1)])
def test_what_needs_no_gradient_gets_none(frozen):
    inputs, (_, expected) = small_convolution()
    for index in frozen:
        inputs[index].stop_gradient = True
    result = onednn_layers.conv2d(*inputs, UNIT)
    result.backward(paddle.to_tensor(random_gradient()(result.shape)))
    for index, (tensor, gradient) in enumerate(zip(inputs, expected, strict=True)):
        if index in frozen:
            assert tensor.grad is None
        else:
            assert_near(tensor.grad, gradient)


def test_tensors_whose_elements_are_not_in_order():
    inputs, (expected, expected_gradients) = small_convolution()
    x, weight, bias = inputs
    turned = x.detach().transpose([3, 2, 1, 0])
    turned.stop_gradient = False
    result = onednn_layers.conv2d(turned.transpose([3, 2, 1, 0]), weight, bias, UNIT).transpose(NCHW)
    gradient = paddle.to_tensor(random_gradient()(expected.shape)).transpose(NCHW)
    found = paddle.grad(result, [turned, weight, bias], gradient)
    assert_near(result, expected.transpose(NCHW))
    assert_near(found[0], expected_gradients[0].transpose([3, 2, 1, 0]))
    assert_all_near(found[1:], expected_gradients[1:])


def test_a_part_of_a_batch():
    inputs, (expected, _) = small_convolution()
    x, weight, bias = inputs
    assert_near(onednn_layers.conv2d(x[1:], weight, bias, UNIT), expected[1:])


def test_second_derivatives_are_refused():
    (x, *rest), _ = small_convolution()
    with pytest.raises(Exception, match="no second derivative"):
        paddle.grad(onednn_layers.conv2d(x, *rest, UNIT).sum(), x, create_graph=True)


def test_a_change_in_place_is_noticed():
    (x, *rest), _ = small_convolution()
    middle = x * 1.0
    result = onednn_layers.conv2d(middle, *rest, UNIT).sum()
    middle.add_(paddle.ones([1]))
    with pytest.raises(Exception, match="changed in place"):
        result.backward()


def test_another_dtype_is_refused():
    (x, *rest), _ = small_convolution()
    with pytest.raises(TypeError, match="float32"):
        onednn_layers.conv2d(x.astype("float64"), *rest, UNIT)


def test_nothing_is_kept_without_gradient(monkeypatch):
    (x, *rest), (expected, _) = small_convolution()
    made = []

    class Watched(tensors.Kept):
        def __init__(self, *kept):
            super().__init__(*kept)
            made.append(weakref.ref(self))

    monkeypatch.setattr(tensors, "Kept", Watched)
    with paddle.no_grad():
        result = onednn_layers.conv2d(x, *rest, UNIT)
    assert [each() for each in made] == [None]
    assert result.stop_gradient
    assert_near(result, expected)
