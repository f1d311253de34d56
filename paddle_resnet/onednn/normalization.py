"""Batch normalisation, with or without a ReLU: the function and its gradient, and their oneDNN primitives."""

from __future__ import annotations

from typing import Any, NamedTuple

import paddle
from paddle.autograd import PyLayer

from paddle_resnet.models.sync_batch_norm import Statistics, all_reduce_gradient_means, all_reduce_statistics
from paddle_resnet.onednn import tensors
from paddle_resnet.onednn.bindings import Argument, Normalization, Propagation
from paddle_resnet.onednn.geometry import Image
from paddle_resnet.onednn.primitives import Context, Handle, Primitive, channels_last, contiguous, thread_context
from paddle_resnet.onednn.residual import add


class NormalizationGeometry(NamedTuple):
    """A batch normalisation over N, H and W."""

    source: Image
    epsilon: float
    relu: bool
    given_statistics: bool
    """Mean and variance are given (evaluation) instead of computed from the batch."""
    for_backward: bool
    """A backward pass will follow; a fused ReLU then leaves its mask in a workspace."""

    @property
    def flags(self) -> int:
        flags = Normalization.USE_SCALE | Normalization.USE_SHIFT
        if self.relu:
            flags |= Normalization.FUSE_RELU
        if self.given_statistics:
            flags |= Normalization.USE_GLOBAL_STATISTICS
        return int(flags)


IMAGES = (Argument.SOURCE, Argument.DESTINATION, Argument.DIFF_SOURCE, Argument.DIFF_DESTINATION)
"""The arguments that are images; all others are vectors with a number for each channel."""


def normalization_forward(context: Context, geometry: NormalizationGeometry) -> Primitive:
    """``destination = (source - mean) / sqrt(variance + epsilon) * scale + shift``, then the ReLU.

    Arguments: source, scale, shift, mean, variance, destination, workspace if any.
    """
    return _primitive(
        context,
        _describe_normalization(context, geometry),
        geometry,
        *(Argument.SOURCE, Argument.SCALE, Argument.SHIFT, Argument.MEAN, Argument.VARIANCE, Argument.DESTINATION),
    )


def normalization_backward(context: Context, geometry: NormalizationGeometry) -> Primitive:
    """The gradients of source, scale and shift.

    Arguments: source, scale, mean, variance, gradients of destination, source, scale, shift, workspace if any.
    """
    image = channels_last(geometry.source)
    description = context.describe(
        "batch_normalization_backward",
        *(Propagation.BACKWARD, image, image, image, geometry.epsilon, geometry.flags),
        _describe_normalization(context, geometry),
    )
    return _primitive(
        context,
        description,
        geometry,
        *(Argument.SOURCE, Argument.SCALE, Argument.MEAN, Argument.VARIANCE),
        *(Argument.DIFF_DESTINATION, Argument.DIFF_SOURCE, Argument.DIFF_SCALE, Argument.DIFF_SHIFT),
    )


def _primitive(context: Context, description: Handle, geometry: NormalizationGeometry, *roles: Argument) -> Primitive:
    image, channels = channels_last(geometry.source), contiguous(geometry.source.channels)
    return Primitive(context, description, [(role, image if role in IMAGES else channels) for role in roles])


def _describe_normalization(context: Context, geometry: NormalizationGeometry) -> Handle:
    image = channels_last(geometry.source)
    # With FORWARD_INFERENCE and statistics of the batch, oneDNN would not write the statistics.
    inference = geometry.given_statistics and not geometry.for_backward
    propagation = Propagation.FORWARD_INFERENCE if inference else Propagation.FORWARD_TRAINING
    arguments = propagation, image, image, geometry.epsilon, geometry.flags
    return context.describe("batch_normalization_forward", *arguments)


def batch_norm(
    x: paddle.Tensor,
    weight: paddle.Tensor,
    bias: paddle.Tensor,
    running_mean: paddle.Tensor,
    running_variance: paddle.Tensor,
    *,
    training: bool,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
    relu: bool = False,
    synchronized: bool = False,
) -> paddle.Tensor:
    """Normalise over N, H and W, as ``paddle.nn.functional.batch_norm``, and apply a ReLU if `relu`.

    In training, the batch's statistics are used and the running ones are updated in place:
    ``running = momentum * running + (1 - momentum) * batch``, with the biased variance. Otherwise the running ones are
    used. `x` is ``[N, H, W, C]``, the others ``[C]``. If `synchronized` (in training), all processes' batches are one.

    Raises:
        TypeError: one of the others is not float32.
    """
    tensors.require_float32(weight, bias, running_mean, running_variance)
    for_backward = tensors.wants_gradient(x, weight, bias)
    given = synchronized or not training
    geometry = NormalizationGeometry(tensors.image_of(x), epsilon, relu, given, for_backward)
    if synchronized:
        statistics = _statistics_of_all_processes(x, weight, bias, epsilon)
    elif training:
        statistics = _empty_statistics(x)
    elif for_backward:
        # The running statistics may change before the backward pass, which needs those that were used.
        statistics = Statistics(running_mean.detach().clone(), running_variance.detach().clone(), 0)
    else:
        statistics = Statistics(running_mean, running_variance, 0)
    if for_backward:
        result = (_SyncBatchNorm if synchronized else _BatchNorm).apply(x, weight, bias, statistics, geometry)
    else:
        result, _ = _normalize(tensors.as_contiguous(x), weight, bias, statistics, geometry)
    if training:
        _update_running(running_mean, statistics.mean, momentum)
        _update_running(running_variance, statistics.variance, momentum)
    return result


