"""Shapes as oneDNN's operations need them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

from paddle_resnet.onednn.bindings import DataType, dimensions

Pair = tuple[int, int]
CACHED = 512
WIDEST_VECTOR = 16  # float32 values in an AVX-512 register


class Window(NamedTuple):
    """How a window moves over an image; each pair is vertical, horizontal."""

    size: Pair
    stride: Pair = (1, 1)
    padding_before: Pair = (0, 0)
    padding_after: Pair = (0, 0)
    dilation: Pair = (1, 1)

    @property
    def extent(self) -> Pair:
        """Pixels from the window's first to its last, both included."""
        rows, columns = (dilation * (size - 1) + 1 for size, dilation in zip(self.size, self.dilation, strict=True))
        return rows, columns

    def _moves(self, height: int, width: int) -> Iterator[Pair]:
        """How often the window moves on by its stride, on each axis, and how many pixels are left then."""
        padding = zip(self.padding_before, self.padding_after, strict=True)
        for length, extent, stride, padded in zip((height, width), self.extent, self.stride, padding, strict=True):
            yield divmod(length + sum(padded) - extent, stride)

    @functools.lru_cache(CACHED)  # noqa: B019 (of values, asked for in every step)
    def positions(self, height: int, width: int) -> Pair:
        """How many positions the window takes on an image, vertically and horizontally."""
        (down, _), (across, _) = self._moves(height, width)
        return down + 1, across + 1

    def ends_with(self, height: int, width: int) -> bool:
        """Whether the last position ends where the padded image does, on each axis."""
        return not any(left for _, left in self._moves(height, width))

    @functools.lru_cache(CACHED)  # noqa: B019
    def sees_pixels(self, height: int, width: int) -> bool:
        """Whether some position of the window meets the image on each axis; else oneDNN 3.6.2 reads outside memory."""
        return all(
            any(
                before <= position * stride + element * dilation < before + length
                for position in range(positions)
                for element in range(size)
            )
            for positions, length, size, stride, before, _, dilation in zip(
                self.positions(height, width), (height, width), *self, strict=True
            )
        )

    def as_arguments(self, *, with_size: bool) -> list[Any]:
        """Strides, (size,) dilations counted from 0, and paddings, as oneDNN takes them."""
        dilation = dimensions((self.dilation[0] - 1, self.dilation[1] - 1))
        size = [dimensions(self.size)] if with_size else []
        padding = dimensions(self.padding_before), dimensions(self.padding_after)
        return [dimensions(self.stride), *size, dilation, *padding]


class Image(NamedTuple):
    """The shape of an ``[N, H, W, C]`` tensor, in the order of oneDNN, and the type of its numbers."""

    batch: int
    channels: int
    height: int
    width: int
    data_type: DataType

    @property
    def shape(self) -> list[int]:
        return [self.batch, self.height, self.width, self.channels]


def overruns_its_scratch(window: Window, inputs: int) -> bool:
    """Return whether oneDNN's threads would write into one another's memory, and sometimes give a wrong result.

    Its strided 1x1 convolution packs the pixels it needs first. With `inputs` channels (of a group) that do not fill
    whole vectors, the last vector of one thread runs into the memory of the next: seen in 3.2.1 and 3.6.2 with AVX2.
    """
    strided_points = window.size == (1, 1) and window.stride != (1, 1)
    unpadded = window.padding_before == window.padding_after == (0, 0)
    return strided_points and unpadded and inputs % WIDEST_VECTOR != 0
