"""Layers that only some networks have, on ``[N, H, W, C]``, float32 or bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import paddle
from paddle import nn
from paddle.nn import functional

from paddle_resnet.models import blocks, preact, sync_batch_norm
from paddle_resnet.models.resnet import ResNet
from paddle_resnet.onednn.functional import elementwise_pooling, parametric, sync_normalization, tensors
from paddle_resnet.onednn.ops.geometry import Pair, Window
from paddle_resnet.paddle_compat import batch_norm_settings, convolution_settings


class Add(preact.Add):
    """``x + shortcut`` at the end of a block that activates first."""

    def forward(self, x: paddle.Tensor, shortcut: paddle.Tensor) -> paddle.Tensor:
        """Add two tensors of one shape."""
        if not suits(x):
            return super().forward(x, shortcut)
        return elementwise_pooling.add(x, shortcut, share_gradient=True)


class StochasticDepth(blocks.StochasticDepth):
    """A residual branch that is dropped for some images."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """``[N, H, W, C]`` to the same shape."""
        return in_float32(super().forward, x)


class Dropout(nn.Dropout):
    """Dropout between convolutions."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Any shape to the same shape."""
        return in_float32(super().forward, x)


class AveragePool(nn.AvgPool2D):
    """Average-pooling."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Take each window's mean: ``[N, H, W, C]`` to ``[N, H', W', C]``."""
        return natively(super().forward, x)


Precision = Literal["float32", "bfloat16"]


def channels_first(x: paddle.Tensor) -> paddle.Tensor:
    """``[N, H, W, C]`` to ``[N, C, H, W]``."""
    return x.transpose([0, 3, 1, 2])


def channels_last(x: paddle.Tensor) -> paddle.Tensor:
    """``[N, C, H, W]`` to ``[N, H, W, C]``."""
    return x.transpose([0, 2, 3, 1])


def suits(x: paddle.Tensor) -> bool:
    """Whether oneDNN's layers are made for this tensor."""
    return paddle.in_dynamic_mode() and x.dtype in tensors.DATA_TYPES and x.place.is_cpu_place() and x.size > 0


def natively(forward: Callable[[paddle.Tensor], paddle.Tensor], x: paddle.Tensor) -> paddle.Tensor:
    """Let a native layer's `forward` compute on ``[N, H, W, C]``."""
    return channels_last(in_float32(forward, channels_first(x)))


def in_float32(forward: Callable[[paddle.Tensor], paddle.Tensor], x: paddle.Tensor) -> paddle.Tensor:
    """Let a native layer's `forward` compute where the layout does not matter.

    Paddle has few operators for bfloat16 on the CPU: a bfloat16 tensor is widened before, and the result is rounded.
    """
    return forward(x.cast(paddle.float32)).cast(paddle.bfloat16) if x.dtype == paddle.bfloat16 else forward(x)


class Convolution(nn.Conv2D):
    """A convolution, zero-padded, with a weight ``[out, in / groups, kh, kw]`` as `nn.Conv2D` has it."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Convolve ``[N, H, W, in]`` to ``[N, H', W', out]``."""
        settings = convolution_settings(self)
        padding = _padding(settings.padding)
        if padding is None or not settings.zero_padded or not suits(x):
            return natively(super().forward, x)
        window = Window(tuple(self.weight.shape[2:]), _pair(settings.stride), *padding, _pair(settings.dilation))
        if not window.sees_pixels(*x.shape[1:3]):
            return natively(super().forward, x)
        return parametric.convolution(x, self.weight, self.bias, window, settings.groups)


class BatchNorm(nn.BatchNorm2D):
    """Batch normalisation over N, H and W."""

    relu = False

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Normalise ``[N, H, W, C]``; in training, update the running statistics.

        In training, a single value in each channel has no variance: Paddle hands it on as it is, and so is it here.
        """
        single = self.training and x.size == self._mean.size
        if single or not suits(x):
            x = natively(super().forward, x)
            return functional.relu(x) if self.relu else x
        momentum, epsilon, use_global_stats = batch_norm_settings(self)
        return parametric.batch_norm(
            x,
            self.weight,
            self.bias,
            self._mean,
            self._variance,
            training=self.training and not use_global_stats,
            momentum=momentum,
            epsilon=epsilon,
            relu=self.relu,
        )


class BatchNormReLU(BatchNorm):
    """Batch normalisation and the ReLU after it in one pass over memory."""

    relu = True


class SyncBatchNorm(BatchNorm, sync_batch_norm.SyncBatchNorm):
    """Batch normalisation over N, H and W of all processes' images."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Normalise ``[N, H, W, C]``; in training, update the running statistics."""
        momentum, epsilon, use_global_stats = batch_norm_settings(self)
        if not suits(x) or not self.training or use_global_stats:
            return super().forward(x)
        return sync_normalization.sync_batch_norm(
            x,
            self.weight,
            self.bias,
            self._mean,
            self._variance,
            momentum=momentum,
            epsilon=epsilon,
            relu=self.relu,
        )


