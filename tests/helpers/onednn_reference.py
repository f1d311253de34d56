"""Float64 numpy definitions of the operations and their gradients, images ``[N, H, W, C]``."""

from __future__ import annotations

import numpy as np


def _places(length, size, stride, before, after, dilation):
    return (length + before + after - dilation * (size - 1) - 1) // stride + 1


class Windows:
    """An image seen through a moving window: one view of it for each place within the window."""

    def __init__(self, x, window, fill=0.0):
        self.window = window
        (top, left), (bottom, right) = window.padding_before, window.padding_after
        self.padding = ((0, 0), (top, bottom), (left, right), (0, 0))
        self.padded = np.pad(x.astype(np.float64), self.padding, constant_values=fill)
        self.rows = _places(x.shape[1], window.size[0], window.stride[0], top, bottom, window.dilation[0])
        self.columns = _places(x.shape[2], window.size[1], window.stride[1], left, right, window.dilation[1])

    def index(self, i, j):
        """Where the element (i, j) of every window lies in the padded image."""
        (down, across), (row, column) = self.window.stride, self.window.dilation
        rows = slice(i * row, i * row + (self.rows - 1) * down + 1, down)
        columns = slice(j * column, j * column + (self.columns - 1) * across + 1, across)
        return np.s_[:, rows, columns, :]

    def crop(self, padded):
        """Take the padding off."""
        _, (top, bottom), (left, right), _ = self.padding
        return padded[:, top : padded.shape[1] - bottom, left : padded.shape[2] - right]


def convolution(x, weight, bias, window, groups, gradient):
    """Return the result, and the gradients of x, weight and bias for the result's gradient ``gradient(shape)``."""
    windows = Windows(x, window)
    weight = weight.astype(np.float64)
    out_channels, inputs = weight.shape[:2]
    outputs = out_channels // groups
    result = np.zeros((x.shape[0], windows.rows, windows.columns, out_channels)) + (0 if bias is None else bias)
    result_gradient = gradient(result.shape).astype(np.float64)
    x_gradient, weight_gradient = np.zeros_like(windows.padded), np.zeros_like(weight)
    for i, j in np.ndindex(*weight.shape[2:]):
        seen, x_part = windows.padded[windows.index(i, j)], x_gradient[windows.index(i, j)]
        for group in range(groups):
            source = np.s_[..., group * inputs : (group + 1) * inputs]
            destination = slice(group * outputs, (group + 1) * outputs)
            kernel = weight[destination, :, i, j]
            result[..., destination] += seen[source] @ kernel.T
            x_part[source] += result_gradient[..., destination] @ kernel
            weight_gradient[destination, :, i, j] = np.einsum(
                "nhwo,nhwi->oi", result_gradient[..., destination], seen[source]
            )
    return result, (windows.crop(x_gradient), weight_gradient, result_gradient.sum((0, 1, 2)))


def batch_norm(x, weight, bias, statistics, epsilon, relu, gradient):
    """The same for batch normalisation of x, weight and bias; `statistics` is None to use the batch's own."""
    x = x.astype(np.float64)
    axes = (0, 1, 2)
    mean, variance = (x.mean(axes), x.var(axes)) if statistics is None else statistics
    deviation = np.sqrt(variance + epsilon)
    normal = (x - mean) / deviation
    result = normal * weight + bias
    result_gradient = gradient(result.shape).astype(np.float64)
    if relu:
        result_gradient = result_gradient * (result > 0)
        result = np.maximum(result, 0)
    bias_gradient, weight_gradient = result_gradient.sum(axes), (result_gradient * normal).sum(axes)
    x_gradient = result_gradient
    if statistics is None:
        count = x.size // x.shape[-1]
        x_gradient = x_gradient - (bias_gradient + normal * weight_gradient) / count
    return result, (x_gradient * weight / deviation, weight_gradient, bias_gradient)


def max_pool(x, window, gradient):
    """The same for max-pooling; the first of equal maxima takes the gradient."""
    windows = Windows(x, window, fill=-np.inf)
    places = list(np.ndindex(*window.size))
    seen = np.stack([windows.padded[windows.index(i, j)] for i, j in places])
    winner = seen.argmax(0)
    result = seen.max(0)
    result_gradient = gradient(result.shape)
    x_gradient = np.zeros_like(windows.padded)
    for number, (i, j) in enumerate(places):
        x_gradient[windows.index(i, j)] += result_gradient * (winner == number)
    return result, (windows.crop(x_gradient),)
