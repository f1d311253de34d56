"""Decode an image, in the one way that training, evaluation and prediction share."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from paddle_resnet.errors import UsageError, printable, shown
from paddle_resnet.images import Box, Pixels, image_file
from paddle_resnet.images.image_file import FilePart

Source = str | Path | FilePart | bytes | Image.Image | np.ndarray

Image.init()
_WANTED = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM", "JPEG2000", "ICO", "AVIF")
FORMATS = tuple(kind for kind in _WANTED if kind in Image.OPEN)
"""Told by a file's content, not its name. Other formats of Pillow stay out; EPS, for one, runs programs."""
MAX_PIXELS = 64_000_000
BAND_PIXELS = 1 << 20
MAX_SCANS = 16  # scans of a JPEG of `MAX_PIXELS`, more of a smaller one. Progressive encoders make about 10.
DRAFT_MARGIN = 3
"""Shrinking a JPEG while decoding keeps the shorter side of what is used at this many times its final size or more."""
MAX_LENGTH = 4  # the longer side of a picture kept in memory is at most this many times the shorter one
SIXTEEN_BITS = 65_535
SIXTEEN_BIT_MODES = {"I", "I;16", "I;16L", "I;16B", "I;16N"}
ZERO_IS_WHITE = "zero is white"
"""Key in an image's `info`, of a TIFF of 16 bits, which Pillow does not invert as it does one of 8 bits."""

TRANSPOSE_BY_ORIENTATION = {  # the operation that undoes EXIF's orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow's warnings do not name the file: `pillow_warnings` adds the name. What matters becomes an error in this module.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())
_decoded_now = threading.local()


def decode_image(source: Source, resize: int, image_size: int, name: str | None = None) -> Pixels:
    """Decode an image, resize its shorter side to `resize`, and crop the square centre of `image_size`.

    EXIF's orientation is applied where it is valid; transparency becomes white; 16 bits are scaled to 8; an animation
    gives its first frame. Pillow's bilinear filter averages when shrinking (antialias) and interpolates when enlarging.
    Only the pixels that the crop needs are resized, so a very long image costs no more than a square one. A JPEG of at
    least six times `resize` is shrunk to 1/2, 1/4 or 1/8 while it is decoded, but never below three times `resize`.
    This halves the work or better, and changes a photograph by about one level of 255 in the mean.

    Args:
        source: a path, the bytes of a file, a Pillow image, or uint8 pixels ``[H, W]``, ``[H, W, 3]`` or ``[H, W, 4]``.
        resize: pixels of the shorter side.
        image_size: pixels a side of the result, at most `resize`.
        name: the image's name in errors; None: its path.

    Returns:
        uint8 RGB, ``[image_size, image_size, 3]``.

    Raises:
        UsageError: not a readable image, not a regular file, more than 64 million pixels, a JPEG of very many scans, or
            pixels of unknown range.
    """
    with _opened(source, name) as (image, name):
        return decode_pil_image(image, resize, image_size, name)


@contextlib.contextmanager
def pillow_warnings() -> Iterator[dict[str, str]]:
    """Yield lines by image's name: Pillow's first warning about each image decoded in the block, by any thread."""
    found: dict[str, str] = {}
    with warnings.catch_warnings():
        show = warnings.showwarning

        def collect(message: Warning | str, category: type[Warning], filename: str, *place: Any, **kind: Any) -> None:
            name = getattr(_decoded_now, "name", None)
            if name is None:
                show(message, category, filename, *place, **kind)
            else:
                found.setdefault(name, f"{name}: {shown(' '.join(str(message).split()), 200)}")

        warnings.showwarning = collect
        warnings.filterwarnings("always", module=r"PIL\.")
        yield found


def decode_crop(source: Source, box_in: Callable[[int, int], Box], size: int, flipped: bool) -> Pixels:
    """Decode an image, cut a box out of the whole of it, and resize the box, as torchvision's ``resized_crop`` does.

    A JPEG is shrunk while it is decoded, as in `decode_image`, where the box is at least six times `size`. `source` and
    errors are those of `decode_image`. `box_in` returns top, left, height and width of the box in an image of (height,
    width). Return uint8 RGB, ``[size, size, 3]``, flipped left to right where `flipped`.
    """
    with _opened(source) as (image, name):
        shrink = min(box_in(image.height, image.width)[2:]) / (DRAFT_MARGIN * size)
        if shrink >= 2:
            image.draft(None, (int(image.width / shrink), int(image.height / shrink)))
        upright = _load_upright(image, name)
        top, left, height, width = box_in(upright.height, upright.width)
        box = upright.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BILINEAR)
        return _pixels(box.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else box)


