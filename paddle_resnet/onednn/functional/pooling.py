"""Pooling of images ``[N, H, W, C]``."""

from __future__ import annotations

from typing import Any

import paddle
from paddle.autograd import PyLayer

from paddle_resnet.onednn.bindings import Algorithm
from paddle_resnet.onednn.functional import tensors
from paddle_resnet.onednn.ops.geometry import Window
from paddle_resnet.onednn.ops.pooling import PoolingGeometry, pooling_backward, pooling_forward
from paddle_resnet.onednn.ops.primitives import context


def max_pool2d(x: paddle.Tensor, window: Window) -> paddle.Tensor:
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
    forward = context().cached(pooling_forward, geometry)
    result = tensors.allocate(geometry.destination.shape, x.dtype)
    workspace = tensors.workspace(forward.workspace_size)
    forward(x.data_ptr(), result.data_ptr(), *tensors.address_of(workspace))
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
        backward = context().cached(pooling_backward, ctx.geometry)
        backward(gradient.data_ptr(), x_gradient.data_ptr(), *tensors.address_of(workspace))
        return x_gradient
