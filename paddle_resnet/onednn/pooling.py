"""Pooling of images ``[N, H, W, C]``: the functions and their gradient, and their oneDNN primitives."""

from __future__ import annotations

from typing import Any, NamedTuple

import paddle
from paddle.autograd import PyLayer

from paddle_resnet.onednn import tensors
from paddle_resnet.onednn.bindings import Algorithm, Argument, Propagation
from paddle_resnet.onednn.geometry import Image, Window
from paddle_resnet.onednn.primitives import Context, Handle, Primitive, channels_last, thread_context


class PoolingGeometry(NamedTuple):
    """The maximum or the mean of each window."""

    source: Image
    window: Window
    algorithm: Algorithm
    for_backward: bool
    """A backward pass will follow; max-pooling then leaves the positions of the maxima in a workspace."""

    @property
    def destination(self) -> Image:
        positions = self.window.positions(self.source.height, self.source.width)
        return Image(self.source.batch, self.source.channels, *positions, self.source.data_type)


def pooling_forward(context: Context, geometry: PoolingGeometry) -> Primitive:
    """``destination = max or mean of each window of source`` (arguments: source, destination, workspace if any)."""
    source, destination = channels_last(geometry.source), channels_last(geometry.destination)
    arguments = [(Argument.SOURCE, source), (Argument.DESTINATION, destination)]
    return Primitive(context, _describe_pooling(context, geometry), arguments)


def pooling_backward(context: Context, geometry: PoolingGeometry) -> Primitive:
    """The gradient of the source (arguments: gradient of the destination, of the source, workspace if any)."""
    source, destination = channels_last(geometry.source), channels_last(geometry.destination)
    window = geometry.window.as_arguments(with_size=True)
    forward = _describe_pooling(context, geometry)
    description = context.describe("pooling_backward", geometry.algorithm, source, destination, *window, forward)
    return Primitive(context, description, [(Argument.DIFF_DESTINATION, destination), (Argument.DIFF_SOURCE, source)])


def _describe_pooling(context: Context, geometry: PoolingGeometry) -> Handle:
    propagation = Propagation.FORWARD_TRAINING if geometry.for_backward else Propagation.FORWARD_INFERENCE
    images = channels_last(geometry.source), channels_last(geometry.destination)
    window = geometry.window.as_arguments(with_size=True)
    return context.describe("pooling_forward", propagation, geometry.algorithm, *images, *window)


def max_pool2d(x: paddle.Tensor, window: Window) -> paddle.Tensor:
    """Take each window's maximum, as ``paddle.nn.functional.max_pool2d``: ``[N, H, W, C]`` to ``[N, H', W', C]``."""
    return _pool(x, window, Algorithm.POOLING_MAX)


def average_pool2d(x: paddle.Tensor, window: Window) -> paddle.Tensor:
    """Take each window's mean, as ``paddle.nn.functional.avg_pool2d``; the window has no padding."""
    return _pool(x, window, Algorithm.POOLING_AVERAGE)


def global_average_pool(x: paddle.Tensor) -> paddle.Tensor:
    """Take the mean over H and W: ``[N, H, W, C]`` to ``[N, 1, 1, C]``."""
    _, height, width, _ = x.shape
    return average_pool2d(x, Window((height, width)))


def _pool(x: paddle.Tensor, window: Window, algorithm: Algorithm) -> paddle.Tensor:
    geometry = PoolingGeometry(tensors.image_of(x), window, algorithm, tensors.wants_gradient(x))
    return tensors.apply(_Pooling, x, geometry)


class _Pooling(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, geometry: PoolingGeometry) -> paddle.Tensor:
        forward = thread_context().cached(pooling_forward, geometry)
        result = tensors.allocate(geometry.destination.shape, x.dtype)
        workspace = tensors.workspace(forward.workspace_size)
        tensors.execute(forward, tensors.as_contiguous(x), result, workspace)
        ctx.geometry = geometry
        ctx.kept = tensors.Kept(workspace)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        (workspace,) = tensors.recall(ctx)
        gradient = tensors.as_contiguous(gradient)
        x_gradient = tensors.allocate(ctx.geometry.source.shape, gradient.dtype)
        tensors.execute(thread_context().cached(pooling_backward, ctx.geometry), gradient, x_gradient, workspace)
        return x_gradient
