"""Normalisation of pixels, as a layer of the network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paddle
from paddle import nn

from paddle_resnet.images import Pixels

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalize(nn.Layer):
    """``(pixel / 255 - mean) / std``: levels 0..255 ``[N, H, W, 3]`` to float32 ``[N, 3, H, W]``.

    The exported graph starts with it, so that its input is raw pixels. It adds nothing to a state dict.

    Args:
        mean: of the three channels, in 0..1.
        std: of the three channels, in 0..1.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)
        self._scale = (1 / (255 * np.array(self.std))).astype(np.float32)
        self._shift = (-np.array(self.mean) / np.array(self.std)).astype(np.float32)
        self.register_buffer("scale", paddle.to_tensor(self._scale), persistable=False)
        self.register_buffer("shift", paddle.to_tensor(self._shift), persistable=False)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        # Scale before the transpose: in Paddle, broadcasting along the last axis is several times faster on a CPU.
        return (images.astype("float32") * self.scale + self.shift).transpose([0, 3, 1, 2])

    def of_pixels(self, pixels: Pixels) -> paddle.Tensor:
        """Normalise uint8 ``[N, H, W, 3]`` of the host: the bits of `forward`, on a CPU in half the time."""
        if paddle.get_device() != "cpu":
            return self(paddle.to_tensor(pixels))
        planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        values = np.multiply(planes, self._scale[:, np.newaxis, np.newaxis], dtype=np.float32)
        values += self._shift[:, np.newaxis, np.newaxis]
        return paddle.to_tensor(values)

    def denormalize(self, images: paddle.Tensor | np.ndarray) -> Pixels:
        """Turn the network's input ``[N, 3, H, W]`` back into pixels, uint8 ``[N, H, W, 3]``."""
        values = np.asarray(images.numpy() if isinstance(images, paddle.Tensor) else images, dtype=np.float64)
        levels = (values.transpose(0, 2, 3, 1) * self.std + self.mean) * 255
        return np.clip(np.rint(levels), 0, 255).astype(np.uint8)
