"""Convolution of images ``[N, H, W, C]``: the function and its gradient, and their oneDNN primitives.

Tensors keep Paddle's layouts. Where a primitive needs another layout, its data are reordered through the thread's
scratch memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import paddle
from paddle.autograd import PyLayer

from paddle_resnet.onednn import library, tensors
from paddle_resnet.onednn.bindings import Algorithm, Argument, DataType, Propagation, Query, dimensions
from paddle_resnet.onednn.geometry import Image, Window, overruns_its_scratch
from paddle_resnet.onednn.primitives import (
    Context,
    Handle,
    Primitive,
    any_layout,
    channels_last,
    contiguous,
    layout_of,
    reorder,
    size_of,
    strided,
    thread_context,
)
from paddle_resnet.onednn.residual import zero_pad_shortcut


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


class ReorderedPrimitive:
    """A primitive of two inputs and an output, which are reordered where their tensors have another layout.

    It is a list of primitives on numbered buffers: first the tensors of a call, then the reordered ones.
    """

    def __init__(
        self,
        context: Context,
        view: View,
        description: Handle,
        roles: tuple[Argument, Argument, Argument],
        vectors: Sequence[tuple[Argument, Handle]] = (),
    ) -> None:
        """`roles` are those of the inputs and of the output; `vectors` are further arguments, never reordered."""
        self._scratch = context.scratch
        self._reordered: list[tuple[str, int]] = []  # names and sizes
        arguments: list[tuple[Argument, Any]] = []
        numbers = list(range(len(roles) + len(vectors)))
        before: list[tuple[Primitive, list[int]]] = []
        after: list[tuple[Primitive, list[int]]] = []
        for number, role in enumerate(roles):
            tensor = role.name.removeprefix("DIFF_")
            if tensor == "WEIGHTS":
                stored, needed = contiguous(*view.weights_shape), layout_of(description, Query[role.name])
            else:
                stored, needed = view.source if tensor == "SOURCE" else view.destination
            arguments.append((role, needed))
            is_output = role is roles[-1]
            copy = reorder(context, needed, stored) if is_output else reorder(context, stored, needed)
            if copy is not None:
                numbers[number] = reordered = len(roles) + len(vectors) + len(self._reordered)
                self._reordered.append((tensor, size_of(needed)))
                if is_output:
                    after.append((copy, [reordered, number]))
                else:
                    before.append((copy, [number, reordered]))
        self._steps = [*before, (Primitive(context, description, [*arguments, *vectors]), numbers), *after]

    def __call__(self, *tensors: int) -> None:
        """Execute on the tensors at these addresses: the inputs, the output, the vectors."""
        buffers = [*tensors, *(self._scratch.address(*each) for each in self._reordered)]
        for primitive, numbers in self._steps:
            primitive(*(buffers[number] for number in numbers))

    def parts(self, numbers: Sequence[int], allocate: Callable[[int], int]) -> list[tuple[Primitive, list[int]]]:
        """Return the primitives in order with the numbers of their buffers; ``allocate(size)`` gives further ones."""
        buffers = [*numbers, *(allocate(size) for _, size in self._reordered)]
        return [
            part
            for primitive, own in self._steps
            for part in primitive.parts([buffers[number] for number in own], allocate)
        ]


def convolution_forward(context: Context, geometry: ConvolutionGeometry) -> ReorderedPrimitive:
    """``destination = source * weights (+ bias)`` (arguments: source, weights, destination, bias if any)."""
    view = best_view(geometry)
    roles = Argument.SOURCE, Argument.WEIGHTS, Argument.DESTINATION
    return ReorderedPrimitive(context, view, _forward(context, geometry, view), roles, _bias(geometry, Argument.BIAS))


def convolution_backward_data(context: Context, geometry: ConvolutionGeometry) -> ReorderedPrimitive:
    """The gradient of the source (arguments: gradient of the destination, weights, gradient of the source)."""
    view = best_view(geometry)
    description = context.describe(
        "convolution_backward_data",
        *(Algorithm.CONVOLUTION_DIRECT, view.source.needed, _weights(geometry, view), view.destination.needed),
        *(*view.window, _forward(context, geometry, view)),
    )
    roles = Argument.DIFF_DESTINATION, Argument.WEIGHTS, Argument.DIFF_SOURCE
    return ReorderedPrimitive(context, view, description, roles)


def convolution_backward_weights(context: Context, geometry: ConvolutionGeometry) -> ReorderedPrimitive:
    """The gradients of weights and bias (arguments: source, gradients of destination, weights, bias if any)."""
    view = best_view(geometry, for_weights=True)
    bias = _bias(geometry, Argument.DIFF_BIAS)
    gradients = any_layout(*view.weights_shape), bias[0][1] if bias else None  # both float32
    description = context.describe(
        "convolution_backward_weights",
        *(Algorithm.CONVOLUTION_DIRECT, view.source.needed, *gradients, view.destination.needed),
        *(*view.window, _forward(context, geometry, view)),
    )
    roles = Argument.SOURCE, Argument.DIFF_DESTINATION, Argument.DIFF_WEIGHTS
    return ReorderedPrimitive(context, view, description, roles, bias)


def _bias(geometry: ConvolutionGeometry, role: Argument) -> list[tuple[Argument, Handle]]:
    return [(role, contiguous(geometry.out_channels))] if geometry.bias else []


def _weights(geometry: ConvolutionGeometry, view: View) -> Handle:
    """Describe weights of the images' type, in the layout that the primitive chooses."""
    return any_layout(*view.weights_shape, data_type=geometry.source.data_type)


