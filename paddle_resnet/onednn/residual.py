"""The ends of a residual block, its fork, its sum and its parameter-free shortcut, and their oneDNN primitives."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import paddle
from paddle.autograd import PyLayer
from paddle.nn import functional

from paddle_resnet.onednn import tensors
from paddle_resnet.onednn.bindings import Algorithm, Argument, DataType, Propagation
from paddle_resnet.onednn.geometry import Image
from paddle_resnet.onednn.primitives import (
    RELU,
    Context,
    Handle,
    Primitive,
    attributes,
    contiguous,
    copy,
    strided,
    thread_context,
)


class Rows(NamedTuple):
    """A tensor as rows and columns: oneDNN divides a single long dimension among threads less well."""

    rows: int
    columns: int
    data_type: DataType
    relu: bool = False  # a ReLU follows the sum

    def layout(self) -> Handle:
        return contiguous(self.rows, self.columns, data_type=self.data_type)


def add_forward(context: Context, rows: Rows) -> Primitive:
    """``destination = first + second``, then the ReLU if any (arguments: first, second, destination)."""
    layout = rows.layout()
    after = attributes([RELU] if rows.relu else [])
    description = context.describe("binary", Algorithm.ADD, layout, layout, layout, attributes=after)
    roles = (Argument.SOURCE, Argument.SECOND_SOURCE, Argument.DESTINATION)
    return Primitive(context, description, [(role, layout) for role in roles])


def relu_backward(context: Context, rows: Rows) -> Primitive:
    """The gradient where the result was above zero (arguments: result, its gradient, gradient of the source).

    A ReLU's result is above zero exactly where its source is, so the source need not be kept.
    """
    layout = rows.layout()
    training = Propagation.FORWARD_TRAINING, Algorithm.RELU
    forward = context.describe("eltwise_forward", *training, layout, layout, 0.0, 0.0)
    description = context.describe("eltwise_backward", Algorithm.RELU, layout, layout, layout, 0.0, 0.0, forward)
    roles = (Argument.SOURCE, Argument.DIFF_DESTINATION, Argument.DIFF_SOURCE)
    return Primitive(context, description, [(role, layout) for role in roles])


class ZeroPadGeometry(NamedTuple):
    """The parameter-free shortcut: every `stride`-th pixel, and `new_channels` more channels."""

    source: Image
    stride: int
    new_channels: int

    @property
    def destination(self) -> Image:
        batch, channels, height, width, data_type = self.source
        rows, columns = -(-height // self.stride), -(-width // self.stride)
        return Image(batch, channels + self.new_channels, rows, columns, data_type)

    def pixels_in_source(self) -> Handle:
        """The pixels that are taken, as they lie in the source."""
        _, channels, height, width, data_type = self.source
        step = self.stride * channels
        return strided(self._common_shape(), (height * width * channels, 1, width * step, step), data_type)

    def pixels_in_destination(self) -> Handle:
        """The same pixels, as they lie in the destination."""
        _, channels, height, width, data_type = self.destination
        return strided(self._common_shape(), (height * width * channels, 1, width * channels, channels), data_type)

    def _common_shape(self) -> tuple[int, ...]:
        return (self.source.batch, self.source.channels, self.destination.height, self.destination.width)


def zero_pad_forward(context: Context, geometry: ZeroPadGeometry) -> Primitive:
    """Copy from the source into a destination of zeros."""
    return copy(context, geometry.pixels_in_source(), geometry.pixels_in_destination())


def zero_pad_backward(context: Context, geometry: ZeroPadGeometry) -> Primitive:
    """Copy the destination's gradient into a source's gradient of zeros."""
    return copy(context, geometry.pixels_in_destination(), geometry.pixels_in_source())


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
    if x.shape != shortcut.shape or x.dtype != shortcut.dtype:
        raise ValueError(f"{x.dtype} {x.shape} and {shortcut.dtype} {shortcut.shape}: expected the same type and shape")
    return tensors.apply(_Sum, x, shortcut, relu, share_gradient)


def _rows(x: paddle.Tensor, relu: bool = False) -> Rows:
    rows, *columns = x.shape or (1,)
    return Rows(rows, math.prod(columns), tensors.data_type_of(x), relu)


class _Sum(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, shortcut: paddle.Tensor, relu: bool, share_gradient: bool) -> paddle.Tensor:
        ctx.share_gradient = share_gradient
        ctx.wanted = tensors.wanted(x, shortcut)
        x, shortcut = tensors.as_contiguous(x), tensors.as_contiguous(shortcut)
        result = tensors.allocate(x.shape, x.dtype)
        tensors.execute(thread_context().cached(add_forward, _rows(x, relu)), x, shortcut, result)
        ctx.kept = tensors.Kept(result if relu else None)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        (result,) = tensors.recall(ctx)
        own = gradient
        if result is not None:
            gradient = tensors.as_contiguous(gradient)
            own = tensors.allocate(result.shape, result.dtype)
            tensors.execute(thread_context().cached(relu_backward, _rows(result)), result, gradient, own)
        both_wanted_apart = all(ctx.wanted) and not ctx.share_gradient
        return tensors.select(ctx.wanted, own, own.clone() if both_wanted_apart else own)


def fork(x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Return `x` twice, for two paths whose gradients are added up by oneDNN: Paddle's own sum runs on one thread."""
    if tensors.wants_gradient(x):
        return tensors.apply(_Fork, x)
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
        return add(first, second)


def zero_pad_shortcut(x: paddle.Tensor, stride: int, new_channels: int) -> paddle.Tensor:
    """Take every `stride`-th pixel and append channels of zeros (He et al. 2015, section 4.2, option A).

    ``[N, H, W, C]`` to ``[N, ceil(H / stride), ceil(W / stride), C + new_channels]``. Paddle's own gradient of such a
    slice runs on one thread.
    """
    geometry = ZeroPadGeometry(tensors.image_of(x), stride, new_channels)
    if geometry.source.height % stride != 0:
        # oneDNN takes the rows' stride times their number for an image's size, and refuses images that then overlap.
        return functional.pad(x[:, ::stride, ::stride, :], [0, 0, 0, 0, 0, 0, 0, new_channels])
    return tensors.apply(_ZeroPadShortcut, x, geometry)


class _ZeroPadShortcut(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, geometry: ZeroPadGeometry) -> paddle.Tensor:
        ctx.geometry = geometry
        ctx.kept = tensors.Kept()
        result = tensors.zeros(geometry.destination.shape, x.dtype)
        tensors.execute(thread_context().cached(zero_pad_forward, geometry), tensors.as_contiguous(x), result)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        tensors.recall(ctx)
        gradient = tensors.as_contiguous(gradient)
        x_gradient = tensors.zeros(ctx.geometry.source.shape, gradient.dtype)
        tensors.execute(thread_context().cached(zero_pad_backward, ctx.geometry), gradient, x_gradient)
        return x_gradient
