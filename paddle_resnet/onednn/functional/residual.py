"""The ends of a residual block: its fork, its sum and its parameter-free shortcut."""

from __future__ import annotations

from typing import Any

import paddle
from paddle.autograd import PyLayer
from paddle.nn import functional

from paddle_resnet.onednn.functional import tensors
from paddle_resnet.onednn.ops.primitives import context
from paddle_resnet.onednn.ops.residual import (
    Rows,
    ZeroPadGeometry,
    add_forward,
    relu_backward,
    zero_pad_backward,
    zero_pad_forward,
)


def add(
    x: paddle.Tensor, shortcut: paddle.Tensor, *, relu: bool = False, share_gradient: bool = False
) -> paddle.Tensor:
    """Return ``x + shortcut`` of two tensors of one shape, or ``relu(x + shortcut)``.

    Args:
        x: any shape.
        shortcut: the same shape.
        relu: apply the ReLU.
        share_gradient: return one tensor as both gradients, which are equal. Paddle adds up gradients in place, so
            this is right only where nothing is added to one before the other is used. In a residual block, what adds
            to the shortcut's gradient comes after the backward pass of the branch `x`.
    """
    if tensors.wants_gradient(x, shortcut):
        return _Sum.apply(x, shortcut, relu, share_gradient)
    return _sum(x, shortcut, relu)


def _rows(x: paddle.Tensor, relu: bool = False) -> Rows:
    rows = x.shape[0] if x.ndim else 1
    return Rows(rows, x.size // rows, tensors.data_type_of(x), relu)


def _sum(first: paddle.Tensor, second: paddle.Tensor, relu: bool = False) -> paddle.Tensor:
    if first.shape != second.shape or first.dtype != second.dtype:
        raise ValueError(
            f"{first.dtype} {first.shape} and {second.dtype} {second.shape}: expected the same type and shape"
        )
    first, second = tensors.as_contiguous(first), tensors.as_contiguous(second)
    result = tensors.allocate(first.shape, first.dtype)
    context().cached(add_forward, _rows(first, relu))(first.data_ptr(), second.data_ptr(), result.data_ptr())
    return result


class _Sum(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, shortcut: paddle.Tensor, relu: bool, share_gradient: bool) -> paddle.Tensor:
        result = _sum(x, shortcut, relu)
        ctx.share_gradient = share_gradient
        ctx.wanted = tensors.wanted(x, shortcut)
        ctx.kept = tensors.Kept(result if relu else None)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        (result,) = tensors.recall(ctx)
        own = gradient
        if result is not None:
            gradient = tensors.as_contiguous(gradient)
            own = tensors.allocate(result.shape, result.dtype)
            context().cached(relu_backward, _rows(result))(result.data_ptr(), gradient.data_ptr(), own.data_ptr())
        both_wanted_apart = all(ctx.wanted) and not ctx.share_gradient
        return tensors.select(ctx.wanted, own, own.clone() if both_wanted_apart else own)


def fork(x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Return `x` twice, for two paths whose gradients are added up by oneDNN: Paddle's own sum runs on one thread."""
    if tensors.wants_gradient(x):
        return _Fork.apply(x)
    return x, x


class _Fork(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        ctx.kept = tensors.Kept()
        # Views, as a PyLayer takes a result that is its input for changed in place.
        return x.flatten().reshape(x.shape), x.flatten().reshape(x.shape)

    @staticmethod
    def backward(ctx: Any, first: paddle.Tensor, second: paddle.Tensor) -> paddle.Tensor:
        tensors.recall(ctx)
        return _sum(first, second)


def zero_pad_shortcut(x: paddle.Tensor, stride: int, new_channels: int) -> paddle.Tensor:
    """Take every `stride`-th pixel and append channels of zeros (He et al. 2015, section 4.2, option A).

    ``[N, H, W, C]`` to ``[N, ceil(H / stride), ceil(W / stride), C + new_channels]``. Paddle's own gradient of such a
    slice runs on one thread.
    """
    geometry = ZeroPadGeometry(tensors.image_of(x), stride, new_channels)
    if geometry.source.height % stride != 0:
        # oneDNN takes the rows' stride times their number for an image's size, and refuses images that then overlap.
        return functional.pad(x[:, ::stride, ::stride, :], [0, 0, 0, 0, 0, 0, 0, new_channels])
    if tensors.wants_gradient(x):
        return _ZeroPadShortcut.apply(x, geometry)
    return _zero_pad(x, geometry)


def _zero_pad(x: paddle.Tensor, geometry: ZeroPadGeometry) -> paddle.Tensor:
    x = tensors.as_contiguous(x)
    result = paddle.zeros(geometry.destination.shape, x.dtype)
    context().cached(zero_pad_forward, geometry)(x.data_ptr(), result.data_ptr())
    return result


class _ZeroPadShortcut(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, geometry: ZeroPadGeometry) -> paddle.Tensor:
        ctx.geometry = geometry
        ctx.kept = tensors.Kept()
        return _zero_pad(x, geometry)

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        tensors.recall(ctx)
        gradient = tensors.as_contiguous(gradient)
        x_gradient = paddle.zeros(ctx.geometry.source.shape, gradient.dtype)
        context().cached(zero_pad_backward, ctx.geometry)(gradient.data_ptr(), x_gradient.data_ptr())
        return x_gradient
