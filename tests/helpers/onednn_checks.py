"""What the tests of oneDNN's operations share: poisoned memory, gradients of one choice, closeness."""

from __future__ import annotations

import ctypes

import numpy as np
import paddle

from paddle_resnet.onednn import primitives, tensors

TOLERANCE = 2e-6
"""Largest error allowed, as a fraction of the largest value."""

NCHW, NHWC = [0, 3, 1, 2], [0, 2, 3, 1]


def poison_memory(monkeypatch):
    """Fill what oneDNN shall write, and what it works in, with NaN first: an element left out shows."""
    scratch_address = primitives.Scratch.address

    def poisoned_tensor(shape, dtype):
        return paddle.full(shape, 255 if dtype == paddle.uint8 else float("nan"), dtype)

    def poisoned_address(scratch, use, size):
        address = scratch_address(scratch, use, size)
        ctypes.memset(address, 0xFF, size)
        return address

    monkeypatch.setattr(tensors, "empty_on_cpu", poisoned_tensor)
    monkeypatch.setattr(primitives.Scratch, "address", poisoned_address)


def random_gradient(seed=99):
    """A function that gives one gradient for each shape, the same each time."""
    return lambda shape: np.random.default_rng(seed).normal(size=tuple(shape)).astype(np.float32)


def inputs_of(*arrays):
    """Tensors whose gradient is wanted; None left out."""
    return [paddle.to_tensor(array, stop_gradient=False) for array in arrays if array is not None]


def gradients(result, inputs, seed=99):
    """The inputs' gradients for the result's gradient of `random_gradient`."""
    found = paddle.grad(result, inputs, paddle.to_tensor(random_gradient(seed)(result.shape)))
    return [gradient.numpy() for gradient in found]


def assert_near(found, expected, tolerance=TOLERANCE):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    largest = max(np.abs(expected).max(initial=0.0), 1e-3)
    assert np.abs(found - expected).max(initial=0.0) <= tolerance * largest


def assert_all_near(found, expected, tolerance=TOLERANCE):
    for one, other in zip(found, expected, strict=True):
        assert_near(one, other, tolerance)
