"""Paddle's and this package's layers on ``[N, H, W, C]``, float32 or bfloat16, computed by oneDNN.

Each class only replaces `forward` of its base, so that `accelerate` can assign it to a layer's ``__class__``. What
oneDNN cannot compute is left to the base.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import paddle
from paddle import nn

from paddle_resnet.models import blocks, preact, sync_batch_norm
from paddle_resnet.models.resnet import ResNet
from paddle_resnet.onednn import recorded_step
from paddle_resnet.onednn.convolution import conv2d
from paddle_resnet.onednn.geometry import Pair, Window
from paddle_resnet.onednn.normalization import batch_norm
from paddle_resnet.onednn.pooling import average_pool2d, global_average_pool, max_pool2d
from paddle_resnet.onednn.residual import add, fork, zero_pad_shortcut
from paddle_resnet.onednn.tensors import DATA_TYPES, as_channels_last, wants_gradient
from paddle_resnet.onednn.tracing import NotTraceableError, PlannedTensor
from paddle_resnet.paddle_compat import batch_norm_settings, convolution_settings

Precision = Literal["float32", "bfloat16"]


def channels_first(x: paddle.Tensor) -> paddle.Tensor:
    """``[N, H, W, C]`` to ``[N, C, H, W]``."""
    return x.transpose([0, 3, 1, 2])


def channels_last(x: paddle.Tensor) -> paddle.Tensor:
    """``[N, C, H, W]`` to ``[N, H, W, C]``."""
    return x.transpose([0, 2, 3, 1])


def is_supported(x: paddle.Tensor) -> bool:
    """Return whether oneDNN's layers can compute on this tensor."""
    if isinstance(x, PlannedTensor):
        return True
    return paddle.in_dynamic_mode() and x.dtype in DATA_TYPES and x.place.is_cpu_place() and 0 not in x.shape


def run_native(forward: Callable[[paddle.Tensor], paddle.Tensor], x: paddle.Tensor) -> paddle.Tensor:
    """Call the `forward` of Paddle's layer on ``[N, H, W, C]``."""
    return channels_last(in_float32(forward, channels_first(x)))


def in_float32(forward: Callable[[paddle.Tensor], paddle.Tensor], x: paddle.Tensor) -> paddle.Tensor:
    """Call the `forward` of Paddle's layer where the layout does not matter.

    Paddle has few operators for bfloat16 on the CPU: a bfloat16 tensor is cast to float32 before, and back afterwards.
    """
    if isinstance(x, PlannedTensor):
        raise NotTraceableError("a layer is computed by Paddle")
    return forward(x.cast(paddle.float32)).cast(paddle.bfloat16) if x.dtype == paddle.bfloat16 else forward(x)


class Convolution(nn.Conv2D):
    """A convolution, zero-padded, with a weight ``[out, in / groups, kh, kw]`` as `nn.Conv2D` has it."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        settings, weight = convolution_settings(self), self.weight
        padding = _padding(settings.padding)
        if padding is None or not settings.zero_padded or not is_supported(x):
            return run_native(super().forward, x)
        window = Window(tuple(weight.shape[2:]), _pair(settings.stride), *padding, _pair(settings.dilation))
        if not window.sees_pixels(*x.shape[1:3]):
            return run_native(super().forward, x)
        return conv2d(x, weight, self.bias, window, settings.groups)


class BatchNorm(nn.BatchNorm2D):
    """Batch normalisation over N, H and W."""

    relu = False
    synchronized = False

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        momentum, epsilon, use_global_stats = batch_norm_settings(self)
        use_batch = self.training and not use_global_stats
        synchronized = self.synchronized and use_batch
        # A single value in each channel has no variance: Paddle returns it unchanged in training.
        single = self.training and not synchronized and math.prod(x.shape) == x.shape[-1]
        if single or not is_supported(x):
            x = run_native(super().forward, x)
            return nn.functional.relu(x) if self.relu else x
        tensors = (x, self.weight, self.bias, self._mean, self._variance)
        options = {"training": use_batch, "relu": self.relu, "synchronized": synchronized}
        return batch_norm(*tensors, momentum=momentum, epsilon=epsilon, **options)


class BatchNormReLU(BatchNorm):
    """Batch normalisation and the ReLU after it in one pass over memory."""

    relu = True


class SyncBatchNorm(BatchNorm, sync_batch_norm.SyncBatchNorm):
    """Batch normalisation over N, H and W of all processes' images."""

    synchronized = True


class SyncBatchNormReLU(SyncBatchNorm):
    """`SyncBatchNorm` and the ReLU after it in one pass over memory."""

    relu = True


