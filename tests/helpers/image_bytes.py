"""Encoded images, whole and made by hand, and parts of JPEG and PNG files."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def smooth(height, width, seed=0):
    """A smooth random image, uint8 [height, width, 3]."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encoded(image, **options):
    """A Pillow image as a file's content, a PNG unless `format` says otherwise."""
    buffer = io.BytesIO()
    image.save(buffer, **{"format": "PNG", **options})
    return buffer.getvalue()


def segment(marker, body):
    """A segment of a JPEG."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def chunk(kind, body, damage=0):
    """A chunk of a PNG, whose checksum is wrong with `damage`."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ damage)


def png_start(width, height, depth=8, colour_type=2):
    """The signature and the header of a PNG, of RGB unless another type is given."""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))


def png_header(width, height):
    """A PNG that claims a size and holds no pixels."""
    return png_start(width, height) + chunk(b"IDAT", b"")


TIFF = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
"""Orientation 6, and nothing else."""


def behind_header(content, file_format, parts):
    """A JPEG (behind JFIF's segment) or a PNG (behind IHDR) with more in it."""
    place = 20 if file_format == "JPEG" else 33
    return content[:place] + parts + content[place:]
