"""Batch normalisation as the equations of its paper (Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167).

This is for reading. It computes the same as `paddle.nn.BatchNorm1D` and `BatchNorm2D`, which the networks use, as they
are one fused, faster operation.
"""

from __future__ import annotations

import paddle
from paddle import nn


class BatchNorm(nn.Layer):
    """Normalise each channel over the batch, then scale and shift it (algorithm 1).

    Input and output are ``[N, C]``, ``[N, C, L]`` or ``[N, C, H, W]``; each of the C channels has one mean and one
    variance, over all other axes. Names in the state dict are Paddle's: `weight` (gamma), `bias` (beta), `_mean` and
    `_variance`.

    In training, the batch's own statistics normalise it and update the running ones::

        running = momentum * running + (1 - momentum) * batch

    PyTorch differs in two points: its `momentum` is the weight of the batch (its 0.1 is Paddle's 0.9), and its running
    variance uses the unbiased variance of the batch (divided by m - 1), here and in Paddle the biased one (by m).

    Args:
        num_features: the channels, C.
        momentum: the weight of the old running statistics at each step.
        epsilon: added to the variance, so that a constant channel is not divided by zero.
    """

    def __init__(self, num_features: int, momentum: float = 0.9, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.momentum = momentum
        self.epsilon = epsilon
        self.weight = self.create_parameter([num_features], default_initializer=nn.initializer.Constant(1.0))
        self.bias = self.create_parameter([num_features], is_bias=True)
        self.register_buffer("_mean", paddle.zeros([num_features]))
        self.register_buffer("_variance", paddle.ones([num_features]))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Normalise `x` by its own statistics in training, by the running ones in evaluation."""
        if not self.training:
            return self._normalize(x, self._mean, self._variance)
        if x.size == self.weight.size:
            # One value a channel: its variance is 0, and the equations give the bias for any x. Paddle returns x and
            # leaves the running statistics unchanged (PyTorch refuses).
            return x
        mean, variance = batch_statistics(x)
        with paddle.no_grad():
            self._mean.set_value(self.momentum * self._mean + (1 - self.momentum) * mean)
            self._variance.set_value(self.momentum * self._variance + (1 - self.momentum) * variance)
        return self._normalize(x, mean, variance)

    def _normalize(self, x: paddle.Tensor, mean: paddle.Tensor, variance: paddle.Tensor) -> paddle.Tensor:
        normalized = (x - by_channel(mean, x)) / paddle.sqrt(by_channel(variance, x) + self.epsilon)
        return by_channel(self.weight, x) * normalized + by_channel(self.bias, x)


def batch_statistics(x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Return each channel's mean and biased variance, ``[C]`` each: the first two lines of algorithm 1."""
    axes = [axis for axis in range(x.ndim) if axis != 1]
    mean = x.mean(axes)
    variance = (x - by_channel(mean, x)).square().mean(axes)
    return mean, variance


def batch_norm_gradients(
    output_gradient: paddle.Tensor, x: paddle.Tensor, weight: paddle.Tensor, epsilon: float = 1e-5
) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
    """Return the loss's gradients with respect to `x`, weight and bias in training.

    Section 3's six equations in closed form, with g the output's gradient and means and sums over a channel::

        dx = weight / sqrt(variance + epsilon) * (g - mean(g) - normalized * mean(g * normalized))
        dweight = sum(g * normalized)
        dbias = sum(g)

    The output's mean and variance are fixed, whatever x is. So the two means remove from g its components along these
    two directions.
    """
    axes = [axis for axis in range(x.ndim) if axis != 1]
    mean, variance = batch_statistics(x)
    deviation = paddle.sqrt(by_channel(variance, x) + epsilon)
    normalized = (x - by_channel(mean, x)) / deviation
    along_mean = output_gradient.mean(axes, keepdim=True)
    along_variance = normalized * (output_gradient * normalized).mean(axes, keepdim=True)
    x_gradient = by_channel(weight, x) / deviation * (output_gradient - along_mean - along_variance)
    return x_gradient, (output_gradient * normalized).sum(axes), output_gradient.sum(axes)


def by_channel(vector: paddle.Tensor, x: paddle.Tensor) -> paddle.Tensor:
    """Give ``[C]`` the shape that broadcasts over `x`: ``[1, C, 1, ...]``."""
    return vector.reshape([1, -1] + [1] * (x.ndim - 2))