def decode_whole(source: Source, resize: int) -> Pixels:
    """Decode an image and resize its shorter side to `resize`; of a very long one, keep the middle (`MAX_LENGTH`).

    Return uint8 RGB, ``[resize, W, 3]`` or ``[H, resize, 3]``, whose middle square has the same bits as `decode_image`.
    Errors are those of `decode_image`.
    """
    with _opened(source) as (image, name):
        image.draft(None, (DRAFT_MARGIN * resize, DRAFT_MARGIN * resize))
        upright = _load_upright(image, name)
        width, height = upright.size
        axis = 1 if width > height else 0
        longer, shorter = max(upright.size), min(upright.size)
        resized = resize * longer // shorter
        first = centre_crop_offset(resized, resize)
        margin = min(first, (MAX_LENGTH - 1) * resize // 2)
        last = min(resized, first + resize + margin)
        parts = []
        for start, end in ((first - margin, first), (first, first + resize), (first + resize, last)):
            if start < end:
                along = (start * longer / resized, min(end * longer / resized, longer))
                box = (along[0], 0, along[1], shorter) if axis else (0, along[0], shorter, along[1])
                sides = (end - start, resize) if axis else (resize, end - start)
                parts.append(np.asarray(upright.resize(sides, Image.Resampling.BILINEAR, box=box)))
        return np.concatenate(parts, axis=axis)


def decode_square(source: Source, resize: int) -> Pixels:
    """Return the centre square of side `resize`, as `decode_image` or from what `decode_whole` returned."""
    if isinstance(source, np.ndarray) and min(source.shape[:2]) == resize:
        top, left = (centre_crop_offset(length, resize) for length in source.shape[:2])
        return source[top : top + resize, left : left + resize]
    return decode_image(source, resize, resize)


def decode_pil_image(image: Image.Image, resize: int, image_size: int, name: str) -> Pixels:
    """Decode and change an open image as `decode_image` does; errors are Pillow's, or a UsageError of unknown range."""
    image.draft(None, (DRAFT_MARGIN * resize, DRAFT_MARGIN * resize))
    return _pixels(resize_and_crop(_load_upright(image, name), resize, image_size))


def check_readable(source: Source) -> None:
    """Raise the UsageError of `decode_image`, if any; a JPEG is decoded at 1/8 of its size for this, others whole."""
    decode_image(source, resize=1, image_size=1)


def suffix_of(content: bytes, name: str) -> str:
    """Return the suffix of an image file's format, as ``.jpg``; `name` and errors are those of `decode_image`."""
    with _opened(content, name) as (image, _):
        kind = str(image.format)
    return {"JPEG": ".jpg", "MPO": ".jpg", "JPEG2000": ".jp2"}.get(kind, f".{kind.lower()}")


def centre_crop_offset(size: int, crop: int) -> int:
    """Return where a centred crop starts, rounded as in paddle.vision.transforms.CenterCrop."""
    return round((size - crop) / 2)


def resize_and_crop(image: Image.Image, resize: int, image_size: int) -> Image.Image:
    """Return the centre crop of the resized image, computed from the part of the original that it needs."""
    width, height = image.size
    if width == height == resize == image_size:
        return image
    shorter = min(width, height)
    boxes = []
    for length in (width, height):
        resized = resize * length // shorter
        # In two steps, as a folder's images are stored as the square of side `resize`.
        start = centre_crop_offset(resized, resize) + centre_crop_offset(resize, image_size)
        boxes.append((start * length / resized, (start + image_size) * length / resized))
    (left, right), (top, bottom) = boxes
    box = (left, top, min(right, width), min(bottom, height))
    return image.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box)


