"""The operations without parameters on tensors on the CPU, images ``[N, H, W, C]``, gradients by oneDNN too.

Tensors are float32 or bfloat16, and so are results and gradients.

What `functions` says of gradients holds here as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paddle
from paddle.autograd import PyLayer
from paddle.nn import functional

from paddle_resnet.onednn.bindings import Algorithm
from paddle_resnet.onednn.functional import tensors
from paddle_resnet.onednn.ops.elementwise import Rows, add_forward, add_relu_forward, relu_backward
from paddle_resnet.onednn.ops.geometry import Window
from paddle_resnet.onednn.ops.pooling import PoolingBackward, PoolingForward, PoolingGeometry
from paddle_resnet.onednn.ops.primitives import Context, Primitive, context
from paddle_resnet.onednn.ops.zero_pad import ZeroPadGeometry, put_pixels_back, take_pixels


def add_relu(x: paddle.Tensor, shortcut: paddle.Tensor, *, share_gradient: bool = False) -> paddle.Tensor:
    """Return ``relu(x + shortcut)`` of two tensors of one shape.

    Args:
        x: any shape.
        shortcut: the same shape.
        share_gradient: the two gradients, which are equal, may be one tensor. Paddle adds up gradients in place, so
            this is right only where nothing is added to the one before the other is used: in a residual block, where
            whatever adds to the shortcut's gradient comes after the backward pass of the branch `x`.
    """
    if tensors.wants_gradient(x, shortcut):
        return _AddReLU.apply(x, shortcut, share_gradient)
    return _sum(add_relu_forward, x, shortcut)


def _rows(x: paddle.Tensor) -> Rows:
    rows = x.shape[0] if x.ndim else 1
    return Rows(rows, x.size // rows, tensors.data_type_of(x))


def _sum(build: Callable[[Context, Rows], Primitive], first: paddle.Tensor, second: paddle.Tensor) -> paddle.Tensor:
    if first.shape != second.shape or first.dtype != second.dtype:
        raise ValueError(f"{first.dtype} {first.shape} and {second.dtype} {second.shape}: expected them alike")
    first, second = tensors.as_contiguous(first), tensors.as_contiguous(second)
    result = tensors.allocate(first.shape, first.dtype)
    context().cached(build, _rows(first))(first.data_ptr(), second.data_ptr(), result.data_ptr())
    return result


class _AddReLU(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, shortcut: paddle.Tensor, share_gradient: bool) -> paddle.Tensor:
        result = _sum(add_relu_forward, x, shortcut)
        ctx.share_gradient = share_gradient
        ctx.wanted = tensors.wanted(x, shortcut)
        ctx.kept = tensors.Kept(result)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        (result,) = tensors.recall(ctx)
        gradient = tensors.as_contiguous(gradient)
        x_gradient = tensors.allocate(result.shape, result.dtype)
        context().cached(relu_backward, _rows(result))(result.data_ptr(), gradient.data_ptr(), x_gradient.data_ptr())
        both_wanted_apart = all(ctx.wanted) and not ctx.share_gradient
        return tensors.select(ctx.wanted, x_gradient, x_gradient.clone() if both_wanted_apart else x_gradient)


def fork(x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Return `x` twice, for two paths whose gradients are added up by oneDNN: Paddle's own sum runs on one thread."""
    if tensors.wants_gradient(x):
        return _Fork.apply(x)
    return x, x


class _Fork(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        ctx.kept = tensors.Kept()
        # Views by a detour: what is the input itself, a PyLayer takes for changed in place.
        return x.flatten().reshape(x.shape), x.flatten().reshape(x.shape)

    @staticmethod
    def backward(ctx: Any, first: paddle.Tensor, second: paddle.Tensor) -> paddle.Tensor:
        tensors.recall(ctx)
        return _sum(add_forward, first, second)


def add(x: paddle.Tensor, shortcut: paddle.Tensor, *, share_gradient: bool = False) -> paddle.Tensor:
    """Return ``x + shortcut`` of two tensors of one shape; `share_gradient` as for `add_relu`."""
    if tensors.wants_gradient(x, shortcut):
        return _Add.apply(x, shortcut, share_gradient)
    return _sum(add_forward, x, shortcut)


class _Add(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, shortcut: paddle.Tensor, share_gradient: bool) -> paddle.Tensor:
        ctx.wanted = tensors.wanted(x, shortcut)
        ctx.share_gradient = share_gradient
        ctx.kept = tensors.Kept()
        return _sum(add_forward, x, shortcut)

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        tensors.recall(ctx)
        return tensors.select(ctx.wanted, gradient, gradient if ctx.share_gradient else gradient.clone())


def max_pool(x: paddle.Tensor, window: Window) -> paddle.Tensor:
    """Take each window's maximum, as ``paddle.nn.functional.max_pool2d``: ``[N, H, W, C]`` to ``[N, H', W', C]``."""
    return _pool(x, window, Algorithm.POOLING_MAX)


def global_average_pool(x: paddle.Tensor) -> paddle.Tensor:
    """Take the mean over H and W: ``[N, H, W, C]`` to ``[N, C]``."""
    batch, height, width, channels = x.shape
    whole = Window((height, width), (1, 1), (0, 0), (0, 0))
    return _pool(x, whole, Algorithm.POOLING_AVERAGE).reshape([batch, channels])


def _pool(x: paddle.Tensor, window: Window, algorithm: Algorithm) -> paddle.Tensor:
    geometry = PoolingGeometry(tensors.image_of(x), window, algorithm, tensors.wants_gradient(x))
    if geometry.for_backward:
        return _Pooling.apply(x, geometry)
    result, _ = _pool_windows(x, geometry)
    return result


def _pool_windows(x: paddle.Tensor, geometry: PoolingGeometry) -> tuple[paddle.Tensor, paddle.Tensor | None]:
    """Return the result, and the workspace if there is one."""
    x = tensors.as_contiguous(x)
    forward = context().cached(PoolingForward, geometry)
    result = tensors.allocate(geometry.destination.shape, x.dtype)
    workspace = tensors.workspace(forward.workspace_size)
    forward.run(x.data_ptr(), result.data_ptr(), *tensors.address_of(workspace))
    return result, workspace


class _Pooling(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, geometry: PoolingGeometry) -> paddle.Tensor:
        result, workspace = _pool_windows(x, geometry)
        ctx.geometry = geometry
        ctx.kept = tensors.Kept(workspace)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        (workspace,) = tensors.recall(ctx)
        gradient = tensors.as_contiguous(gradient)
        x_gradient = tensors.allocate(ctx.geometry.source.shape, gradient.dtype)
        backward = context().cached(PoolingBackward, ctx.geometry)
        backward.run(gradient.data_ptr(), x_gradient.data_ptr(), *tensors.address_of(workspace))
        return x_gradient


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
    context().cached(take_pixels, geometry)(x.data_ptr(), result.data_ptr())
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
        context().cached(put_pixels_back, ctx.geometry)(gradient.data_ptr(), x_gradient.data_ptr())
        return x_gradient
