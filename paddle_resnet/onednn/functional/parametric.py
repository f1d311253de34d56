"""Convolution and batch normalisation of tensors on the CPU, images ``[N, H, W, C]``, gradients by oneDNN too.

Images are float32 or bfloat16, and so are results and gradients; weights, statistics and their gradients are float32.

Each function takes a direct way when no gradient is wanted, and keeps nothing then. Otherwise it is a `PyLayer`. Paddle
(2.6 and 3.3) frees what a `PyLayer` kept in its first backward pass whatever `retain_graph` says, and a second pass
over the same graph ends the process: take all gradients in one pass.
"""

from __future__ import annotations

from typing import Any

import paddle
from paddle.autograd import PyLayer

from paddle_resnet.onednn.functional import tensors
from paddle_resnet.onednn.ops.convolution import (
    ConvolutionBackwardData,
    ConvolutionBackwardWeights,
    ConvolutionForward,
    overruns_its_scratch,
)
from paddle_resnet.onednn.ops.convolution_layout import ConvolutionGeometry
from paddle_resnet.onednn.ops.geometry import Window
from paddle_resnet.onednn.ops.normalization import NormalizationBackward, NormalizationForward, NormalizationGeometry
from paddle_resnet.onednn.ops.primitives import context


def convolution(
    x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor | None, window: Window, groups: int = 1
) -> paddle.Tensor:
    """Convolve, as ``paddle.nn.functional.conv2d``.

    Args:
        x: ``[N, H, W, C]``.
        weight: ``[out, C / groups, kernel height, kernel width]``.
        bias: ``[out]``, or None.
        window: size, stride, padding and dilation; its size is the weight's.
        groups: how many groups of channels are convolved apart.

    Returns:
        ``[N, H', W', out]``.

    Raises:
        TypeError: weight or bias are not float32.
    """
    tensors.require_float32(weight, bias)
    if overruns_its_scratch(window, weight.shape[1]):
        (down, across), unit = window.stride, (1, 1)
        x, window = x[:, ::down, ::across, :], Window(unit, unit, (0, 0), (0, 0))
    geometry = ConvolutionGeometry(tensors.image_of(x), weight.shape[0], window, groups, bias is not None)
    if tensors.wants_gradient(x, weight, bias):
        return _Convolution.apply(x, weight, bias, geometry)
    return _convolve(tensors.as_contiguous(x), tensors.as_contiguous(weight), bias, geometry)


def _convolve(
    x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor | None, geometry: ConvolutionGeometry
) -> paddle.Tensor:
    result = tensors.allocate(geometry.destination.shape, x.dtype)
    addresses = () if bias is None else (bias.data_ptr(),)
    forward = context().cached(ConvolutionForward, geometry)
    forward(x.data_ptr(), weight.data_ptr(), result.data_ptr(), *addresses)
    return result


