"""The one way a picture file becomes pixels: for training, for measuring and for prediction alike."""

from __future__ import annotations

import io
import logging
import re
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from paddle_resnet.errors import UsageError, printable, shown
from paddle_resnet.images import Pixels
from paddle_resnet.images.picture_file import icon_pixels, read_file, scan_count, without_metadata

Source = str | Path | bytes | Image.Image | np.ndarray

Image.init()
_WANTED = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM", "JPEG2000", "ICO", "AVIF")
FORMATS = tuple(kind for kind in _WANTED if kind in Image.OPEN)
"""By a file's content, whatever its name is: of the others that Pillow knows, EPS runs programs."""
MAX_PIXELS = 64_000_000
BAND_PIXELS = 1 << 20
MOST_PASSES = 16
"""Over the largest picture, or as many pixels in all: a JPEG's scans. Progressive encoders make about 10."""
DRAFT_MARGIN = 3
"""How many times `resize` a JPEG's shorter side keeps when it is shrunk while it is decoded."""
SIXTEEN_BITS = 65_535
SIXTEEN_BIT_MODES = {"I", "I;16", "I;16L", "I;16B", "I;16N"}

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes EXIF's orientation."""

# What matters becomes an error here: Pillow's warnings would stand among a program's lines, without the file's name.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())


def decode_image(source: Source, resize: int, image_size: int, name: str | None = None) -> Pixels:
    """Decode a picture, bring its shorter side to `resize`, and cut out the square centre of `image_size`.

    Rotated as its EXIF data say, where they can be understood; transparency becomes white; 16 bits are scaled to 8; of
    an animation the first frame. Resized with Pillow's bilinear filter, which averages when shrinking (antialias) and
    interpolates when enlarging. Only the pixels that the centre needs are resized, so a very long picture costs no more
    than a square one. A JPEG of at least six times `resize` is shrunk to a half, a quarter or an eighth while it is
    decoded, but never below three times `resize`: half the work or less, and about one level of 255 from the same
    picture decoded whole (mean over a photograph's pixels).

    Args:
        source: a path, the bytes of a file, a Pillow image, or uint8 pixels ``[H, W]``, ``[H, W, 3]`` or ``[H, W, 4]``.
        resize: pixels of the shorter side.
        image_size: pixels a side of the result, at most `resize`.
        name: what an error calls the picture; its path where None.

    Returns:
        uint8 RGB, ``[image_size, image_size, 3]``.

    Raises:
        UsageError: not a readable picture, no regular file, more than 64 million pixels, a JPEG of very many scans, or
            pixels whose range is not known.
    """
    name = name or (str(source) if isinstance(source, (str, Path)) else "the picture given as bytes or pixels")
    name = printable(name)
    try:
        with _open(source, name) as image:
            return decode_opened(image, resize, image_size, name)
    except UsageError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        raise _unreadable(name, error) from error


def decode_opened(image: Image.Image, resize: int, image_size: int, name: str) -> Pixels:
    """What `decode_image` makes of a picture, of one that is open; it is changed.

    Raises:
        Exception: almost any of Pillow's own, for damaged files.
        UsageError: pixels whose range is not known.
    """
    image.draft(None, (DRAFT_MARGIN * resize, DRAFT_MARGIN * resize))
    image.load()
    turn = TURNS.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    return np.asarray(resized_centre(_to_rgb(image, name), resize, image_size))


def check_picture(path: Path) -> None:
    """Refuse what `decode_image` would: a JPEG is decoded to an eighth of its size for that, anything else whole.

    Raises:
        UsageError: as `decode_image`.
    """
    decode_image(path, resize=1, image_size=1)


def centre_offset(size: int, crop: int) -> int:
    """Where a centred crop starts, rounded as paddle.vision.transforms.CenterCrop rounds it."""
    return round((size - crop) / 2)


