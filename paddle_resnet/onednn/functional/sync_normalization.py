"""Batch normalisation over the images of all processes that train together, images ``[N, H, W, C]``."""

from __future__ import annotations

from typing import Any

import paddle
from paddle.autograd import PyLayer

from paddle_resnet.models import sync_batch_norm as shared
from paddle_resnet.onednn.functional import elementwise_pooling, parametric, tensors
from paddle_resnet.onednn.ops.normalization import NormalizationGeometry


def sync_batch_norm(
    x: paddle.Tensor,
    weight: paddle.Tensor,
    bias: paddle.Tensor,
    running_mean: paddle.Tensor,
    running_variance: paddle.Tensor,
    *,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
    relu: bool = False,
) -> paddle.Tensor:
    """Normalise by the statistics of all processes' images, in training; the arguments are `functions.batch_norm`'s."""
    statistics = _of_all_processes(x, weight, bias, epsilon)
    for_backward = tensors.wants_gradient(x, weight, bias)
    geometry = NormalizationGeometry(tensors.image_of(x), epsilon, relu, True, for_backward)
    if for_backward:
        result = _SyncBatchNorm.apply(x, weight, bias, statistics, geometry)
    else:
        given = parametric.Statistics(statistics.mean, statistics.variance)
        result, _ = parametric.normalize(tensors.as_contiguous(x), weight, bias, given, geometry)
    parametric.update_running(running_mean, statistics.mean, momentum)
    parametric.update_running(running_variance, statistics.variance, momentum)
    return result


@paddle.no_grad()
def _of_all_processes(
    x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor, epsilon: float
) -> shared.Statistics:
    """Let oneDNN take this process's statistics, which takes it a normalisation whose result nobody needs."""
    own = parametric.Statistics(*(tensors.allocate([x.shape[-1]], "float32") for _ in range(2)))
    geometry = NormalizationGeometry(tensors.image_of(x), epsilon, False, False, False)
    parametric.normalize(tensors.as_contiguous(x), weight, bias, own, geometry)
    return shared.all_reduce_statistics(own.mean, own.variance, x.size // x.shape[-1])


class _SyncBatchNorm(PyLayer):
    """With given statistics, oneDNN leaves the two terms out by which they depend on x: they are added here.

    With g the output's gradient (behind a ReLU, where it let pass), means over all processes' values of a channel:
    ``dx = weight / deviation * (g - mean(g) - normalized * mean(g * normalized))``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: paddle.Tensor,
        weight: paddle.Tensor,
        bias: paddle.Tensor,
        statistics: shared.Statistics,
        geometry: NormalizationGeometry,
    ) -> paddle.Tensor:
        ctx.geometry, ctx.count = geometry, statistics.count
        ctx.wanted = tensors.wanted(x, weight, bias)
        x = tensors.as_contiguous(x)
        given = parametric.Statistics(statistics.mean, statistics.variance)
        result, workspace = parametric.normalize(x, weight, bias, given, geometry)
        ctx.kept = tensors.Kept(x, weight, statistics.mean, statistics.variance, workspace)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        x, weight, mean, variance, workspace = tensors.recall(ctx)
        of_x, of_weight, of_bias = parametric.gradients(gradient, ctx.geometry, x, weight, mean, variance, workspace)
        along_variance, along_mean = shared.all_reduce_gradient_means(of_weight, of_bias, ctx.count)
        # The two terms are themselves a normalisation of x with another scale and shift.
        factor = -weight / paddle.sqrt(variance + ctx.geometry.epsilon)
        plain = ctx.geometry._replace(relu=False, for_backward=False)
        given = parametric.Statistics(mean, variance)
        terms, _ = parametric.normalize(x, factor * along_variance, factor * along_mean, given, plain)
        return tensors.select(ctx.wanted, elementwise_pooling.add(of_x, terms), of_weight, of_bias)
