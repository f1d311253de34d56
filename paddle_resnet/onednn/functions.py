"""The layers' arithmetic on tensors: float32 on the CPU, images ``[N, H, W, C]``, gradients by oneDNN too.

Each function takes a direct way when no gradient is wanted, and keeps nothing then. Otherwise it is a `PyLayer`. Paddle
(2.6 and 3.3) frees what a `PyLayer` kept in its first backward pass whatever `retain_graph` says, and a second pass
over the same graph ends the process: take all gradients in one pass.
"""

from __future__ import annotations

from typing import Any

import paddle
from paddle.autograd import PyLayer

from paddle_resnet.onednn.autograd import Kept, as_contiguous, recall, select, wanted, wants_gradient
from paddle_resnet.onednn.bindings import Algorithm
from paddle_resnet.onednn.convolution import (
    ConvolutionBackwardData,
    ConvolutionBackwardWeights,
    ConvolutionForward,
    ConvolutionGeometry,
)
from paddle_resnet.onednn.elementwise import Rows, add_relu_forward, relu_backward
from paddle_resnet.onednn.geometry import Image, Window
from paddle_resnet.onednn.normalization import NormalizationBackward, NormalizationForward, NormalizationGeometry
from paddle_resnet.onednn.pooling import PoolingBackward, PoolingForward, PoolingGeometry
from paddle_resnet.onednn.primitives import context

allocate = paddle.empty
"""Makes the tensors that oneDNN writes; tests replace it to prove that every element is written."""


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
    """
    geometry = ConvolutionGeometry(_image(x), weight.shape[0], window, groups, bias is not None)
    if wants_gradient(x, weight, bias):
        return _Convolution.apply(x, weight, bias, geometry)
    return _convolve(as_contiguous(x), as_contiguous(weight), bias, geometry)


def _convolve(
    x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor | None, geometry: ConvolutionGeometry
) -> paddle.Tensor:
    result = allocate(geometry.destination.shape, "float32")
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
        ctx.wanted = wanted(x, weight, bias)
        x, weight = as_contiguous(x), as_contiguous(weight)
        ctx.kept = Kept(x, weight)
        return _convolve(x, weight, bias, geometry)

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        x, weight = recall(ctx)
        gradient = as_contiguous(gradient)
        geometry: ConvolutionGeometry = ctx.geometry
        x_wanted, weight_wanted, *bias_wanted = ctx.wanted
        x_gradient = weight_gradient = bias_gradient = None
        if x_wanted:
            x_gradient = allocate(x.shape, "float32")
            backward_data = context().cached(ConvolutionBackwardData, geometry)
            backward_data(gradient.data_ptr(), weight.data_ptr(), x_gradient.data_ptr())
        if weight_wanted or any(bias_wanted):
            weight_gradient = allocate(weight.shape, "float32")
            addresses: tuple[int, ...] = ()
            if geometry.bias:
                bias_gradient = allocate([geometry.out_channels], "float32")
                addresses = (bias_gradient.data_ptr(),)
            backward_weights = context().cached(ConvolutionBackwardWeights, geometry)
            backward_weights(x.data_ptr(), gradient.data_ptr(), weight_gradient.data_ptr(), *addresses)
        return select(ctx.wanted, x_gradient, weight_gradient, bias_gradient)


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
    """
    for_backward = wants_gradient(x, weight, bias)
    geometry = NormalizationGeometry(_image(x), epsilon, relu, not training, for_backward)
    if training:
        mean, variance = (allocate([geometry.source.channels], "float32") for _ in range(2))
    elif for_backward:
        # The running statistics may move before the backward pass, and it needs those that were used.
        mean, variance = running_mean.detach().clone(), running_variance.detach().clone()
    else:
        mean, variance = running_mean, running_variance
    # Paddle asks for a gradient of every tensor argument: the statistics, which have none, are passed within an object.
    statistics = _Statistics(mean, variance)
    if for_backward:
        result = _BatchNorm.apply(x, weight, bias, statistics, geometry)
    else:
        result, _ = _normalize(as_contiguous(x), weight, bias, statistics, geometry)
    if training:
        _update(running_mean, mean, momentum)
        _update(running_variance, variance, momentum)
    return result


class _Statistics:
    """The mean and variance that a batch is normalised with, each ``[C]``."""

    def __init__(self, mean: paddle.Tensor, variance: paddle.Tensor) -> None:
        self.mean = mean
        self.variance = variance


@paddle.no_grad()
def _update(running: paddle.Tensor, batch: paddle.Tensor, momentum: float) -> None:
    running.scale_(momentum)
    running.add_(batch * (1.0 - momentum))


def _normalize(
    x: paddle.Tensor,
    weight: paddle.Tensor,
    bias: paddle.Tensor,
    statistics: _Statistics,
    geometry: NormalizationGeometry,
) -> tuple[paddle.Tensor, paddle.Tensor | None]:
    """Return the result, and the workspace if there is one."""
    forward = context().cached(NormalizationForward, geometry)
    result = allocate(x.shape, "float32")
    workspace = _workspace(forward.workspace_size)
    forward.run(
        x.data_ptr(),
        weight.data_ptr(),
        bias.data_ptr(),
        statistics.mean.data_ptr(),
        statistics.variance.data_ptr(),
        result.data_ptr(),
        *_address(workspace),
    )
    return result, workspace