class _Convolution(PyLayer):
    @staticmethod
    def forward(
        ctx: Any, x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor | None, geometry: ConvolutionGeometry
    ) -> paddle.Tensor:
        ctx.geometry = geometry
        ctx.wanted = tensors.wanted(x, weight, bias)
        x, weight = tensors.as_contiguous(x), tensors.as_contiguous(weight)
        ctx.kept = tensors.Kept(x, weight)
        return _convolve(x, weight, bias, geometry)

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        x, weight = tensors.recall(ctx)
        gradient = tensors.as_contiguous(gradient)
        geometry: ConvolutionGeometry = ctx.geometry
        x_wanted, weight_wanted, *bias_wanted = ctx.wanted
        x_gradient = weight_gradient = bias_gradient = None
        if x_wanted:
            x_gradient = tensors.allocate(x.shape, x.dtype)
            backward_data = context().cached(ConvolutionBackwardData, geometry)
            backward_data(gradient.data_ptr(), weight.data_ptr(), x_gradient.data_ptr())
        if weight_wanted or any(bias_wanted):
            if geometry.overruns_in_bfloat16:
                x, gradient, geometry = x.astype("float32"), gradient.astype("float32"), geometry.in_float32
            weight_gradient = tensors.allocate(weight.shape, "float32")
            addresses: tuple[int, ...] = ()
            if geometry.bias:
                bias_gradient = tensors.allocate([geometry.out_channels], "float32")
                addresses = (bias_gradient.data_ptr(),)
            backward_weights = context().cached(ConvolutionBackwardWeights, geometry)
            backward_weights(x.data_ptr(), gradient.data_ptr(), weight_gradient.data_ptr(), *addresses)
        return tensors.select(ctx.wanted, x_gradient, weight_gradient, bias_gradient)


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
) -> paddle.Tensor:
    """Normalise over N, H and W, as ``paddle.nn.functional.batch_norm``, and apply a ReLU if `relu`.

    In training, the batch's statistics are used and the running ones are updated in place:
    ``running = momentum * running + (1 - momentum) * batch``, with the biased variance. Otherwise the running ones are
    used. `x` is ``[N, H, W, C]``, the others ``[C]``.

    Raises:
        TypeError: one of the others is not float32.
    """
    tensors.require_float32(weight, bias, running_mean, running_variance)
    for_backward = tensors.wants_gradient(x, weight, bias)
    geometry = NormalizationGeometry(tensors.image_of(x), epsilon, relu, not training, for_backward)
    if training:
        mean, variance = (tensors.allocate([geometry.source.channels], "float32") for _ in range(2))
    elif for_backward:
        # The running statistics may move before the backward pass, and it needs those that were used.
        mean, variance = running_mean.detach().clone(), running_variance.detach().clone()
    else:
        mean, variance = running_mean, running_variance
    # Paddle asks for a gradient of every tensor argument: the statistics, which have none, are passed within an object.
    statistics = Statistics(mean, variance)
    if for_backward:
        result = _BatchNorm.apply(x, weight, bias, statistics, geometry)
    else:
        result, _ = normalize(tensors.as_contiguous(x), weight, bias, statistics, geometry)
    if training:
        update_running(running_mean, mean, momentum)
        update_running(running_variance, variance, momentum)
    return result


class Statistics:
    """The mean and variance that a batch is normalised with, each ``[C]``."""

    def __init__(self, mean: paddle.Tensor, variance: paddle.Tensor) -> None:
        self.mean = mean
        self.variance = variance


@paddle.no_grad()
def update_running(running: paddle.Tensor, batch: paddle.Tensor, momentum: float) -> None:
    """``running = momentum * running + (1 - momentum) * batch``, in place."""
    running.scale_(momentum)
    running.add_(batch * (1.0 - momentum))


def normalize(
    x: paddle.Tensor,
    weight: paddle.Tensor,
    bias: paddle.Tensor,
    statistics: Statistics,
    geometry: NormalizationGeometry,
) -> tuple[paddle.Tensor, paddle.Tensor | None]:
    """Return the result, and the workspace if there is one."""
    forward = context().cached(NormalizationForward, geometry)
    result = tensors.allocate(x.shape, x.dtype)
    workspace = tensors.workspace(forward.workspace_size)
    forward.run(
        x.data_ptr(),
        weight.data_ptr(),
        bias.data_ptr(),
        statistics.mean.data_ptr(),
        statistics.variance.data_ptr(),
        result.data_ptr(),
        *tensors.address_of(workspace),
    )
    return result, workspace


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
        ctx.geometry = geometry
        ctx.wanted = tensors.wanted(x, weight, bias)
        x = tensors.as_contiguous(x)
        result, workspace = normalize(x, weight, bias, statistics, geometry)
        ctx.kept = tensors.Kept(x, weight, statistics.mean, statistics.variance, workspace)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        return tensors.select(ctx.wanted, *gradients(gradient, ctx.geometry, *tensors.recall(ctx)))


def gradients(
    gradient: paddle.Tensor,
    geometry: NormalizationGeometry,
    x: paddle.Tensor,
    weight: paddle.Tensor,
    mean: paddle.Tensor,
    variance: paddle.Tensor,
    workspace: paddle.Tensor | None,
) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
    """Return the gradients of `x`, weight and bias; of given statistics, as if they did not depend on `x`."""
    gradient = tensors.as_contiguous(gradient)
    x_gradient = tensors.allocate(x.shape, x.dtype)
    weight_gradient, bias_gradient = (tensors.allocate(weight.shape, "float32") for _ in range(2))
    context().cached(NormalizationBackward, geometry).run(
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