def resize_and_crop_batch(images: Pixels, resize: int, image_size: int) -> Pixels:
    """Resize and crop ``[n, h, h, 3]`` for evaluation as `decode_image` does: ``[n, image_size, image_size, 3]``."""
    if images.shape[1:3] != (resize, resize):
        return np.stack([np.asarray(resize_and_crop(Image.fromarray(each), resize, image_size)) for each in images])
    start = centre_crop_offset(resize, image_size)
    return images[:, start : start + image_size, start : start + image_size]


@contextlib.contextmanager
def _opened(source: Source, name: str | None = None) -> Iterator[tuple[Image.Image, str]]:
    """Open an image; yield it and its printable name. Errors within the block are `UsageError` that name it."""
    name = name or (str(source) if isinstance(source, str | Path | FilePart) else "the image given as bytes or pixels")
    name = printable(name)
    _decoded_now.name = name
    try:
        with _open(source, name) as image:
            yield image, name
    except UsageError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        raise _unreadable(name, error) from error
    finally:
        _decoded_now.name = None


def _pixels(image: Image.Image) -> Pixels:
    """Return the pixels of an RGB image as `numpy.asarray` does, in less time."""
    return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, 3)


def _load_upright(image: Image.Image, name: str) -> Image.Image:
    """Decode the pixels, apply EXIF's orientation, and convert any mode to RGB."""
    image.load()
    transpose = TRANSPOSE_BY_ORIENTATION.get(_orientation(image))
    return _to_rgb(image if transpose is None else image.transpose(transpose), name)