def _forward(context: Context, geometry: ConvolutionGeometry, view: View) -> Handle:
    """Describe the forward pass, which the backward passes refer to."""
    bias = contiguous(geometry.out_channels) if geometry.bias else None
    return context.describe(
        "convolution_forward",
        *(Propagation.FORWARD_TRAINING, Algorithm.CONVOLUTION_DIRECT),
        *(view.source.needed, _weights(geometry, view), bias, view.destination.needed, *view.window),
    )


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
        ValueError: the images have another number of channels, so that oneDNN would read outside the weight.
    """
    tensors.require_float32(weight, bias)
    if weight.shape[1] * groups != x.shape[-1]:
        raise ValueError(
            f"a convolution of {weight.shape[1] * groups} channels on images of {x.shape[-1]}: expected [N, C, H, W]"
        )
    if overruns_its_scratch(window, weight.shape[1]):
        down, across = window.stride
        x = zero_pad_shortcut(x, down, 0) if down == across else x[:, ::down, ::across, :]
        window = Window((1, 1))
    geometry = ConvolutionGeometry(tensors.image_of(x), weight.shape[0], window, groups, bias is not None)
    return tensors.apply(_Convolution, x, weight, bias, geometry)


class _Convolution(PyLayer):
    @staticmethod
    def forward(
        ctx: Any, x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor | None, geometry: ConvolutionGeometry
    ) -> paddle.Tensor:
        ctx.geometry = geometry
        ctx.wanted = tensors.wanted(x, weight, bias)
        x, weight = tensors.as_contiguous(x), tensors.as_contiguous(weight)
        ctx.kept = tensors.Kept(x, weight)
        result = tensors.allocate(geometry.destination.shape, x.dtype)
        tensors.execute(thread_context().cached(convolution_forward, geometry), x, weight, result, bias)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        x, weight = tensors.recall(ctx)
        gradient = tensors.as_contiguous(gradient)
        geometry: ConvolutionGeometry = ctx.geometry
        x_wanted, weight_wanted, *bias_wanted = ctx.wanted
        x_gradient = weight_gradient = bias_gradient = None
        if x_wanted:
            x_gradient = tensors.allocate(x.shape, x.dtype)
            backward_data = thread_context().cached(convolution_backward_data, geometry)
            tensors.execute(backward_data, gradient, weight, x_gradient)
        if weight_wanted or any(bias_wanted):
            if geometry.overruns_in_bfloat16:
                x, gradient, geometry = x.astype("float32"), gradient.astype("float32"), geometry.in_float32
            weight_gradient = tensors.allocate(weight.shape, paddle.float32)
            bias_gradient = tensors.allocate([geometry.out_channels], paddle.float32) if geometry.bias else None
            backward_weights = thread_context().cached(convolution_backward_weights, geometry)
            tensors.execute(backward_weights, x, gradient, weight_gradient, bias_gradient)
        return tensors.select(ctx.wanted, x_gradient, weight_gradient, bias_gradient)