class FusedReLU(nn.ReLU):
    """A ReLU that does nothing, as the `BatchNormReLU` before it computes it."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return x


class Fork(blocks.Fork):
    """A block's input for both of its paths."""

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        return fork(x) if is_supported(x) else super().forward(x)


class AddReLU(blocks.AddReLU):
    """``relu(x + shortcut)`` at the end of a residual block."""

    def forward(self, x: paddle.Tensor, shortcut: paddle.Tensor) -> paddle.Tensor:
        if not is_supported(x):
            return super().forward(x, shortcut)
        return add(x, shortcut, relu=True, share_gradient=True)


class ZeroPadShortcut(blocks.ZeroPadShortcut):
    """The parameter-free shortcut: every `stride`-th pixel, and new channels of zeros."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if not is_supported(x):
            return run_native(super().forward, x)
        return zero_pad_shortcut(x, self.stride, self.new_channels)


class MaxPool(nn.MaxPool2D):
    """Max-pooling."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        window = _pool_window(self, x)
        return run_native(super().forward, x) if window is None else max_pool2d(x, window)


class Add(preact.Add):
    """``x + shortcut`` at the end of a block that activates first."""

    def forward(self, x: paddle.Tensor, shortcut: paddle.Tensor) -> paddle.Tensor:
        if not is_supported(x):
            return super().forward(x, shortcut)
        return add(x, shortcut, share_gradient=True)


class StochasticDepth(blocks.StochasticDepth):
    """A residual branch that is dropped for some images."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return in_float32(super().forward, x)


class Dropout(nn.Dropout):
    """Dropout between convolutions."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return in_float32(super().forward, x)


class AveragePool(nn.AvgPool2D):
    """Average-pooling."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        window = _pool_window(self, x)
        if window is None or self.divisor is not None or any(window.padding_before + window.padding_after):
            return run_native(super().forward, x)
        return average_pool2d(x, window)


class ChannelsLastResNet(ResNet):
    """A ResNet with the layers of this module between images and features."""

    precision: Precision = "float32"
    """Type of the activations between the layers; input, output and parameters are float32."""

    def forward_features(self, x: paddle.Tensor) -> paddle.Tensor:
        """Images float32 ``[N, in_channels, H, W]`` to the last stage's features ``[N, channels, H', W']``."""
        return channels_first(self._channels_last_features(x)).cast(x.dtype)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Images float32 ``[N, in_channels, H, W]`` to logits ``[N, num_classes]``; without a head, to the features."""
        if not self.include_top:
            return self.forward_features(x)
        if is_supported(x) and x.dtype == paddle.float32:
            recorded = recorded_step.run(self, self._pooled, x)
            pooled = self._pooled(x) if recorded is None else recorded
            return self.forward_pooled(pooled.reshape([x.shape[0], -1]).cast(x.dtype))
        features = self._channels_last_features(x)
        return self.forward_head(channels_first(features))

    def forward_stages(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """Images float32 ``[N, in_channels, H, W]`` to each stage's output ``[N, channels, H', W']``."""
        return [channels_first(output).cast(x.dtype) for output in super().forward_stages(self._images(x))]

    def _pooled(self, x: paddle.Tensor) -> paddle.Tensor:
        """Images float32 ``[N, in_channels, H, W]`` to means over H and W, ``[N, 1, 1, channels]``."""
        return global_average_pool(self._channels_last_features(x))

    def _channels_last_features(self, x: paddle.Tensor) -> paddle.Tensor:
        return super().forward_features(self._images(x))

    def _images(self, x: paddle.Tensor) -> paddle.Tensor:
        if len(x.shape) != 4:
            raise ValueError(f"images: expected [N, C, H, W], got {list(x.shape)}")
        supported = is_supported(x)
        if supported and x.dtype == paddle.float32 and not wants_gradient(x):
            return as_channels_last(x, getattr(paddle, self.precision))
        x = channels_last(x)
        return x.cast(self.precision) if supported else x


def _pair(value: int | list[int] | tuple[int, ...]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _pool_window(layer: nn.MaxPool2D | nn.AvgPool2D, x: paddle.Tensor) -> Window | None:
    """Return the window of a pooling of ``[N, H, W, C]``; None if oneDNN cannot compute it."""
    padding, size = _padding(layer.padding), _pair(layer.ksize)
    if padding is None or not is_supported(x):
        return None
    window = Window(size, size if layer.stride is None else _pair(layer.stride), *padding)
    height, width = x.shape[1:3]
    if min(window.positions(height, width)) < 1:  # larger than the image: Paddle pools the whole image
        return None
    return None if layer.ceil_mode and not window.ends_with(height, width) else window


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