def _open(source: Source, name: str) -> Image.Image:
    if isinstance(source, Image.Image):
        image = source.copy()
        _check_size(image, name)
        return image
    if isinstance(source, np.ndarray):
        has_channels = source.ndim == 2 or (source.ndim == 3 and source.shape[2] in (3, 4))
        if source.dtype != np.uint8 or not has_channels or not source.size:
            raise UsageError(
                f"{name}: expected uint8 pixels of shape [H, W], [H, W, 3] or [H, W, 4], "
                f"found {source.dtype} of shape {list(source.shape)}"
            )
        return Image.fromarray(source)
    if isinstance(source, FilePart):
        data = image_file.read_part(source)
    else:
        data = source if isinstance(source, bytes) else image_file.read_file(source)
    if not data:
        raise ValueError("an empty file")
    if image_file.largest_icon_pixels(data) > MAX_PIXELS:
        raise ValueError(f"an icon of more than {MAX_PIXELS // 1_000_000} million pixels")
    try:
        image = Image.open(io.BytesIO(image_file.strip_metadata(data)), formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        if data[4:8] == b"ftyp" and re.search(rb"hei[cxms]|hev[cx]", data[8:40]):
            raise ValueError("HEIC is not supported; convert it, e.g. to JPEG") from error
        raise
    _check_size(image, name)
    scans = image_file.jpeg_scan_count(data)
    if image.width * image.height * scans > MAX_SCANS * MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels in {scans} scans, which would take very long")
    if image.format == "PNG":
        _scale_transparent_colour(image, depth=data[24])
    if image.format == "TIFF" and image.mode in SIXTEEN_BIT_MODES:
        image.info[ZERO_IS_WHITE] = image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0  # type: ignore[attr-defined]
    if (kind := _misread_pixels(image, data)) is not None:
        raise UsageError(f"{name}: holds {kind}, which cannot be read; save it with 8 bits a channel, or as PNG")
    return image


def _scale_transparent_colour(image: Image.Image, depth: int) -> None:
    """Bring the transparent colour of a PNG of `depth` bits to the 8 bits of the pixels, which Pillow does not."""
    colour = image.info.get("transparency")
    if image.mode == "L" and colour is not None:
        image.info["transparency"] = colour * 255 // (2**depth - 1)
    elif image.mode == "RGB" and colour is not None and depth == 16:
        image.info["transparency"] = tuple(level >> 8 for level in colour)


def _misread_pixels(image: Image.Image, data: bytes) -> str | None:
    """Return in words the kind of pixels that Pillow reads wrongly without an error; None for all others."""
    if image.format == "JPEG2000":
        # Its levels near the largest overflow to 0. After SIZ, 36 bytes of sizes, the channels and the depth of each.
        size = data.find(b"\xff\x4f\xff\x51")
        channels, depth = int.from_bytes(data[size + 40 : size + 42], "big"), data[size + 42] & 0x7F
        return "JPEG 2000 colours of more than 8 bits" if channels > 1 and depth > 7 else None
    if image.format != "TIFF":
        return None
    file: Any = image
    tags = file.tag_v2
    depth = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    if depth == 8 and 2 in tags.get(TiffImagePlugin.SAMPLEFORMAT, ()):
        return "signed pixels of 8 bits"
    if depth == 16 and tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2 and file.tile[0][0] == "raw":
        return "uncompressed planes of 16 bits"
    return None


def _orientation(image: Image.Image) -> int:
    """Return EXIF's orientation, 1 to 8; 1 (upright) if the data are invalid."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises almost anything on damaged data
        return 1


def _check_size(image: Image.Image, name: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise UsageError(
            f"{name}: {image.width} x {image.height} pixels, more than {MAX_PIXELS // 1_000_000} million; "
            "make it smaller or remove it"
        )


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Convert any mode. Pillow itself has scaled 16-bit colours while decoding."""
    if image.mode == "RGB" and not image.has_transparency_data:
        image.load()
        return image
    if image.mode == "F":
        raise _unknown_range(name, "floating-point")
    if image.mode not in SIXTEEN_BIT_MODES and not image.has_transparency_data:
        return image.convert("RGB")
    # Band by band: copies of the largest images would take a gigabyte.
    converted = Image.new("RGB", image.size)
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(image.height, top + rows)))
        converted.paste(_band_to_rgb(band, name), (0, top))
    return converted


def _band_to_rgb(band: Image.Image, name: str) -> Image.Image:
    """Convert pixels of 16 bits, or with transparency."""
    if band.mode in SIXTEEN_BIT_MODES:
        # Pillow's own conversion clips at 255: nearly all of a 16-bit image would be white.
        levels = np.asarray(band)
        if levels.min() < 0 or levels.max() > SIXTEEN_BITS:
            raise _unknown_range(name, "32-bit")
        grey = np.rint(levels / (SIXTEEN_BITS / 255)).astype(np.uint8)
        if band.info.get(ZERO_IS_WHITE):
            grey = 255 - grey
        grey[levels == band.info.get("transparency", -1)] = 255
        return Image.fromarray(grey).convert("RGB")
    white = Image.new("RGBA", band.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, band.convert("RGBA")).convert("RGB")


def _unknown_range(name: str, pixels: str) -> UsageError:
    return UsageError(f"{name}: holds {pixels} pixels of unknown range; save it with 8 or 16 bits a channel")


def _unreadable(name: str, error: Exception) -> UsageError:
    if isinstance(error, FileNotFoundError):
        return UsageError(f"{name}: no such file")
    if isinstance(error, OSError) and error.strerror:  # of the system; Pillow's own have a text only
        return UsageError(f"{name}: cannot be read ({error.strerror})")
    if isinstance(error, Image.UnidentifiedImageError):
        reason = f"none of {', '.join(FORMATS)}"
    elif isinstance(error, Image.DecompressionBombError):
        reason = f"more than {MAX_PIXELS // 1_000_000} million pixels"
    else:
        reason = shown(" ".join(str(error).split()), 300) or type(error).__name__
    return UsageError(f"{name}: cannot be read as an image ({reason}){image_file.REPLACE_IT}")
