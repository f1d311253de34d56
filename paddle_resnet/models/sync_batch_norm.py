"""Batch normalisation over the images of all processes that train together.

Paddle's own `SyncBatchNorm` has kernels for GPUs alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.autograd import PyLayer

from paddle_resnet import distributed
from paddle_resnet.models.batch_norm import batch_statistics
from paddle_resnet.paddle_compat import batch_norm_settings


def synchronize_batch_norm(network: nn.Layer, device: str) -> None:
    """Let every `BatchNorm2D` of the network, in place, normalise over the images of all processes.

    Parameters, buffers and their names stay; make the optimizer afterwards.
    """
    if device != "cpu":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return
    for layer in network.sublayers(include_self=True):
        if type(layer) is nn.BatchNorm2D:
            layer.__class__ = SyncBatchNorm


@dataclass(frozen=True)
class Statistics:
    """What all processes together normalise with: ``[C]`` each, and how many values a channel has.

    No tuple: of a tuple's tensors, a `PyLayer` would have to give gradients.
    """

    mean: paddle.Tensor
    variance: paddle.Tensor
    count: int


def shared_statistics(mean: paddle.Tensor, variance: paddle.Tensor, count: int) -> Statistics:
    """Put this process's mean and biased variance ``[C]`` of `count` values together with the others'.

    ``E[x^2] - E[x]^2`` in float64, in which the difference of what float32 holds loses nothing.
    """
    own_mean, own_variance = (each.numpy().astype(np.float64) for each in (mean, variance))
    sums = distributed.all_reduce_sum(np.concatenate([count * own_mean, count * (own_variance + own_mean**2), [count]]))
    channels, everything = len(own_mean), sums[-1]
    whole_mean = sums[:channels] / everything
    whole_variance = np.maximum(sums[channels:-1] / everything - whole_mean**2, 0)
    return Statistics(_float32(whole_mean), _float32(whole_variance), int(everything))


def gradient_means(
    weight_gradient: paddle.Tensor, bias_gradient: paddle.Tensor, count: int
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Return the means over all processes' `count` values of ``g * normalized`` and of g, from this one's sums."""
    sums = distributed.all_reduce_sum(np.concatenate([weight_gradient.numpy(), bias_gradient.numpy()])) / count
    return _float32(sums[: weight_gradient.size]), _float32(sums[weight_gradient.size :])


def _float32(values: np.ndarray) -> paddle.Tensor:
    return paddle.to_tensor(values.astype(np.float32))


class SyncBatchNorm(nn.BatchNorm2D):
    """`BatchNorm2D` on a CPU, of which the batch is that of all processes; in evaluation there is no difference."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Normalise ``[N, C, H, W]``; in training, update the running statistics."""
        momentum, epsilon, use_global_stats = batch_norm_settings(self)
        if not self.training or use_global_stats:
            return super().forward(x)
        with paddle.no_grad():
            statistics = shared_statistics(*batch_statistics(x), x.size // x.shape[1])
            self._mean.set_value(momentum * self._mean + (1 - momentum) * statistics.mean)
            self._variance.set_value(momentum * self._variance + (1 - momentum) * statistics.variance)
        return _Normalization.apply(x, self.weight, self.bias, statistics, epsilon)


class _Normalization(PyLayer):
    """The gradients are `batch_norm_gradients`, of which the means are over all processes.

    Those of weight and bias are this process's part: like any parameter's, they are averaged later.
    """

    @staticmethod
    def forward(
        ctx: Any, x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor, statistics: Statistics, epsilon: float
    ) -> paddle.Tensor:
        deviation = paddle.sqrt(statistics.variance + epsilon)
        normalized = (x - _by_channel(statistics.mean)) / _by_channel(deviation)
        ctx.kept = normalized, weight.detach() / deviation, statistics.count
        ctx.wanted = [not each.stop_gradient for each in (x, weight, bias)]
        return _by_channel(weight) * normalized + _by_channel(bias)

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        normalized, scale, count = ctx.kept
        weight_gradient, bias_gradient = (gradient * normalized).sum([0, 2, 3]), gradient.sum([0, 2, 3])
        along_variance, along_mean = (
            _by_channel(each) for each in gradient_means(weight_gradient, bias_gradient, count)
        )
        x_gradient = _by_channel(scale) * (gradient - along_mean - normalized * along_variance)
        gradients = (x_gradient, weight_gradient, bias_gradient)
        return tuple(each if wanted else None for each, wanted in zip(gradients, ctx.wanted, strict=True))


def _by_channel(vector: paddle.Tensor) -> paddle.Tensor:
    return vector.reshape([1, -1, 1, 1])
