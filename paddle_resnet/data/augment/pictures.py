"""Flips, turns, colour changes and blur, each with its own probability, by Pillow's operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from paddle_resnet.images import Indices, Mask, Pixels

if TYPE_CHECKING:
    from paddle_resnet.config import AugmentConfig  # a worker needs none

Numbers = NDArray[np.float64]

ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
"""Of colour jitter: brightness, contrast, saturation."""

SMALLEST_BLUR = 0.1


class PictureParams(NamedTuple):
    """These changes of a batch of n images, in the order in which they are made."""

    upside_down: Mask  # flipped top to bottom, ``[n]``
    quarter_turns: Indices  # turns by 90 degrees, counterclockwise, 0 to 3, ``[n]``
    angles: Numbers  # degrees counterclockwise, ``[n]``; 0: not rotated
    factors: Numbers  # of `ENHANCERS`, ``[n, 3]``; 1: unchanged
    orders: Indices  # the order of `ENHANCERS`, ``[n, 3]``
    grey: Mask  # without colour, ``[n]``
    blurs: Numbers  # standard deviation of the Gaussian in pixels, ``[n]``; 0: not blurred


def draw_pictures(count: int, config: AugmentConfig, generator: np.random.Generator) -> PictureParams | None:
    """Draw the changes of `count` images; None if the config asks for none of them.

    The ranges of colour jitter are those of torchvision's ``ColorJitter(s, s, s)``: factors from ``max(0, 1 - s)`` to
    ``1 + s``, in random order.
    """
    strengths = config.rotate, config.color_jitter, config.blur
    if not any((config.vertical_flip, config.quarter_turns, config.grey, *strengths)):
        return None

    def chosen(probability: float) -> Mask:
        return generator.random(count) < probability

    jitter = config.color_jitter
    upside_down = chosen(config.vertical_flip)
    turns = generator.integers(1, 4, count) * chosen(config.quarter_turns)
    angles = generator.uniform(-config.rotate, config.rotate, count) * chosen(config.rotate_probability)
    factors = generator.uniform(max(0, 1 - jitter), 1 + jitter, (count, len(ENHANCERS)))
    factors[~chosen(config.color_jitter_probability)] = 1
    orders = generator.random((count, len(ENHANCERS))).argsort(axis=1)
    grey = chosen(config.grey)
    blurs = generator.uniform(min(SMALLEST_BLUR, config.blur), config.blur, count) * chosen(config.blur_probability)
    return PictureParams(upside_down, turns, angles, factors, orders, grey, blurs)


def change_pictures(images: Pixels, params: PictureParams) -> None:
    """Change uint8 images ``[n, S, S, 3]`` in place; pixels from outside the image are black."""
    for pixels, *own in zip(images, *params, strict=True):
        pixels[:] = _change(pixels, PictureParams._make(own))


def _change(pixels: Pixels, params: PictureParams) -> Pixels | Image.Image:
    """Change one image by its own parameters, of which each is one number or row."""
    if params.upside_down:
        pixels = pixels[::-1]
    if params.quarter_turns:
        pixels = np.rot90(pixels, int(params.quarter_turns))
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if params.angles:
        image = image.rotate(float(params.angles), Image.Resampling.BILINEAR)
    for number in params.orders:
        if params.factors[number] != 1:
            image = ENHANCERS[number](image).enhance(float(params.factors[number]))
    if params.grey:
        image = image.convert("L").convert("RGB")
    if params.blurs:
        image = image.filter(ImageFilter.GaussianBlur(float(params.blurs)))
    return image
