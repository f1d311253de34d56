"""Batch normalisation, with or without a ReLU: the function and its gradient, and their oneDNN primitives."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from ctypes import c_float
from typing import Any, NamedTuple

import numpy as np
import paddle
from paddle.autograd import PyLayer

from paddle_resnet.models.sync_batch_norm import Statistics, all_reduce_gradient_means, all_reduce_statistics
from paddle_resnet.onednn import tensors
from paddle_resnet.onednn.bindings import Argument, DataType, Normalization, Propagation
from paddle_resnet.onednn.geometry import CACHED, WIDEST_VECTOR, Image
from paddle_resnet.onednn.primitives import Context, Handle, Primitive, channels_last, contiguous, thread_context
from paddle_resnet.onednn.residual import add
from paddle_resnet.onednn.tracing import NotTraceableError, active_trace


class NormalizationGeometry(NamedTuple):
    """A batch normalisation over N, H and W."""

    source: Image
    epsilon: float
    relu: bool
    given_statistics: bool  # mean and variance are given (evaluation) instead of computed from the batch
    for_backward: bool  # a backward pass will follow; a fused ReLU then leaves its mask in a workspace

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
    if weight.shape[0] != x.shape[-1]:
        raise ValueError(f"a normalisation of {weight.shape[0]} channels on {x.shape[-1]}")
    if active_trace() is not None and (synchronized or not training):
        raise NotTraceableError("a normalisation uses statistics of other processes or of before")
    for_backward = tensors.wants_gradient(x, weight, bias)
    source = _with_whole_vectors(tensors.image_of(x))
    combined = training and (synchronized or source.channels > x.shape[-1])
    geometry = NormalizationGeometry(source, epsilon, relu, combined or not training, for_backward)
    if combined:
        statistics = _combined_statistics(x, weight, bias, geometry, synchronized)
    elif training:
        statistics = _empty_statistics(source)
    elif for_backward:
        # The running statistics may change before the backward pass, which needs those that were used.
        statistics = Statistics(running_mean.detach().clone(), running_variance.detach().clone(), 0)
    else:
        statistics = Statistics(running_mean, running_variance, 0)
    function = _CombinedBatchNorm if combined else _BatchNorm
    result = tensors.apply(function, x, weight, bias, statistics, geometry, synchronized)
    if training:
        lengths = [running_mean.shape[0]] * 2
        update = VectorOperation(update_running, *lengths, momentum=momentum)
        tensors.execute(update, running_mean, statistics.mean)
        tensors.execute(update, running_variance, statistics.variance)
    return result


@functools.lru_cache(CACHED)
def _with_whole_vectors(source: Image) -> Image:
    """Return the same bfloat16 memory with as many pixels taken for one as fill whole vectors with their channels.

    oneDNN 3.6.2 has no fast normalisation otherwise: that of 24 channels took 13 times as long. In float32 it is
    as fast as the two passes that this takes.
    """
    pixels = WIDEST_VECTOR // math.gcd(source.channels, WIDEST_VECTOR)
    if source.data_type != DataType.BFLOAT16 or source.batch % pixels:
        return source
    return source._replace(batch=source.batch // pixels, channels=source.channels * pixels)


def _empty_statistics(source: Image) -> Statistics:
    mean, variance = (tensors.allocate([source.channels], paddle.float32) for _ in range(2))
    return Statistics(mean, variance, source.batch * source.height * source.width)


@paddle.no_grad()
def _combined_statistics(
    x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor, geometry: NormalizationGeometry, synchronized: bool
) -> Statistics:
    """Compute the statistics, by a normalisation whose result is dropped, and combine pixels and processes."""
    own = _empty_statistics(geometry.source)
    geometry = geometry._replace(relu=False, given_statistics=False, for_backward=False)
    _normalize(tensors.as_contiguous(x), weight, bias, own, geometry)
    channels, whole = x.shape[-1], geometry.source.channels
    pooled = own
    if whole > channels:
        mean, variance = (tensors.allocate([channels], paddle.float32) for _ in range(2))
        pooled = Statistics(mean, variance, own.count * (whole // channels))
        pool = VectorOperation(pool_statistics, channels, channels, whole, whole)
        tensors.execute(pool, mean, variance, own.mean, own.variance)
    return all_reduce_statistics(pooled.mean, pooled.variance, pooled.count) if synchronized else pooled


def _normalize(
    x: paddle.Tensor,
    weight: paddle.Tensor,
    bias: paddle.Tensor,
    statistics: Statistics,
    geometry: NormalizationGeometry,
) -> tuple[paddle.Tensor, paddle.Tensor | None]:
    """Return the result, and the workspace if there is one."""
    scale_to_variance = _tiled(geometry, weight, bias, statistics.mean, statistics.variance)
    forward = thread_context().cached(normalization_forward, geometry)
    result = tensors.allocate(x.shape, x.dtype)
    workspace = tensors.workspace(forward.workspace_size)
    tensors.execute(forward, x, *scale_to_variance, result, workspace)
    return result, workspace


def _tiled(geometry: NormalizationGeometry, *given: paddle.Tensor) -> list[paddle.Tensor]:
    """Repeat vectors with a number for each channel for all pixels that are taken for one."""
    channels = geometry.source.channels
    return [each if each.shape[0] == channels else _resized(tile, each, channels) for each in given]


def _resized(function: Callable[..., None], vector: paddle.Tensor, length: int) -> paddle.Tensor:
    result = tensors.allocate([length], paddle.float32)
    tensors.execute(VectorOperation(function, length, vector.shape[0]), result, vector)
    return result


def _gradients(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
    """Return the gradients of x, weight and bias; of given statistics, as if they did not depend on x."""
    x, weight, mean, variance, workspace = tensors.recall(ctx)
    gradient = tensors.as_contiguous(gradient)
    x_gradient = tensors.allocate(x.shape, x.dtype)
    scale_to_variance = _tiled(ctx.geometry, weight, mean, variance)
    parameter_gradients = [tensors.allocate([ctx.geometry.source.channels], paddle.float32) for _ in range(2)]
    backward = thread_context().cached(normalization_backward, ctx.geometry)
    tensors.execute(backward, x, *scale_to_variance, gradient, x_gradient, *parameter_gradients, workspace)
    (channels,) = weight.shape
    if channels < ctx.geometry.source.channels:
        parameter_gradients = [_resized(add_parts, each, channels) for each in parameter_gradients]
    return x_gradient, *parameter_gradients


class _BatchNorm(PyLayer):
    @staticmethod
    def forward(
        ctx: Any,
        x: paddle.Tensor,
        weight: paddle.Tensor,
        bias: paddle.Tensor,
        statistics: Statistics,
        geometry: NormalizationGeometry,
        synchronized: bool,
    ) -> paddle.Tensor:
        ctx.geometry, ctx.count, ctx.synchronized = geometry, statistics.count, synchronized
        ctx.wanted = tensors.wanted(x, weight, bias)
        x = tensors.as_contiguous(x)
        result, workspace = _normalize(x, weight, bias, statistics, geometry)
        ctx.kept = tensors.Kept(x, weight, statistics.mean, statistics.variance, workspace)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        return tensors.select(ctx.wanted, *_gradients(ctx, gradient))


class _CombinedBatchNorm(_BatchNorm):
    """With given statistics, oneDNN leaves out the two terms by which they depend on x: they are added here.

    With g the output's gradient (after a ReLU, where it was active) and means over all values of a channel:
    ``dx = weight / deviation * (g - mean(g) - normalized * mean(g * normalized))``.
    """

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        x_gradient, weight_gradient, bias_gradient = _gradients(ctx, gradient)
        x, weight, mean, variance, _ = tensors.recall(ctx)
        sums, count = (weight_gradient, bias_gradient), ctx.count
        if ctx.synchronized:
            sums, count = all_reduce_gradient_means(*sums, count), 1  # means
        if not ctx.wanted[0]:
            return tensors.select(ctx.wanted, None, weight_gradient, bias_gradient)
        # The two terms are themselves a normalisation of x with another scale and shift.
        scale, shift = (tensors.allocate(weight.shape, paddle.float32) for _ in range(2))
        options = {"epsilon": ctx.geometry.epsilon, "count": count}
        find_terms = VectorOperation(statistics_terms, *weight.shape * 6, **options)
        tensors.execute(find_terms, scale, shift, weight, variance, *sums)
        without_relu = ctx.geometry._replace(relu=False, for_backward=False)
        terms, _ = _normalize(x, scale, shift, Statistics(mean, variance, ctx.count), without_relu)
        return tensors.select(ctx.wanted, add(x_gradient, terms), weight_gradient, bias_gradient)


class VectorOperation:
    """A numpy function of float32 vectors, one number for each channel, called with addresses as a primitive is."""

    def __init__(self, function: Callable[..., None], *lengths: int, **options: float) -> None:
        """`lengths` are those of the vectors; `options` are passed to `function`."""
        self._function, self._options = function, options
        self._kinds: list[Any] = [c_float * length for length in lengths]

    def __call__(self, *addresses: int) -> None:
        kinds = zip(self._kinds, addresses, strict=True)
        vectors = [np.frombuffer(kind.from_address(address), np.float32) for kind, address in kinds]
        with np.errstate(all="ignore"):  # a diverged training is reported by its loss
            self._function(*vectors, **self._options)


def update_running(running: np.ndarray, batch: np.ndarray, momentum: float) -> None:
    """``running = momentum * running + (1 - momentum) * batch``."""
    running *= momentum
    running += batch * (1.0 - momentum)


def tile(result: np.ndarray, vector: np.ndarray) -> None:
    """Repeat a vector until the result is full."""
    result.reshape(-1, len(vector))[:] = vector


def add_parts(result: np.ndarray, parts: np.ndarray) -> None:
    """Add up parts of the result's length."""
    parts.reshape(-1, len(result)).sum(0, out=result)


def pool_statistics(mean: np.ndarray, variance: np.ndarray, means: np.ndarray, variances: np.ndarray) -> None:
    """Mean and variance of all values, from those of parts of equal size."""
    means.reshape(-1, len(mean)).mean(0, out=mean)
    variances.reshape(-1, len(mean)).mean(0, out=variance)
    variance += np.square(means.reshape(-1, len(mean)) - mean).mean(0)


def statistics_terms(
    scale: np.ndarray,
    shift: np.ndarray,
    weight: np.ndarray,
    variance: np.ndarray,
    along_variance: np.ndarray,
    along_mean: np.ndarray,
    epsilon: float,
    count: float,
) -> None:
    """Scale and shift of the normalisation that gives the two terms of a gradient.

    `along_variance` and `along_mean` are sums over `count` values.
    """
    factor = -weight / np.sqrt(variance + np.float32(epsilon))
    np.multiply(factor, along_variance / np.float32(count), out=scale)
    np.multiply(factor, along_mean / np.float32(count), out=shift)
