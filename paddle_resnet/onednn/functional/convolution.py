"""Convolution of images ``[N, H, W, C]``."""

from __future__ import annotations

from typing import Any

import paddle
from paddle.autograd import PyLayer

from paddle_resnet.onednn.functional import tensors
from paddle_resnet.onednn.ops.convolution import (
    convolution_backward_data,
    convolution_backward_weights,
    convolution_forward,
    overruns_its_scratch,
)
from paddle_resnet.onednn.ops.convolution_layout import ConvolutionGeometry
from paddle_resnet.onednn.ops.geometry import Window
from paddle_resnet.onednn.ops.primitives import context


def conv2d(
    x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor | None, window: Window, groups: int = 1
) -> paddle.Tensor:
    """Convolve, as ``paddle.nn.functional.conv2d``.

    Args:
        x: ``[N, H, W, C]``.
        weight: ``[out, C / groups, kernel height, kernel width]``.
        bias: ``[out]``, or None.
        window: size, stride, padding and dilation; its size is the weight's.
        groups: how many groups the channels are divided into.

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
    forward = context().cached(convolution_forward, geometry)
    forward(x.data_ptr(), weight.data_ptr(), result.data_ptr(), *tensors.address_of(bias))
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
            backward_data = context().cached(convolution_backward_data, geometry)
            backward_data(gradient.data_ptr(), weight.data_ptr(), x_gradient.data_ptr())
        if weight_wanted or any(bias_wanted):
            if geometry.overruns_in_bfloat16:
                x, gradient, geometry = x.astype("float32"), gradient.astype("float32"), geometry.in_float32
            weight_gradient = tensors.allocate(weight.shape, "float32")
            bias_gradient = tensors.allocate([geometry.out_channels], "float32") if geometry.bias else None
            backward_weights = context().cached(convolution_backward_weights, geometry)
            addresses = x.data_ptr(), gradient.data_ptr(), weight_gradient.data_ptr()
            backward_weights(*addresses, *tensors.address_of(bias_gradient))
        return tensors.select(ctx.wanted, x_gradient, weight_gradient, bias_gradient)
