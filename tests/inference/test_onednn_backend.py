"""The oneDNN backend against ONNX Runtime and closed forms, on small ONNX files made here."""

from __future__ import annotations

import gc
import weakref
from importlib.util import find_spec

import numpy as np
import pytest
from onnx_files import NETWORKS, SIZE, Builder, backend_of, basic, bottleneck

from paddle_resnet.errors import UsageError
from paddle_resnet.inference import onednn_backend, onnx_layers
from paddle_resnet.inference.onednn_backend import OneDNNNetwork, Shared
from paddle_resnet.inference.onnx_graph import read_graph
from paddle_resnet.inference.onnx_layers import fuse
from paddle_resnet.onednn import bfloat16_unavailable_reason, unavailable_reason
from paddle_resnet.onednn.bindings import DataType

pytestmark = [
    pytest.mark.skipif(unavailable_reason("cpu") is not None, reason=str(unavailable_reason("cpu"))),
    pytest.mark.skipif(
        not all(map(find_spec, ("onnx", "onnxruntime"))), reason="requirements/onnx.txt is not installed"
    ),
]


def runtime_scores(model, batch):
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": batch})[0]


def pixels(images, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (images, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.mark.parametrize("network", NETWORKS)
def test_float32_scores_are_those_of_onnx_runtime(network, tmp_path):
    builder = Builder()
    network(builder)
    model = builder.file()
    backend = backend_of(model, tmp_path)
    for images in (1, 3, 8, 1):
        expected = runtime_scores(model, pixels(images, images))
        assert expected.std() > 1e-3
        np.testing.assert_allclose(backend.run(pixels(images, images)), expected, atol=1e-4)


@pytest.mark.skipif(bfloat16_unavailable_reason() is not None, reason="no bfloat16")
def test_bfloat16_is_within_its_rounding(tmp_path):
    """One convolution: pixels and weights are rounded to 8 bits, their products are added in float32."""
    builder = Builder()
    builder.conv(builder.pixels, 3, 16)
    output = builder.nodes[-1].output[0]
    model, images = builder.file(output), pixels(4).astype(np.float32) - [99.5, 120, 130]
    weights, bias = (builder.array(name) for name in builder.nodes[-1].input[1:])
    exact = convolved(images, weights) + bias
    bound = convolved(abs(images), abs(weights)) * (2.0**-7 + 2.0**-16) + 1e-4
    compiled = OneDNNNetwork(fuse(read_graph(model)), images.shape, DataType.BFLOAT16, Shared())
    compiled.input[...] = images
    compiled.run()
    error = abs(compiled.output - exact)
    assert (error <= bound).all()
    assert error.max() > 1e-3, "nothing was rounded: this is float32"


def test_int8_is_exact_integer_arithmetic(tmp_path):
    """Scales are powers of two and zero points even, so that only the rounding to whole steps is left, to even ones."""
    b = Builder()
    b.nodes.clear()
    random = np.random.default_rng(1)
    quantizations = {"first": (2.0**-2, 4), "second": (2.0**-3, 100), "third": (2.0**-1, 0)}

    def dequantized(values, scale, axis=0):
        zeros = b.constant(np.zeros_like(scale), values.dtype) if np.ndim(scale) else b.constant(0, values.dtype)
        return b.add("DequantizeLinear", b.constant(values, values.dtype), b.constant(scale), zeros, axis=axis)

    def convolution(source, source_scale, inputs, out, kernel):
        weights = random.integers(-20, 21, (out, inputs, kernel, kernel)).astype(np.int8)
        bias, scales = random.integers(-400, 400, out).astype(np.int32), 2.0 ** random.integers(-8, -5, out)
        names = dequantized(weights, scales), dequantized(bias, source_scale * scales)
        pad = kernel // 2
        tensor = b.add("Conv", source, *names, kernel_shape=[kernel] * 2, pads=[pad] * 4)
        return tensor, lambda x: (convolved(x / source_scale, weights) + bias) * source_scale * scales

    def stored(source, name):
        scale, zero_point = quantizations[name]
        ends = b.constant(scale), b.constant(zero_point, np.uint8)
        tensor = b.add("DequantizeLinear", b.add("QuantizeLinear", source, *ends), *ends)
        return tensor, lambda x: scale * (np.clip(np.rint(x / scale) + zero_point, 0, 255) - zero_point)

    ends = b.constant(1), b.constant(120, np.uint8)
    given = b.add("DequantizeLinear", b.add("Transpose", "images", perm=[0, 3, 1, 2]), *ends)
    tensor, first = convolution(given, 1.0, 3, 16, 3)
    shortcut, store_first = stored(tensor, "first")
    tensor, second = convolution(shortcut, 2.0**-2, 16, 16, 1)
    tensor, store_second = stored(tensor, "second")
    tensor, third = convolution(tensor, 2.0**-3, 16, 16, 3)
    tensor, store_third = stored(b.add("Relu", b.add("Add", tensor, shortcut)), "third")
    tensor, last = convolution(tensor, 2.0**-1, 16, 5, 1)
    images = pixels(3)
    x = store_first(first(images.astype(np.float64) - 120))
    expected = last(store_third(np.maximum(third(store_second(second(x))) + x, 0)))
    assert len(np.unique(x)) > 100
    compiled = OneDNNNetwork(fuse(read_graph(b.file(tensor))), images.shape, DataType.FLOAT32, Shared())
    compiled.input[...] = images
    compiled.run()
    np.testing.assert_allclose(compiled.output, expected, rtol=1e-6, atol=1e-6)


def convolved(images, weights):
    """The convolution of `[n, H, W, C]` with weights `[out, C, k, k]`, of the same size, in double precision."""
    kernel = weights.shape[-1]
    pad = kernel // 2
    padded = np.pad(images.astype(np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(1, 2))
    return np.einsum("nhwcij,ocij->nhwo", windows, weights.astype(np.float64))


DAMAGE = {
    "an unknown operation": lambda b: b.end("Sigmoid", b.pixels),
    "an addition to the input": lambda b: b.end("Add", b.pixels, b.pixels),
    "weights of other channels": lambda b: b.head(b.conv(b.pixels, 4, 8), 8),
    "a bias of another size": lambda b: b.end(
        "Conv", b.pixels, b.random(8, 3, 3, 3), b.random(9, scale=1), kernel_shape=[3, 3]
    ),
    "another window than its weights": lambda b: b.end("Conv", b.pixels, b.random(8, 3, 3, 3), kernel_shape=[5, 5]),
    "a window outside the image": lambda b: b.end("MaxPool", b.pixels, kernel_shape=[10**9, 3], pads=[10**9, 0, 0, 0]),
    "a step of nothing": lambda b: b.end("MaxPool", b.pixels, kernel_shape=[3, 3], strides=[0, 1]),
    "a matrix times 2": lambda b: b.end("Gemm", b.add("Flatten", b.pixels), b.random(867, 5), b.random(5), alpha=2.0),
    "a sum with what comes later": lambda b: b.head(
        b.add("Add", b.conv(b.pixels, 3, 8), b.add("MaxPool", b.random(1, 8, 17, 17), kernel_shape=[1, 1])), 8
    ),
    "classes that are pictures": lambda b: b.end("Softmax", b.conv(b.pixels, 3, 8), axis=0),
    "weights that are computed": lambda b: b.end("Conv", b.pixels, b.pixels, kernel_shape=[3, 3]),
    "more output than memory": lambda b: b.end("Conv", b.pixels, b.random(900, 3, 1, 1), kernel_shape=[1, 1]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_foreign_model_is_refused_in_one_line(damage, tmp_path, monkeypatch):
    monkeypatch.setattr(onednn_backend, "MOST_BYTES", 10**6)
    builder = Builder()
    damage(builder)
    with pytest.raises(UsageError, match=r"model.onnx: backend onednn cannot run it: .*take onnxruntime") as caught:
        backend_of(builder.file(), tmp_path)
    assert "\n" not in str(caught.value)


def test_the_time_to_fuse_grows_with_the_file(monkeypatch):
    builder, reads = Builder(), []

    class Counted(onnx_layers.Layer):
        def __getattribute__(self, name):
            reads.append(name)
            return super().__getattribute__(name)

    tensor = builder.conv(builder.pixels, 3, 8)
    for _ in range(300):
        tensor = builder.add("Relu", builder.add("MaxPool", tensor, kernel_shape=[1, 1]))
    monkeypatch.setattr(onnx_layers, "Layer", Counted)
    fuse(read_graph(builder.file(tensor)))
    assert len(reads) < 10 * 600, "each layer is compared with all earlier ones"


def test_a_batch_without_memory_ends_in_one_line(tmp_path, monkeypatch):
    builder = Builder()
    basic(builder)
    backend = backend_of(builder.file(), tmp_path)
    expected = backend.run(pixels(1))
    monkeypatch.setattr(onednn_backend, "MOST_BYTES", 10**5)
    with pytest.raises(UsageError, match=r"model.onnx: backend onednn cannot run it: a tensor of .* take onnxruntime"):
        backend.run(pixels(64))
    np.testing.assert_array_equal(backend.run(pixels(1)), expected)


def test_batch_sizes_share_their_memory():
    builder = Builder()
    bottleneck(builder)
    network, together, alone = fuse(read_graph(builder.file())), Shared(), Shared()
    for shared, batch_sizes in ((together, range(1, 17)), (alone, [16])):
        for images in batch_sizes:
            assert OneDNNNetwork(network, (images, SIZE, SIZE, 3), DataType.FLOAT32, shared).input.size
    assert len(together.memory) == len(alone.memory) > 16 * SIZE * SIZE * 3 * 4


def test_a_closed_backend_frees_its_memory_at_once(tmp_path):
    builder = Builder()
    basic(builder)
    backend = backend_of(builder.file(), tmp_path)
    built = weakref.ref(backend._build(1))
    gc.disable()
    del backend
    gc.enable()
    assert built() is None


@pytest.mark.once
@pytest.mark.slow
def test_a_damaged_file_never_fails_otherwise(tmp_path):
    builder = Builder()
    basic(builder)
    whole = builder.file()
    random = np.random.default_rng(0)
    refused = 0
    for length in random.integers(0, len(whole), 200):
        with pytest.raises(ValueError, match=r"."):
            fuse(read_graph(whole[:length]))
    for _ in range(300):
        damaged = bytearray(whole)
        for position in random.integers(0, len(whole), 3):
            damaged[position] = random.integers(256)
        try:
            backend_of(bytes(damaged), tmp_path)
        except UsageError:
            refused += 1
    assert refused > 10