class _BatchNorm(PyLayer):
    @staticmethod
    def forward(
        ctx: Any,
        x: paddle.Tensor,
        weight: paddle.Tensor,
        bias: paddle.Tensor,
        statistics: _Statistics,
        geometry: NormalizationGeometry,
    ) -> paddle.Tensor:
        ctx.geometry = geometry
        ctx.wanted = wanted(x, weight, bias)
        x = as_contiguous(x)
        result, workspace = _normalize(x, weight, bias, statistics, geometry)
        ctx.kept = Kept(x, weight, statistics.mean, statistics.variance, workspace)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        x, weight, mean, variance, workspace = recall(ctx)
        gradient = as_contiguous(gradient)
        x_gradient = allocate(x.shape, "float32")
        weight_gradient, bias_gradient = (allocate(weight.shape, "float32") for _ in range(2))
        context().cached(NormalizationBackward, ctx.geometry).run(
            x.data_ptr(),
            weight.data_ptr(),
            mean.data_ptr(),
            variance.data_ptr(),
            gradient.data_ptr(),
            x_gradient.data_ptr(),
            weight_gradient.data_ptr(),
            bias_gradient.data_ptr(),
            *_address(workspace),
        )
        return select(ctx.wanted, x_gradient, weight_gradient, bias_gradient)


def add_relu(x: paddle.Tensor, shortcut: paddle.Tensor, *, share_gradient: bool = False) -> paddle.Tensor:
    """Return ``relu(x + shortcut)`` of two tensors of one shape.

    Args:
        x: any shape.
        shortcut: the same shape.
        share_gradient: the two gradients, which are equal, may be one tensor. Paddle adds up gradients in place, so
            this is right only where nothing is added to the one before the other is used: in a residual block, where
            whatever adds to the shortcut's gradient comes after the backward pass of the branch `x`.
    """
    if wants_gradient(x, shortcut):
        return _AddReLU.apply(x, shortcut, share_gradient)
    return _add_relu(x, shortcut)


def _rows(x: paddle.Tensor) -> Rows:
    rows = x.shape[0] if x.ndim else 1
    return rows, x.size // rows


def _add_relu(x: paddle.Tensor, shortcut: paddle.Tensor) -> paddle.Tensor:
    x, shortcut = as_contiguous(x), as_contiguous(shortcut)
    result = allocate(x.shape, "float32")
    forward = context().cached(add_relu_forward, _rows(x))
    forward(x.data_ptr(), shortcut.data_ptr(), result.data_ptr())
    return result


class _AddReLU(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, shortcut: paddle.Tensor, share_gradient: bool) -> paddle.Tensor:
        result = _add_relu(x, shortcut)
        ctx.share_gradient = share_gradient
        ctx.wanted = wanted(x, shortcut)
        ctx.kept = Kept(result)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        (result,) = recall(ctx)
        gradient = as_contiguous(gradient)
        x_gradient = allocate(result.shape, "float32")
        context().cached(relu_backward, _rows(result))(result.data_ptr(), gradient.data_ptr(), x_gradient.data_ptr())
        both_wanted_apart = all(ctx.wanted) and not ctx.share_gradient
        return select(ctx.wanted, x_gradient, x_gradient.clone() if both_wanted_apart else x_gradient)


def max_pool(x: paddle.Tensor, window: Window) -> paddle.Tensor:
    """Take each window's maximum, as ``paddle.nn.functional.max_pool2d``: ``[N, H, W, C]`` to ``[N, H', W', C]``."""
    return _pool(x, window, Algorithm.POOLING_MAX)


def global_average_pool(x: paddle.Tensor) -> paddle.Tensor:
    """Take the mean over H and W: ``[N, H, W, C]`` to ``[N, C]``."""
    batch, height, width, channels = x.shape
    whole = Window((height, width), (1, 1), (0, 0), (0, 0))
    return _pool(x, whole, Algorithm.POOLING_AVERAGE).reshape([batch, channels])


def _pool(x: paddle.Tensor, window: Window, algorithm: Algorithm) -> paddle.Tensor:
    geometry = PoolingGeometry(_image(x), window, algorithm, wants_gradient(x))
    if geometry.for_backward:
        return _Pooling.apply(x, geometry)
    result, _ = _pool_windows(x, geometry)
    return result


def _pool_windows(x: paddle.Tensor, geometry: PoolingGeometry) -> tuple[paddle.Tensor, paddle.Tensor | None]:
    """Return the result, and the workspace if there is one."""
    x = as_contiguous(x)
    forward = context().cached(PoolingForward, geometry)
    result = allocate(geometry.destination.shape, "float32")
    workspace = _workspace(forward.workspace_size)
    forward.run(x.data_ptr(), result.data_ptr(), *_address(workspace))
    return result, workspace


class _Pooling(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, geometry: PoolingGeometry) -> paddle.Tensor:
        result, workspace = _pool_windows(x, geometry)
        ctx.geometry = geometry
        ctx.kept = Kept(workspace)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        (workspace,) = recall(ctx)
        gradient = as_contiguous(gradient)
        x_gradient = allocate(ctx.geometry.source.shape, "float32")
        backward = context().cached(PoolingBackward, ctx.geometry)
        backward.run(gradient.data_ptr(), x_gradient.data_ptr(), *_address(workspace))
        return x_gradient


def _image(x: paddle.Tensor) -> Image:
    if x.dtype != paddle.float32:
        raise TypeError(f"oneDNN layers work on float32, not {x.dtype}")
    batch, height, width, channels = x.shape
    return Image(batch, channels, height, width)


def _workspace(size: int) -> paddle.Tensor | None:
    return allocate([size], "uint8") if size else None


def _address(tensor: paddle.Tensor | None) -> tuple[int, ...]:
    return () if tensor is None else (tensor.data_ptr(),)
