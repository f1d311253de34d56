"""oneDNN's layers on bfloat16 images, against float64 numpy on the same rounded numbers."""

from __future__ import annotations

import copy

import numpy as np
import onednn_reference as reference
import paddle
import pytest
from paddle.nn import functional

from paddle_resnet.models import create_model
from paddle_resnet.models.classifier import ImageClassifier
from paddle_resnet.onednn import bfloat16_unavailable_reason, library, replace_layers, unavailable_reason
from paddle_resnet.onednn import layers as onednn_layers
from paddle_resnet.onednn.geometry import Window
from paddle_resnet.onednn.tensors import as_channels_last

# oneDNN computes with bfloat16 on every AVX-512 processor, on the older ones by way of float32.
AVX512 = 0x27
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        unavailable_reason() is not None or library.instruction_set() & AVX512 != AVX512,
        reason="needs the oneDNN layers and AVX-512",
    ),
]

ROUNDING = 2.0**-8
"""A bfloat16 number's largest relative error."""


def rounded(*shape, seed=0):
    """Random numbers that bfloat16 holds exactly, as float32."""
    numbers = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return (numbers.view(np.uint32) & 0xFFFF0000).view(np.float32)


def images(array):
    tensor = paddle.to_tensor(array).cast("bfloat16")
    tensor.stop_gradient = False
    return tensor


def parameter(array):
    return paddle.to_tensor(array, stop_gradient=False)


def backward(result):
    """Take the gradients for one that bfloat16 holds exactly, and return it."""
    gradient = rounded(*result.shape, seed=9)
    result.backward(paddle.to_tensor(gradient).cast("bfloat16"))
    return gradient


def assert_near(tensor, expected, tolerance, dtype):
    assert tensor.dtype == dtype
    error = np.abs(tensor.cast("float32").numpy() - expected).max()
    assert error <= tolerance * np.abs(expected).max()


def test_images_are_rounded_to_the_nearest_bfloat16():
    x = np.random.default_rng(3).normal(size=(3, 3, 7, 5)).astype(np.float32)
    x[0, 0, 0, :3] = np.array([0x3F808000, 0x3F818000, 0x80000000], np.uint32).view(np.float32)  # ties, and -0
    bits = x.view(np.uint32)
    expected = ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32).transpose(0, 2, 3, 1)
    found = as_channels_last(paddle.to_tensor(x), paddle.bfloat16)
    assert found.dtype == paddle.bfloat16
    assert found.cast("float32").numpy().tobytes() == expected.tobytes()
    in_float32 = as_channels_last(paddle.to_tensor(x), paddle.float32).numpy()
    assert in_float32.tobytes() == x.transpose(0, 2, 3, 1).tobytes()