def _empty_statistics(x: paddle.Tensor) -> Statistics:
    mean, variance = (tensors.allocate([x.shape[-1]], "float32") for _ in range(2))
    return Statistics(mean, variance, x.size // x.shape[-1])


@paddle.no_grad()
def _statistics_of_all_processes(
    x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor, epsilon: float
) -> Statistics:
    """Compute this process's statistics, by a normalisation whose result is dropped, and combine them."""
    own = _empty_statistics(x)
    geometry = NormalizationGeometry(tensors.image_of(x), epsilon, False, False, False)
    _normalize(tensors.as_contiguous(x), weight, bias, own, geometry)
    return all_reduce_statistics(own.mean, own.variance, own.count)


@paddle.no_grad()
def _update_running(running: paddle.Tensor, batch: paddle.Tensor, momentum: float) -> None:
    """``running = momentum * running + (1 - momentum) * batch``, in place."""
    running.scale_(momentum)
    running.add_(batch * (1.0 - momentum))


def _normalize(
    x: paddle.Tensor,
    weight: paddle.Tensor,
    bias: paddle.Tensor,
    statistics: Statistics,
    geometry: NormalizationGeometry,
) -> tuple[paddle.Tensor, paddle.Tensor | None]:
    """Return the result, and the workspace if there is one."""
    forward = thread_context().cached(normalization_forward, geometry)
    result = tensors.allocate(x.shape, x.dtype)
    workspace = tensors.workspace(forward.workspace_size)
    forward(
        x.data_ptr(),
        weight.data_ptr(),
        bias.data_ptr(),
        statistics.mean.data_ptr(),
        statistics.variance.data_ptr(),
        result.data_ptr(),
        *tensors.address_of(workspace),
    )
    return result, workspace


def _gradients(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
    """Return the gradients of x, weight and bias; of given statistics, as if they did not depend on x."""
    x, weight, mean, variance, workspace = tensors.recall(ctx)
    gradient = tensors.as_contiguous(gradient)
    x_gradient = tensors.allocate(x.shape, x.dtype)
    weight_gradient, bias_gradient = (tensors.allocate(weight.shape, "float32") for _ in range(2))
    thread_context().cached(normalization_backward, ctx.geometry)(
        x.data_ptr(),
        weight.data_ptr(),
        mean.data_ptr(),
        variance.data_ptr(),
        gradient.data_ptr(),
        x_gradient.data_ptr(),
        weight_gradient.data_ptr(),
        bias_gradient.data_ptr(),
        *tensors.address_of(workspace),
    )
    return x_gradient, weight_gradient, bias_gradient


class _BatchNorm(PyLayer):
    @staticmethod
    def forward(
        ctx: Any,
        x: paddle.Tensor,
        weight: paddle.Tensor,
        bias: paddle.Tensor,
        statistics: Statistics,
        geometry: NormalizationGeometry,
    ) -> paddle.Tensor:
        ctx.geometry, ctx.count = geometry, statistics.count
        ctx.wanted = tensors.wanted(x, weight, bias)
        x = tensors.as_contiguous(x)
        result, workspace = _normalize(x, weight, bias, statistics, geometry)
        ctx.kept = tensors.Kept(x, weight, statistics.mean, statistics.variance, workspace)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        return tensors.select(ctx.wanted, *_gradients(ctx, gradient))


class _SyncBatchNorm(_BatchNorm):
    """With given statistics, oneDNN leaves out the two terms by which they depend on x: they are added here.

    With g the output's gradient (after a ReLU, where it was active) and means over all values of a channel:
    ``dx = weight / deviation * (g - mean(g) - normalized * mean(g * normalized))``.
    """

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        x_gradient, weight_gradient, bias_gradient = _gradients(ctx, gradient)
        x, weight, mean, variance, _ = tensors.recall(ctx)
        along_variance, along_mean = all_reduce_gradient_means(weight_gradient, bias_gradient, ctx.count)
        # The two terms are themselves a normalisation of x with another scale and shift.
        factor = -weight / paddle.sqrt(variance + ctx.geometry.epsilon)
        without_relu = ctx.geometry._replace(relu=False, for_backward=False)
        statistics = Statistics(mean, variance, ctx.count)
        terms, _ = _normalize(x, factor * along_variance, factor * along_mean, statistics, without_relu)
        return tensors.select(ctx.wanted, add(x_gradient, terms), weight_gradient, bias_gradient)