def _open(source: Source, name: str) -> Image.Image:
    if isinstance(source, Image.Image):
        image = source.copy()
        _check_size(image, name)
        return image
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or not (source.ndim == 2 or (source.ndim == 3 and source.shape[2] in (3, 4))):
            raise UsageError(
                f"{name}: expected uint8 pixels of shape [H, W], [H, W, 3] or [H, W, 4], "
                f"found {source.dtype} of shape {list(source.shape)}"
            )
        return Image.fromarray(source)
    data = source if isinstance(source, bytes) else read_file(Path(source))
    if not data:
        raise ValueError("an empty file")
    if icon_pixels(data) > MAX_PIXELS:
        raise ValueError(f"an icon of more than {MAX_PIXELS // 1_000_000} million pixels")
    try:
        image = Image.open(io.BytesIO(without_metadata(data)), formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        if data[4:8] == b"ftyp" and re.search(rb"hei[cxms]|hev[cx]", data[8:40]):
            raise ValueError("HEIC, which is not read; convert it, e.g. to JPEG") from error
        raise
    _check_size(image, name)
    scans = scan_count(data)
    if image.width * image.height * scans > MOST_PASSES * MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels in {scans} scans, which would take very long")
    return image


def _orientation(image: Image.Image) -> int:
    """EXIF's number from 1 to 8; 1, as it lies, where the data cannot be understood."""
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
    """Convert any mode; 16-bit colours have been scaled by Pillow itself as they were decoded."""
    if image.mode == "RGB" and not image.has_transparency_data:
        image.load()
        return image
    if image.mode == "F":
        raise _unknown_range(name, "floating-point")
    if image.mode not in SIXTEEN_BIT_MODES and not image.has_transparency_data:
        return image.convert("RGB")
    # Band by band: copies of the largest pictures would take a gigabyte.
    picture = Image.new("RGB", image.size)
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(image.height, top + rows)))
        picture.paste(_band_to_rgb(band, name), (0, top))
    return picture


def _band_to_rgb(band: Image.Image, name: str) -> Image.Image:
    """Convert pixels of 16 bits, or with transparency."""
    if band.mode in SIXTEEN_BIT_MODES:
        # Pillow's own conversion cuts everything above 255 off: nearly all of a 16-bit picture would be white.
        levels = np.asarray(band)
        if levels.min() < 0 or levels.max() > SIXTEEN_BITS:
            raise _unknown_range(name, "32-bit")
        return Image.fromarray(np.rint(levels / (SIXTEEN_BITS / 255)).astype(np.uint8)).convert("RGB")
    picture = band.convert("RGBA")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture).convert("RGB")


def resized_centre(image: Image.Image, resize: int, image_size: int) -> Image.Image:
    """The centre of the resized picture, computed from its share of the original alone."""
    width, height = image.size
    if width == height == resize == image_size:
        return image
    shorter = min(width, height)
    boxes = []
    for length in (width, height):
        resized = resize * length // shorter
        # In two steps, by way of the square of side `resize`, which is what a folder's pictures are stored as.
        start = centre_offset(resized, resize) + centre_offset(resize, image_size)
        boxes.append((start * length / resized, (start + image_size) * length / resized))
    (left, right), (top, bottom) = boxes
    box = (left, top, min(right, width), min(bottom, height))
    return image.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box)


def _unknown_range(name: str, pixels: str) -> UsageError:
    return UsageError(
        f"{name}: holds {pixels} pixels, whose black and white are not known; save it with 8 or 16 bits a channel"
    )


def _unreadable(name: str, error: Exception) -> UsageError:
    if isinstance(error, FileNotFoundError):
        return UsageError(f"{name}: no such file")
    if isinstance(error, Image.UnidentifiedImageError):
        reason = f"none of {', '.join(FORMATS)}"
    elif isinstance(error, Image.DecompressionBombError):
        reason = f"more than {MAX_PIXELS // 1_000_000} million pixels"
    else:
        reason = shown(" ".join(str(error).split()), 300) or type(error).__name__
    return UsageError(f"{name}: cannot be read as a picture ({reason}); remove or replace it")
