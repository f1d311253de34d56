"""``x + y``, ``relu(x + y)`` and the parameter-free shortcut as oneDNN primitives. Arguments are addresses."""

from __future__ import annotations

from typing import NamedTuple

from paddle_resnet.onednn.bindings import Algorithm, Argument, DataType, Propagation
from paddle_resnet.onednn.ops.geometry import Image
from paddle_resnet.onednn.ops.primitives import Context, Handle, Primitive, contiguous, copy, strided


class Rows(NamedTuple):
    """A tensor as rows and columns: oneDNN divides a single long dimension among threads less well."""

    rows: int
    columns: int
    data_type: DataType
    relu: bool = False
    """A ReLU follows the sum."""

    def layout(self) -> Handle:
        return contiguous(self.rows, self.columns, data_type=self.data_type)


def add_forward(context: Context, rows: Rows) -> Primitive:
    """``destination = first + second``, then the ReLU if any (arguments: first, second, destination)."""
    layout = rows.layout()
    description = context.describe("binary", Algorithm.ADD, layout, layout, layout, relu=rows.relu)
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
