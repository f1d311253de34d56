"""How a convolution primitive sees images and weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from paddle_resnet.onednn import library
from paddle_resnet.onednn.bindings import DataType, dimensions
from paddle_resnet.onednn.geometry import Image, Window
from paddle_resnet.onednn.primitives import Handle, channels_last, strided


class ConvolutionGeometry(NamedTuple):
    """A convolution; weights are ``[out, in / groups, kernel height, kernel width]`` as Paddle keeps them.

    Weights, bias and their gradients are float32 always; products of bfloat16 images are summed in float32.
    """

    source: Image
    out_channels: int
    window: Window
    groups: int
    bias: bool

    @property
    def destination(self) -> Image:
        positions = self.window.positions(self.source.height, self.source.width)
        return Image(self.source.batch, self.out_channels, *positions, self.source.data_type)

    @property
    def is_sound_as_volume(self) -> bool:
        """Whether oneDNN writes the weights' whole gradient in three dimensions.

        Where the window is larger than the image, 3.6.2 leaves parts of it unwritten; in float32 only of a large one.
        """
        rows, columns = self.window.extent
        covered = self.source.height >= rows and self.source.width >= columns
        return covered or (self.source.data_type == DataType.FLOAT32 and max(rows, columns) <= 3)

    @property
    def overruns_in_bfloat16(self) -> bool:
        """Whether oneDNN would write outside its memory as it computes the weights' gradient.

        In bfloat16, as the window strides over images narrower than itself: seen in 3.6.2 with AVX512-BF16.
        """
        bfloat16 = self.source.data_type == DataType.BFLOAT16
        return bfloat16 and self.source.width < self.window.extent[1] and self.window.stride[1] > 1

    @property
    def in_float32(self) -> ConvolutionGeometry:
        return self._replace(source=self.source._replace(data_type=DataType.FLOAT32))

    @property
    def weights_shape(self) -> tuple[int, ...]:
        """The weights' shape for oneDNN: with groups, they are its first dimension."""
        inputs = self.source.channels // self.groups
        if self.groups == 1:
            return (self.out_channels, inputs, *self.window.size)
        return (self.groups, self.out_channels // self.groups, inputs, *self.window.size)


class Layouts(NamedTuple):
    """The layout of a tensor's memory, and the layout of the same shape that a primitive works in."""

    stored: Handle
    needed: Handle


class View(NamedTuple):
    """How a convolution primitive sees images ``[N, H, W, C]``, weights and window."""

    source: Layouts
    destination: Layouts
    weights_shape: tuple[int, ...]
    window: list[Any]  # strides, dilations and paddings


def images(geometry: ConvolutionGeometry) -> View:
    """View images and weights as they are."""
    return _with_layouts(geometry, lambda image: Layouts(channels_last(image), channels_last(image)))


def pixels(geometry: ConvolutionGeometry) -> View:
    """View the batch as one image with a row for each image; a 1x1 convolution needs no more."""

    def layouts(image: Image) -> Layouts:
        whole = Image(1, image.channels, image.batch, image.height * image.width, image.data_type)
        return Layouts(channels_last(whole), channels_last(whole))

    return _with_layouts(geometry, layouts)


def batch_as_width(geometry: ConvolutionGeometry) -> View:
    """View small images as one volume ``[H, W, N, C]``, in which the kernel, one element wide in N, moves in H and W.

    A convolution multiplies a row of pixels by a matrix at a time. A row of an image 2 pixels wide leaves most of the
    processor idle, and the whole matrix is read again for every row; here a row is as long as the batch.
    """

    def layouts(image: Image) -> Layouts:
        batch, channels, height, width, data_type = image
        shape, plane = (1, channels, height, width, batch), height * width * channels
        stored = strided(shape, (batch * plane, 1, width * channels, channels, plane), data_type)
        # The batch next to the channels in memory.
        pixel = batch * channels
        return Layouts(stored, strided(shape, (batch * plane, 1, width * pixel, pixel, channels), data_type))

    window, view = geometry.window, _with_layouts(geometry, layouts)
    dilation = window.dilation[0] - 1, window.dilation[1] - 1
    axes = (*window.stride, 1), (*dilation, 0), (*window.padding_before, 0), (*window.padding_after, 0)
    return view._replace(weights_shape=(*view.weights_shape, 1), window=[dimensions(each) for each in axes])


def _with_layouts(geometry: ConvolutionGeometry, layouts: Callable[[Image], Layouts]) -> View:
    ends = layouts(geometry.source), layouts(geometry.destination)
    return View(*ends, geometry.weights_shape, geometry.window.as_arguments(with_size=False))


BATCH_AS_WIDTH_LIMITS = {DataType.FLOAT32: 16, DataType.BFLOAT16: 16}
"""Positions of the kernel on an image up to which `batch_as_width` is faster, forward and for the source's gradient."""

BATCH_AS_WIDTH_LIMITS_FOR_WEIGHTS = {DataType.FLOAT32: 4, DataType.BFLOAT16: 64}
"""The same for the gradient of the weights."""

LONGEST_ROW_ON_AVX2 = 8192
"""Bytes of a row of pixels from which `batch_as_width` is faster for the weights' gradient without AVX-512.

oneDNN's AVX2 code reads eight channels of each pixel at a time. The pixels of a long row do not stay in the L1 cache.
"""


def best_view(geometry: ConvolutionGeometry, *, for_weights: bool = False) -> View:
    """Return the view in which the convolution is fastest, as measured on AVX2, AVX-512 and AMX processors."""
    if geometry.groups > 1:
        # oneDNN's fast convolutions with groups are of two dimensions, and of one image each.
        return images(geometry)
    if geometry.window == Window((1, 1)):
        return pixels(geometry)
    limits = BATCH_AS_WIDTH_LIMITS_FOR_WEIGHTS if for_weights else BATCH_AS_WIDTH_LIMITS
    if for_weights and not geometry.is_sound_as_volume:
        return images(geometry)
    destination = geometry.destination
    small = destination.height * destination.width <= limits[destination.data_type]
    return batch_as_width(geometry) if small or (for_weights and _has_long_rows(geometry.source)) else images(geometry)


def _has_long_rows(image: Image) -> bool:
    row = 4 * image.width * image.channels
    return row >= LONGEST_ROW_ON_AVX2 and library.instruction_set() < library.AVX512
