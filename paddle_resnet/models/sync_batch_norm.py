"""Batch normalisation over the images of all ranks, on CPUs. Paddle's own `SyncBatchNorm` has kernels for GPUs only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.autograd import PyLayer

from paddle_resnet import distributed
from paddle_resnet.models.batch_norm import batch_statistics, by_channel
from paddle_resnet.paddle_compat import batch_norm_settings


def synchronize_batch_norm(network: nn.Layer, device: str) -> None:
    """Make every `BatchNorm2D` of the network, in place, normalise over the images of all ranks.

    Parameters, buffers and their names stay the same. Create the optimizer afterwards.
    """
    if device != "cpu":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return
    for layer in network.sublayers(include_self=True):
        if type(layer) is nn.BatchNorm2D:
            layer.__class__ = SyncBatchNorm


@dataclass(frozen=True)
class Statistics:
    """Mean and variance over all ranks, ``[C]`` each, and the number of values a channel.

    Not a tuple, as a `PyLayer` must return gradients for a tuple's tensors.
    """

    mean: paddle.Tensor
    variance: paddle.Tensor
    count: int


def all_reduce_statistics(mean: paddle.Tensor, variance: paddle.Tensor, count: int) -> Statistics:
    """Combine this rank's mean and biased variance ``[C]`` of `count` values with those of the others.

    Uses ``E[x^2] - E[x]^2`` in float64, where the subtraction of float32 values loses no precision.
    """
    own_mean, own_variance = (each.numpy().astype(np.float64) for each in (mean, variance))
    sums = distributed.all_reduce_sum(np.concatenate([count * own_mean, count * (own_variance + own_mean**2), [count]]))
    channels, total = len(own_mean), sums[-1]
    whole_mean = sums[:channels] / total
    whole_variance = np.maximum(sums[channels:-1] / total - whole_mean**2, 0)
    return Statistics(_float32(whole_mean), _float32(whole_variance), int(total))


def all_reduce_gradient_means(
    weight_gradient: paddle.Tensor, bias_gradient: paddle.Tensor, count: int
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Return the means over all ranks' `count` values of ``g * normalized`` and of g, from this rank's sums."""
    sums = distributed.all_reduce_sum(np.concatenate([weight_gradient.numpy(), bias_gradient.numpy()])) / count
    return _float32(sums[: weight_gradient.size]), _float32(sums[weight_gradient.size :])


def _float32(values: np.ndarray) -> paddle.Tensor:
    return paddle.to_tensor(values.astype(np.float32))


class SyncBatchNorm(nn.BatchNorm2D):
    """`BatchNorm2D` on a CPU with the statistics of all ranks' images in training."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Normalise ``[N, C, H, W]``; in training, update the running statistics."""
        momentum, epsilon, use_global_stats = batch_norm_settings(self)
        if not self.training or use_global_stats:
            return super().forward(x)
        with paddle.no_grad():
            statistics = all_reduce_statistics(*batch_statistics(x), x.size // x.shape[1])
            self._mean.set_value(momentum * self._mean + (1 - momentum) * statistics.mean)
            self._variance.set_value(momentum * self._variance + (1 - momentum) * statistics.variance)
        return _Normalization.apply(x, self.weight, self.bias, statistics, epsilon)


class _Normalization(PyLayer):
    """The gradients are those of `batch_norm_gradients`, with means over all ranks.

    Those of weight and bias are this rank's alone; like any parameter's, they are averaged later.
    """

    @staticmethod
    def forward(
        ctx: Any, x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor, statistics: Statistics, epsilon: float
    ) -> paddle.Tensor:
        deviation = paddle.sqrt(statistics.variance + epsilon)
        normalized = (x - by_channel(statistics.mean, x)) / by_channel(deviation, x)
        ctx.kept = normalized, weight.detach() / deviation, statistics.count
        ctx.wanted = [not each.stop_gradient for each in (x, weight, bias)]
        return by_channel(weight, x) * normalized + by_channel(bias, x)

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        normalized, scale, count = ctx.kept
        weight_gradient, bias_gradient = (gradient * normalized).sum([0, 2, 3]), gradient.sum([0, 2, 3])
        along_variance, along_mean = (
            by_channel(each, gradient) for each in all_reduce_gradient_means(weight_gradient, bias_gradient, count)
        )
        x_gradient = by_channel(scale, gradient) * (gradient - along_mean - normalized * along_variance)
        gradients = (x_gradient, weight_gradient, bias_gradient)
        return tuple(each if wanted else None for each, wanted in zip(gradients, ctx.wanted, strict=True))