class SyncBatchNormReLU(SyncBatchNorm):
    """The same and the ReLU after it."""

    relu = True


class FusedReLU(nn.ReLU):
    """A ReLU that the `BatchNormReLU` before it has done already."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return `x` as it is."""
        return x


class Fork(blocks.Fork):
    """A block's input for both of its paths."""

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Give `x` to both."""
        return elementwise_pooling.fork(x) if suits(x) else super().forward(x)


class AddReLU(blocks.AddReLU):
    """``relu(x + shortcut)`` at the end of a residual block."""

    def forward(self, x: paddle.Tensor, shortcut: paddle.Tensor) -> paddle.Tensor:
        """Add two tensors of one shape, then rectify."""
        if not suits(x):
            return super().forward(x, shortcut)
        return elementwise_pooling.add_relu(x, shortcut, share_gradient=True)


class ZeroPadShortcut(blocks.ZeroPadShortcut):
    """The parameter-free shortcut: every `stride`-th pixel, and new channels of zeros."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Subsample and pad ``[N, H, W, in]`` to ``[N, ceil(H / stride), ceil(W / stride), out]``."""
        if not suits(x):
            return natively(super().forward, x)
        return elementwise_pooling.zero_pad_shortcut(x, self.stride, self.new_channels)


class MaxPool(nn.MaxPool2D):
    """Max-pooling."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Take each window's maximum: ``[N, H, W, C]`` to ``[N, H', W', C]``."""
        padding = _padding(self.padding)
        if padding is None or self.ceil_mode or not suits(x):
            return natively(super().forward, x)
        size = _pair(self.ksize)
        stride = size if self.stride is None else _pair(self.stride)
        window = Window(size, stride, *padding)
        if min(window.positions(*x.shape[1:3])) < 1:  # larger than the image: Paddle takes what there is
            return natively(super().forward, x)
        return elementwise_pooling.max_pool(x, window)


class ChannelsLastResNet(ResNet):
    """A ResNet whose layers between images and features are those of this module."""

    precision: Precision = "float32"
    """Of the images between the layers; input, output and parameters are float32."""

    def forward_features(self, x: paddle.Tensor) -> paddle.Tensor:
        """Images float32 ``[N, in_channels, H, W]`` to the last stage's features ``[N, channels, H', W']``."""
        return channels_first(self._channels_last_features(x)).cast(x.dtype)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Images float32 ``[N, in_channels, H, W]`` to logits ``[N, num_classes]``; without a head, to the features."""
        if not self.include_top:
            return self.forward_features(x)
        features = self._channels_last_features(x)
        if not suits(features):
            return self.forward_head(channels_first(features))
        return self.forward_pooled(elementwise_pooling.global_average_pool(features).cast(x.dtype))

    def forward_stages(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """Images float32 ``[N, in_channels, H, W]`` to each stage's output ``[N, channels, H', W']``."""
        return [channels_first(output).cast(x.dtype) for output in super().forward_stages(self._images(x))]

    def _channels_last_features(self, x: paddle.Tensor) -> paddle.Tensor:
        return super().forward_features(self._images(x))

    def _images(self, x: paddle.Tensor) -> paddle.Tensor:
        x = channels_last(x)
        return x.cast(self.precision) if suits(x) else x


def _pair(value: int | list[int] | tuple[int, ...]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _padding(padding: int | str | list[int] | tuple[int, ...]) -> tuple[Pair, Pair] | None:
    """Padding before and after, from Paddle's ``n``, ``[h, w]`` or ``[top, bottom, left, right]``; else None."""
    if isinstance(padding, int):
        padding = [padding] * 2
    if isinstance(padding, str) or not all(isinstance(size, int) for size in padding):
        return None
    if len(padding) == 2:
        return (padding[0], padding[1]), (padding[0], padding[1])
    if len(padding) == 4:
        return (padding[0], padding[2]), (padding[1], padding[3])
    return None
