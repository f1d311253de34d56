"""The parameter-free shortcut as oneDNN copies between views of memory. Buffers are addresses here."""

from __future__ import annotations

from typing import NamedTuple

from paddle_resnet.onednn.ops.geometry import Image
from paddle_resnet.onednn.ops.primitives import Context, Handle, Primitive, copy, strided


class ZeroPadGeometry(NamedTuple):
    """Every `stride`-th pixel, and `new_channels` more channels."""

    source: Image
    stride: int
    new_channels: int

    @property
    def destination(self) -> Image:
        """The result's shape."""
        batch, channels, height, width, data_type = self.source
        rows, columns = -(-height // self.stride), -(-width // self.stride)
        return Image(batch, channels + self.new_channels, rows, columns, data_type)

    def taken_pixels(self) -> Handle:
        """The pixels that are taken, where they lie in the source."""
        _, channels, height, width, data_type = self.source
        step = self.stride * channels
        return strided(self._common_shape(), (height * width * channels, 1, width * step, step), data_type)

    def old_channels(self) -> Handle:
        """The same pixels, where they lie in the destination."""
        _, channels, height, width, data_type = self.destination
        return strided(self._common_shape(), (height * width * channels, 1, width * channels, channels), data_type)

    def _common_shape(self) -> tuple[int, ...]:
        return (self.source.batch, self.source.channels, self.destination.height, self.destination.width)


def take_pixels(context: Context, geometry: ZeroPadGeometry) -> Primitive:
    """Copy from the source into a destination of zeros."""
    return copy(context, geometry.taken_pixels(), geometry.old_channels())


def put_pixels_back(context: Context, geometry: ZeroPadGeometry) -> Primitive:
    """Copy the destination's gradient into a source's gradient of zeros."""
    return copy(context, geometry.old_channels(), geometry.taken_pixels())
