"""A prediction drawn on its picture, with the places that speak for it beside."""

from __future__ import annotations

import functools

import numpy as np
from matplotlib import font_manager
from matplotlib.colors import to_rgb
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from paddle_resnet.plots.style import RED, available_fonts

OPACITY = 0.65  # of the strongest heat
GAP = 8  # pixels


def annotate(pixels: np.ndarray, caption: str, seen: np.ndarray | None = None) -> Image.Image:
    """Draw a caption of one line on a picture ``[H, W, 3]``, white on a dark strip, as large as fits.

    An image that is `seen`, such as `heated`, uint8 ``[S, S, 3]``, is set beside the picture.
    """
    picture = Image.fromarray(pixels)
    if seen is not None:
        side, height = Image.fromarray(seen), picture.height
        whole = Image.new("RGB", (picture.width + GAP + height, height), "white")
        whole.paste(picture, (0, 0))
        whole.paste(side.resize((height, height), Image.Resampling.BILINEAR), (picture.width + GAP, 0))
        picture = whole
    size = max(12, min(pixels.shape[0] // 14, int(1.5 * (pixels.shape[1] - 10) / len(caption))))
    font = ImageFont.truetype(_font_of(caption), size)
    left, top, right, bottom = font.getbbox(caption)
    strip = Image.new("RGBA", (int(right - left) + size, int(bottom - top) + size // 2), (20, 20, 20, 190))
    ImageDraw.Draw(strip).text((size // 2 - left, size // 4 - top), caption, font=font, fill="white")
    picture.paste(strip, (0, 0), strip)
    return picture


def heated(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Blend a map, float32 ``[T, T]`` in 0..1, into an image ``[S, S, 3]``; return uint8 ``[T, T, 3]``."""
    image = np.asarray(Image.fromarray(pixels).resize(heat.shape[::-1], Image.Resampling.BILINEAR), np.float32)
    share = OPACITY * heat[..., np.newaxis]
    return np.rint(image * (1 - share) + 255 * np.array(to_rgb(RED)) * share).astype(np.uint8)


@functools.lru_cache(256)
def _font_of(text: str) -> str:
    """Return the first font file that has all characters of `text`, or else the default one."""
    files = [font_manager.findfont(name) for name in available_fonts()]
    return next((file for file in files if set(map(ord, text)) <= FT2Font(file).get_charmap().keys()), files[0])