SAME = ((1, 1), (1, 1), (1, 1))
CONVOLUTIONS = {
    "3x3": ((8, 8), 16, Window((3, 3), *SAME)),
    "3x3 on images of 2x2": ((2, 2), 16, Window((3, 3), *SAME)),
    "strided 3x3 onto 4x4": ((8, 8), 32, Window((3, 3), (2, 2), (1, 1), (1, 1))),
    "1x1": ((7, 7), 16, Window((1, 1), (1, 1), (0, 0), (0, 0))),
    "strided 1x1": ((8, 8), 16, Window((1, 1), (2, 2), (0, 0), (0, 0))),
    "7x7 of three channels": ((16, 16), 3, Window((7, 7), (2, 2), (3, 3), (3, 3))),
    # Windows larger than the image: oneDNN leaves parts of some gradients unwritten, and writes outside others.
    "5x5 on images of 4x4": ((4, 4), 16, Window((5, 5), (1, 1), (2, 2), (2, 2))),
    "strided 7x7 on images of 3x3": ((3, 3), 3, Window((7, 7), (2, 2), (3, 3), (3, 3))),
    "3x3 on images of 2x4": ((2, 4), 16, Window((3, 3), *SAME)),
    "5x5 on images of 7x1": ((7, 1), 16, Window((5, 5), (1, 1), (2, 2), (2, 2))),
    "strided 3x3 on images of 8x1": ((8, 1), 16, Window((3, 3), (2, 2), (1, 1), (1, 1))),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolution(kind):
    size, channels, window = CONVOLUTIONS[kind]
    x, weight, bias = rounded(3, *size, channels), rounded(8, channels, *window.size, seed=1), rounded(8, seed=2)
    tensors = images(x), parameter(weight), parameter(bias)
    result = onednn_layers.conv2d(*tensors, window)
    gradient = backward(result)
    expected, (x_gradient, *parameter_gradients) = reference.convolution(
        x, weight, bias, window, 1, lambda shape: gradient
    )
    assert_near(result, expected, ROUNDING, paddle.bfloat16)
    assert_near(tensors[0].grad, x_gradient, ROUNDING, paddle.bfloat16)
    for tensor, expected_gradient in zip(tensors[1:], parameter_gradients, strict=True):
        # Their sums are never rounded to bfloat16.
        assert_near(tensor.grad, expected_gradient, 1e-5, paddle.float32)


# With 24 channels, two pixels are taken for one, unless the number of images is odd.
@pytest.mark.parametrize(("images_and_channels"), [(4, 16), (4, 24), (3, 24)])
@pytest.mark.parametrize("relu", [False, True])
def test_batch_norm_keeps_its_statistics_in_float32(relu, images_and_channels):
    number, channels = images_and_channels
    x, weight, bias = rounded(number, 5, 5, channels), rounded(channels, seed=1), rounded(channels, seed=2)
    x = ((x + np.float32(0.5)).view(np.uint32) & 0xFFFF0000).view(np.float32)
    mean, variance = paddle.zeros([channels]), paddle.ones([channels])
    tensors = images(x), parameter(weight), parameter(bias)
    result = onednn_layers.batch_norm(*tensors, mean, variance, training=True, relu=relu)
    gradient = backward(result)
    expected, gradients = reference.batch_norm(x, weight, bias, None, 1e-5, relu, lambda shape: gradient)
    assert_near(result, expected, ROUNDING, paddle.bfloat16)
    for tensor, expected_gradient, dtype in zip(
        tensors, gradients, (paddle.bfloat16, paddle.float32, paddle.float32), strict=True
    ):
        assert_near(tensor.grad, expected_gradient, 2 * ROUNDING if dtype == paddle.bfloat16 else 1e-4, dtype)
    assert_near(mean, 0.1 * x.astype(np.float64).mean((0, 1, 2)), 1e-6, paddle.float32)
    assert_near(variance, 0.9 + 0.1 * x.astype(np.float64).var((0, 1, 2)), 1e-6, paddle.float32)


@pytest.mark.parametrize("x_wanted", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_of_24_channels(training, x_wanted):
    x, weight, bias = rounded(2, 7, 3, 24), rounded(24, seed=1), rounded(24, seed=2)
    given = np.linspace(-1, 1, 24, dtype=np.float32), np.linspace(0.5, 2, 24, dtype=np.float32)
    tensors = images(x), parameter(weight), parameter(bias)
    tensors[0].stop_gradient = not x_wanted
    result = onednn_layers.batch_norm(*tensors, *map(paddle.to_tensor, given), training=training, relu=True)
    gradient = backward(result)
    statistics = None if training else given
    expected, gradients = reference.batch_norm(x, weight, bias, statistics, 1e-5, True, lambda shape: gradient)
    assert_near(result, expected, ROUNDING, paddle.bfloat16)
    assert (tensors[0].grad is not None) == x_wanted
    if x_wanted:
        assert_near(tensors[0].grad, gradients[0], 2 * ROUNDING, paddle.bfloat16)
    for tensor, expected_gradient in zip(tensors[1:], gradients[1:], strict=True):
        assert_near(tensor.grad, expected_gradient, 1e-4, paddle.float32)


def test_add_relu():
    x, y = rounded(2, 3, 3, 8), rounded(2, 3, 3, 8, seed=1)
    first, second = images(x), images(y)
    result = onednn_layers.add(first, second, relu=True)
    gradient = backward(result)
    assert_near(result, np.maximum(x + y, 0), ROUNDING, paddle.bfloat16)
    for tensor in (first, second):
        assert_near(tensor.grad, gradient * (x + y > 0), 0.0, paddle.bfloat16)


def test_pooling():
    x = rounded(2, 6, 6, 8)
    tensor = images(x)
    pooled = onednn_layers.max_pool2d(tensor, Window((2, 2), (2, 2), (0, 0), (0, 0)))
    assert_near(pooled, x.reshape(2, 3, 2, 3, 2, 8).max((2, 4)), 0.0, paddle.bfloat16)
    assert_near(onednn_layers.global_average_pool(tensor), x.mean((1, 2), keepdims=True), ROUNDING, paddle.bfloat16)


def test_zero_padded_shortcut():
    x = rounded(2, 4, 4, 8)
    result = onednn_layers.zero_pad_shortcut(images(x), 2, 8)
    assert_near(result, np.pad(x[:, ::2, ::2], [(0, 0)] * 3 + [(0, 8)]), 0.0, paddle.bfloat16)


BLOCKS = {
    "resnet8": {},
    "preact_resnet20": {"stochastic_depth": 0.2},
    "wrn_16_2": {"dropout": 0.2},
    "resnet18_d": {},
    "plain20": {},
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_network_stays_float32_outside(name):
    paddle.seed(0)
    native: ImageClassifier = create_model(name, num_classes=3, **BLOCKS[name])
    accelerated = copy.deepcopy(native)
    replace_layers(accelerated, "bfloat16")
    x, labels = paddle.randn([4, 3, 32, 32]), paddle.to_tensor([0, 1, 2, 0])
    native.eval(), accelerated.eval()
    logits, expected = accelerated(x), native(x)
    assert logits.dtype == accelerated.forward_features(x).dtype == paddle.float32
    # Roundings of 2**-9 on average, dozens of layers deep.
    assert float((logits - expected).abs().max()) <= 0.1 * float(expected.abs().max())
    accelerated.train()
    functional.cross_entropy(accelerated(x), labels).backward()
    gradients = [parameter.grad for parameter in accelerated.parameters() if not parameter.stop_gradient]
    assert all(gradient.dtype == paddle.float32 and bool(paddle.isfinite(gradient).all()) for gradient in gradients)
    assert all(float(gradient.abs().max()) > 0 for gradient in gradients if gradient.ndim > 1)


@pytest.mark.parametrize(("instructions", "fits"), [(0x7, False), (0x67, False), (0xE7, True), (0xFEF, True)])
def test_bfloat16_needs_avx512_bf16(monkeypatch, instructions, fits):
    monkeypatch.setattr(library, "instruction_set", lambda: instructions)
    reason = bfloat16_unavailable_reason()
    assert (reason is None) is fits
    if reason is not None:
        assert "AVX512-BF16" in reason and library.ISA_NAMES[instructions] in reason
