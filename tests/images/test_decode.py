"""Decoding an image, against Pillow and paddle.vision's transforms."""

import io
import os
import socket
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from paddle_resnet.errors import UsageError
from paddle_resnet.images import decode, image_file
from paddle_resnet.images.decode import decode_image, pillow_warnings
from paddle_resnet.images.image_file import jpeg_scan_count, strip_metadata


def smooth(height, width, seed=0):
    """A smooth random image, uint8 [height, width, 3]."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encoded(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **{"format": "PNG", **options})
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(100, 100), (123, 77), (77, 124), (33, 20), (400, 90)])
@pytest.mark.parametrize(("resize", "image_size"), [(64, 56), (64, 64), (32, 31), (100, 86)])
def test_shorter_side_then_centre_as_paddle_vision(size, resize, image_size):
    from paddle.vision import transforms

    picture = Image.fromarray(smooth(*size))
    reference = transforms.CenterCrop(resize)(transforms.Resize(resize, interpolation="bilinear")(picture))
    reference = np.asarray(transforms.CenterCrop(image_size)(reference))
    found = decode_image(encoded(picture), resize, image_size)
    assert found.shape == (image_size, image_size, 3)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - reference).max() <= 1


def test_a_picture_of_the_right_size_is_unchanged():
    pixels = smooth(32, 32)
    np.testing.assert_array_equal(decode_image(pixels, 32, 32), pixels)


def test_path_bytes_pillow_and_pixels_agree(tmp_path):
    pixels = smooth(50, 70)
    picture = Image.fromarray(pixels)
    path = tmp_path / "a.png"
    picture.save(path)
    reference = decode_image(path, 32, 28)
    for source in (str(path), path.read_bytes(), picture, pixels):
        np.testing.assert_array_equal(decode_image(source, 32, 28), reference)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation):
    pixels = smooth(40, 40)
    # EXIF 2.32, tag 0x0112: how the stored rows and columns lie in the upright picture; undone by its inverse.
    stored = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, 1),
        7: np.rot90(pixels.transpose(1, 0, 2), 2),
        8: np.rot90(pixels, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    np.testing.assert_array_equal(decode_image(content, 40, 40), pixels)


def test_grey_is_replicated():
    grey = smooth(32, 32)[..., 0]
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(grey)), 32, 32), np.stack([grey] * 3, -1))
    np.testing.assert_array_equal(decode_image(grey, 32, 32), np.stack([grey] * 3, -1))


def test_sixteen_bit_grey_is_scaled():
    levels = np.linspace(0, 65535, 32 * 32).reshape(32, 32)
    found = decode_image(encoded(Image.fromarray(levels.astype(np.uint16))), 32, 32)
    np.testing.assert_allclose(found[..., 0], levels / 65535 * 255, atol=0.51)


def sixteen_bit_tiff(levels, order):
    """An uncompressed TIFF, [H, W] or [H, W, 3] of uint16, written by hand: TIFF 6.0, section 2 (`<` II, `>` MM)."""
    height, width = levels.shape[:2]
    samples = levels.size // (height * width)
    pixels = levels.astype(f"{order}u2").tobytes()
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, samples, 16), (259, 3, 1, 1),
        (262, 3, 1, 1 if samples == 1 else 2), (273, 4, 1, 0), (277, 3, 1, samples), (278, 4, 1, height),
        (279, 4, 1, len(pixels)),
    ]  # fmt: skip
    behind = 8 + 2 + 12 * len(entries) + 4
    bits = struct.pack(f"{order}3H", 16, 16, 16)
    content = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8) + struct.pack(
        f"{order}H", len(entries)
    )
    for tag, kind, count, value in entries:
        value = {258: behind if samples == 3 else value, 273: behind + len(bits)}.get(tag, value)
        short = kind == 3 and count == 1
        content += struct.pack(f"{order}HHI", tag, kind, count) + struct.pack(
            f"{order}{'HH' if short else 'I'}", *([value, 0] if short else [value])
        )
    return content + struct.pack(f"{order}I", 0) + bits + pixels


def png_of(rows, width, depth, colour_type, transparent=()):
    """A PNG written by hand, with one colour transparent: rows of bytes without a filter."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0))
    colour = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) if transparent else b""
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + head + colour + body + chunk(b"IEND", b"")


def sixteen_bit_png(levels, transparent=()):
    """A PNG of 16 bits a channel, ``[H, W, 1]`` or ``[H, W, 3]``, of which Pillow cannot write the second."""
    rows = [row.astype(">u2").tobytes() for row in levels]
    return png_of(rows, levels.shape[1], 16, 0 if levels.shape[2] == 1 else 2, transparent)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bit_tiffs_are_scaled(order, channels):
    levels = np.linspace(0, 65535, 32 * 32 * channels).reshape(32, 32, channels).round()
    found = decode_image(sixteen_bit_tiff(levels if channels == 3 else levels[..., 0], order), 32, 32)
    # Pillow takes a colour's upper eight bits: up to one level below the rounded one.
    np.testing.assert_allclose(found, np.broadcast_to(levels / 257, (32, 32, 3)), atol=1)


def test_sixteen_bit_colour_is_scaled():
    levels = np.linspace(0, 65535, 32 * 32 * 3).reshape(32, 32, 3).round()
    np.testing.assert_allclose(decode_image(sixteen_bit_png(levels), 32, 32), levels / 257, atol=1)


@pytest.mark.parametrize(
    ("pixels", "kind"),
    [(np.full((8, 8), 0.5, np.float32), "floating-point"), (np.full((8, 8), 70_000, np.int32), "32-bit")],
)
def test_pixels_of_unknown_range_are_refused(pixels, kind):
    with pytest.raises(UsageError, match=rf"x\.tif: holds {kind} pixels.* 8 or 16 bits"):
        decode_image(encoded(Image.fromarray(pixels), format="TIFF"), 8, 8, name="x.tif")


def tiff_with(content, order, tag, value):
    """A TIFF of one strip with another value of a tag that it has: a short one, in its place."""
    entry = content.index(struct.pack(f"{order}HHI", tag, 3, 1)) + 8
    return content[:entry] + struct.pack(f"{order}H", value) + content[entry + 2 :]


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_sixteen_bit_tiff_with_zero_as_white_is_inverted(compression):
    levels = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    content = tiff_with(encoded(Image.fromarray(levels), format="TIFF", compression=compression), "<", 262, 0)
    np.testing.assert_allclose(decode_image(content, 32, 32)[..., 0], 255 - levels / 257, atol=0.51)


def test_pixels_that_pillow_misreads_are_refused():
    tiff = encoded(Image.fromarray(smooth(8, 8)[..., 0]), format="TIFF", tiffinfo={339: 2})
    with pytest.raises(UsageError, match=r"x\.tif: holds signed pixels of 8 bits, .*save it with 8 bits"):
        decode_image(tiff, 8, 8, name="x.tif")
    planes = bytearray(sixteen_bit_tiff(np.zeros((8, 8, 3)), "<"))
    planes[8:10] = struct.pack("<H", 10)
    planes = planes[:118] + struct.pack("<HHIHH", 284, 3, 1, 2, 0) + planes[118:]
    for tag, kind, value in ((258, 3, 134), (273, 4, 140)):  # what lies behind the tags has moved
        entry = planes.index(struct.pack("<HH", tag, kind)) + 8
        planes[entry : entry + 4] = struct.pack("<I", value)
    with pytest.raises(UsageError, match=r"x\.tif: holds uncompressed planes of 16 bits"):
        decode_image(bytes(planes), 8, 8, name="x.tif")


def test_jpeg_2000_of_more_than_eight_bits_is_read_if_grey():
    levels = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    grey = decode_image(encoded(Image.fromarray(levels), format="JPEG2000"), 32, 32)
    np.testing.assert_allclose(grey[..., 0], levels / 257, atol=0.51)
    colour = bytearray(encoded(Image.fromarray(smooth(32, 32)), format="JPEG2000"))
    np.testing.assert_array_equal(decode_image(bytes(colour), 32, 32), smooth(32, 32))
    depths = colour.index(b"\xff\x4f\xff\x51") + 42
    for channel in range(3):
        colour[depths + 3 * channel] = 15  # of 16 bits
    with pytest.raises(UsageError, match=r"x\.jp2: holds JPEG 2000 colours of more than 8 bits, "):
        decode_image(bytes(colour), 32, 32, name="x.jp2")


@pytest.mark.parametrize(
    ("mode", "colour"), [("1", 1), ("LA", (255, 255)), ("PA", None), ("HSV", (0, 0, 255)), ("RGBX", (255,) * 4)]
)
def test_rarer_modes_are_converted(mode, colour):
    picture = (
        Image.new("L", (8, 8), 255).convert("P").convert("PA") if mode == "PA" else Image.new(mode, (8, 8), colour)
    )
    assert (decode_image(picture, 8, 8) == 255).all()


def test_shrinking_a_jpeg_while_decoding_changes_little():
    from sklearn.datasets import load_sample_image

    photo = Image.fromarray(load_sample_image("china.jpg"))
    content = encoded(photo, format="JPEG", quality=90)
    drafted = decode_image(content, 32, 32).astype(int)  # 427 pixels are more than 4 * 3 * 32: decoded at a quarter
    whole = decode_image(Image.open(io.BytesIO(content)), 32, 32).astype(int)
    assert not (drafted == whole).all()
    assert np.abs(drafted - whole).mean() < 1.2


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_shrunk_jpeg_is_turned_too(orientation):
    pixels = smooth(400, 640)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = np.rot90(pixels, {3: 2, 6: -1}[orientation])
    found = decode_image(encoded(Image.fromarray(pixels), format="JPEG", quality=95, exif=exif), 16, 16)
    assert np.abs(found.astype(int) - decode_image(np.ascontiguousarray(turned), 16, 16)).mean() < 3


def test_transparency_becomes_white():
    colour = smooth(32, 32)
    alpha = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (32, 1))
    found = decode_image(encoded(Image.fromarray(np.dstack([colour, alpha]))), 32, 32)
    share = alpha[..., None] / 255
    np.testing.assert_allclose(found, colour * share + 255 * (1 - share), atol=1)


@pytest.mark.parametrize(("depth", "level"), [(1, 1), (2, 2), (4, 3), (8, 77)])
def test_one_transparent_level_becomes_white(depth, level):
    """PNG 1.2, 4.2.1.2: the level is one of the file's own, of as many bits as the pixels."""
    levels = np.arange(256).reshape(16, 16) % 2**depth
    places = 1 << np.arange(depth)[::-1]
    rows = [np.packbits((row[:, np.newaxis] & places) > 0).tobytes() for row in levels]
    expected = np.where(levels == level, 255, levels * 255 // (2**depth - 1))
    found = decode_image(png_of(rows, 16, depth, 0, (level,)), 16, 16)
    np.testing.assert_array_equal(found, np.repeat(expected[..., np.newaxis], 3, -1))


@pytest.mark.parametrize("channels", [1, 3])
def test_one_transparent_colour_of_sixteen_bits_becomes_white(channels):
    levels = np.arange(8 * 8 * channels).reshape(8, 8, channels) * 300
    expected = levels // 257
    expected[5, 6] = 255
    found = decode_image(sixteen_bit_png(levels, levels[5, 6].tolist()), 8, 8)
    np.testing.assert_allclose(found, np.broadcast_to(expected, (8, 8, 3)), atol=1)


def test_a_transparent_palette_becomes_white():
    picture = Image.new("P", (16, 16), 0)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.paste(1, (8, 0, 16, 16))
    found = decode_image(encoded(picture, transparency=0), 16, 16)
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[0, 15].tolist() == [200, 100, 50]


@pytest.mark.parametrize("file_format", ["JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
def test_formats(file_format):
    pixels = smooth(32, 32)
    found = decode_image(encoded(Image.fromarray(pixels), format=file_format), 32, 32)
    assert np.abs(found.astype(int) - pixels).mean() < 12  # lossy formats and GIF's palette


def test_cmyk_is_converted():
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert decode_image(encoded(red, format="TIFF"), 16, 16)[0, 0].tolist() == [255, 0, 0]


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], format="GIF", save_all=True, append_images=frames[1:])
    assert decode_image(content, 16, 16)[0, 0].tolist() == [255, 0, 0]


def test_very_long_image_costs_no_more_than_a_square():
    # Resized whole, it would have 256 x 15 million pixels.
    found = decode_image(np.full((1, 60_000, 3), 7, np.uint8), 256, 224)
    assert found.shape == (224, 224, 3)
    assert (found == 7).all()


def png_header(width, height):
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"")


@pytest.mark.parametrize("side", [9_000, 60_000])
def test_too_many_pixels_are_refused_before_decoding(side):
    with pytest.raises(UsageError, match=r"bomb\.png: .*million"):
        decode_image(png_header(side, side), 32, 32, name="bomb.png")


def test_a_text_file_named_jpg(tmp_path):
    path = tmp_path / "cat.jpg"
    path.write_text("not a picture")
    with pytest.raises(UsageError, match=r"cat\.jpg: cannot be read as an image .*remove or replace"):
        decode_image(path, 32, 32)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "TIFF"])
def test_a_truncated_file(tmp_path, file_format):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / "cut.img"
    content = encoded(Image.fromarray(noise), format=file_format)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UsageError, match=r"cut\.img: cannot be read"):
        decode_image(path, 32, 32)


def test_a_missing_file(tmp_path):
    with pytest.raises(UsageError, match=r"absent\.png: no such file"):
        decode_image(tmp_path / "absent.png", 32, 32)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((8, 8, 3)),
        np.zeros((2, 8, 8, 3), np.uint8),
        np.zeros((8, 8, 2), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((8, 0), np.uint8),
    ],
)
def test_pixels_of_another_kind_are_refused(pixels):
    with pytest.raises(UsageError, match="expected uint8 pixels"):
        decode_image(pixels, 8, 8)


def test_eps_is_refused_under_any_name(tmp_path):
    """Pillow hands EPS to Ghostscript."""
    path = tmp_path / "a.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(UsageError, match=r"a\.jpg: cannot be read as an image \(none of JPEG,"):
        decode_image(path, 8, 8)


@pytest.mark.parametrize("mode", ["I;16", "I", "RGBA", "LA", "P"])
def test_conversion_by_bands_gives_the_same_pixels(monkeypatch, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 20, 4), np.uint8)
    if mode in ("I;16", "I"):
        levels = np.random.default_rng(0).integers(0, 65_536, (37, 20))
        image = Image.fromarray(levels.astype(np.uint16 if mode == "I;16" else np.int32))
    else:
        image = Image.fromarray(pixels).convert(mode)
    file = io.BytesIO()
    image.save(file, "TIFF" if mode == "I" else "PNG", **({"transparency": 3} if mode == "P" else {}))
    whole = decode_image(file.getvalue(), 20, 20)
    for band in (20, 119, 1):
        monkeypatch.setattr(decode, "BAND_PIXELS", band)
        np.testing.assert_array_equal(decode_image(file.getvalue(), 20, 20), whole)


def test_sixteen_bit_image_needs_twice_its_pixels_in_memory():
    """A case of the fuzzer: 58 million such pixels took 900 MB."""
    image = Image.new("I;16", (2000, 2000))
    file = io.BytesIO()
    image.save(file, "PNG")
    tracemalloc.start()
    try:
        decode_image(file.getvalue(), 20, 20)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000  # numpy's arrays; 32 MB for one of float64
    finally:
        tracemalloc.stop()


def segment(marker, body):
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def chunk(kind, body, damage=0):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ damage)


TIFF = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
"""Orientation 6, and nothing else."""
DAMAGED_EXIF = [
    b"",
    b"garbagegarbage",
    TIFF[:12],
    # Pillow before 13 reads it as if the words were there once.
    pytest.param(
        b"Exif\0\0Exif\0\0Exif\0\0" + TIFF,
        marks=pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="this Pillow reads it"),
    ),
    b"MM\0*\xff\xff\xff\xff",
    TIFF[:8] + b"\xff" * 60,
]
LONG_TEXT = zlib.compress(bytes(2 << 20))


def behind_header(content, file_format, parts):
    """A JPEG (behind JFIF's segment) or a PNG (behind IHDR) with more in it."""
    place = 20 if file_format == "JPEG" else 33
    return content[:place] + parts + content[place:]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", DAMAGED_EXIF, ids=range(len(DAMAGED_EXIF)))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("density", [{}, {"dpi": (72, 72)}])
def test_damaged_exif_block_is_ignored(exif, file_format, density):
    content = encoded(Image.fromarray(smooth(24, 32)), format=file_format, **({} if file_format == "WEBP" else density))
    if file_format == "WEBP":
        damaged = encoded(Image.fromarray(smooth(24, 32)), format=file_format, exif=b"Exif\0\0" + exif)
    else:
        part = segment(0xE1, b"Exif\0\0" + exif) if file_format == "JPEG" else chunk(b"eXIf", exif)
        damaged = behind_header(content, file_format, part)
    np.testing.assert_array_equal(decode_image(damaged, 24, 24), decode_image(content, 24, 24))


JPEG_METADATA = {
    "comments": segment(0xFE, b"c" * 65_000) * 20,
    "a colour profile without its number": segment(0xE2, b"ICC_PROFILE\0"),
    "half a Photoshop block": segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04"),
    "a damaged index of pictures": segment(0xE2, b"MPF\0II*\0\xff\xff\0\0"),
    "short headers": segment(0xE0, b"JFIF") + segment(0xEE, b"Adobe"),
    "many EXIF blocks": segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 20,
}
PNG_METADATA = {
    "a long zTXt": chunk(b"zTXt", b"key\0\0" + LONG_TEXT),
    "a long iTXt": chunk(b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + LONG_TEXT),
    "a long profile in text": chunk(b"zTXt", b"Raw profile type exif\0\0" + LONG_TEXT),
    "many texts": chunk(b"tEXt", b"key\0" + b"t" * 1_000_000) * 66,
    "a long colour profile": chunk(b"iCCP", b"name\0\0" + LONG_TEXT),
    "a wrong checksum": chunk(b"eXIf", TIFF, damage=1) + chunk(b"tIME", bytes(7), damage=1),
    "short chunks": b"".join(chunk(kind, b"") for kind in (b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"acTL", b"fcTL")),
    "a text called transparency": chunk(b"tEXt", b"transparency\0yes"),
}


@pytest.mark.parametrize(
    ("file_format", "parts"),
    [("JPEG", parts) for parts in JPEG_METADATA.values()] + [("PNG", parts) for parts in PNG_METADATA.values()],
    ids=[*JPEG_METADATA, *PNG_METADATA],
)
def test_damaged_metadata_does_not_matter(file_format, parts):
    content = encoded(Image.fromarray(smooth(24, 24)), format=file_format)
    damaged = behind_header(content, file_format, parts)
    np.testing.assert_array_equal(decode_image(damaged, 24, 24), decode_image(content, 24, 24))


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_stripped_jpeg_has_the_same_pixels(mode, subsampling):
    """Adobe's segment and JFIF's tell which colours they are."""
    picture = Image.fromarray(smooth(40, 40)).convert(mode)
    content = encoded(
        picture, format="JPEG", subsampling=subsampling, progressive=True, comment=b"x", icc_profile=b"p" * 99
    )
    plain = strip_metadata(content)
    assert len(plain) < len(content)
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(plain))), np.asarray(Image.open(io.BytesIO(content)))
    )


@pytest.mark.parametrize(
    ("file_format", "part"),
    [
        ("JPEG", segment(0xE1, b"Exif\0\0" + TIFF)),
        ("JPEG", segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>')),
        ("PNG", chunk(b"eXIf", TIFF)),
        ("PNG", chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>')),
        (
            "PNG",
            chunk(
                b"zTXt",
                b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n%8d\n" % len(TIFF) + TIFF.hex().encode()),
            ),
        ),
    ],
)
def test_orientation_survives_stripping(file_format, part):
    content = encoded(Image.fromarray(smooth(24, 24)), format=file_format)
    found = decode_image(behind_header(content, file_format, part), 24, 24)
    np.testing.assert_array_equal(found, np.rot90(decode_image(content, 24, 24), -1))


@pytest.mark.skipif("AVIF" not in Image.OPEN, reason="this Pillow cannot read AVIF")
def test_an_avif_with_a_damaged_exif_block():
    exif = Image.Exif()
    exif[0x010E] = "a description"
    content = encoded(Image.fromarray(smooth(24, 24)), format="AVIF", exif=exif)
    place = content.index(exif.tobytes()[6:])
    damaged = content[:place] + b"garbage!" + content[place + 8 :]
    np.testing.assert_array_equal(decode_image(damaged, 24, 24), decode_image(content, 24, 24))


def test_pillows_warnings_are_not_shown():
    """In its own interpreter, as pytest changes warnings."""
    content = encoded(Image.fromarray(smooth(8, 8)), format="WEBP", exif=b"Exif\0\0" + TIFF[:12])
    tiff = encoded(Image.new("RGB", (8, 8)), format="TIFF")
    tiff = tiff.replace(struct.pack("<HHI", 277, 3, 1), struct.pack("<HHI", 277, 4, 1))  # samples a pixel, as a long
    place = tiff.index(struct.pack("<HHI", 277, 4, 1)) + 8
    damaged = tiff[:place] + struct.pack("<I", 70_000) + tiff[place + 4 :]
    program = f"""from paddle_resnet.images.decode import decode_image, pillow_warnings
decode_image({content!r}, 8, 8)
try:
    decode_image({damaged!r}, 8, 8)
except Exception as error:
    print(error)
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stderr == ""
    assert "cannot be read as an image" in shown.stdout


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_pillows_warnings_get_the_files_name(tmp_path):
    content = encoded(Image.fromarray(smooth(8, 8)), format="WEBP", exif=b"Exif\0\0" + TIFF[:12])
    names = [str(tmp_path / f"{number}.webp") for number in range(8)]
    for name in names:
        Path(name).write_bytes(content)
    decode_image(names[0], 8, 8)
    with pillow_warnings() as found, ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda name: decode_image(name, 8, 8), names * 2))
        with pytest.warns(UserWarning, match="mine"):
            warnings.warn("mine", UserWarning, stacklevel=1)
    assert sorted(found) == names
    assert all(line.startswith(f"{name}: Corrupt EXIF data") for name, line in found.items())
    with pillow_warnings() as found:
        pass
    decode_image(names[0], 8, 8)
    assert found == {}


def with_scans(content, count):
    """A progressive JPEG with `count` more copies of its last scan."""
    place = content.rindex(b"\xff\xda")
    return content[:-2] + content[place:-2] * count + content[-2:]


def test_jpeg_scans_are_counted_as_the_decoder_does():
    content = encoded(Image.fromarray(smooth(32, 32)), format="JPEG", progressive=True)
    assert jpeg_scan_count(content) == content.count(b"\xff\xda") == 10
    assert jpeg_scan_count(with_scans(content, 7)) == 17
    assert jpeg_scan_count(content + content) == 10  # what lies behind the end, as with phones' moving pictures
    assert jpeg_scan_count(behind_header(content, "JPEG", segment(0xFE, b"\xff\xd9" + content[-400:-2]))) == 10
    place = content.rindex(b"\xff\xda")
    hidden = content[:place] + segment(0xFE, b"\xff\xd9") + content[place:]
    assert jpeg_scan_count(hidden) == 10


def test_jpeg_with_many_scans_is_refused_undecoded():
    content = with_scans(encoded(Image.new("L", (4000, 4000)), format="JPEG", progressive=True), 60)
    with pytest.raises(UsageError, match=r"slow\.jpg: .*4000 x 4000 pixels in 66 scans, which would take very long"):
        decode_image(content, 8, 8, name="slow.jpg")
    many = encoded(Image.new("L", (8, 8)), format="JPEG", comment=b"x")
    with pytest.raises(UsageError, match="more than 100,000 segments"):
        decode_image(many[:2] + segment(0xFE, b"") * 100_001 + many[2:], 8, 8)


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def make_endless_link(path):
    path.symlink_to("/dev/zero")


@pytest.mark.posix
@pytest.mark.parametrize(
    ("make", "kind"),
    [(make_pipe, "a named pipe"), (make_socket, "a socket"), (make_endless_link, "a device"), (os.mkdir, "a folder")],
)
def test_irregular_file_is_refused_without_waiting(tmp_path, monkeypatch, make, kind):
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    path = tmp_path / "x.jpg"
    make(path.relative_to(tmp_path))
    with pytest.raises(UsageError, match=rf"x\.jpg: is {kind}, not a regular file; remove or replace it"):
        decode_image(path, 8, 8)


@pytest.mark.posix
def test_pipe_that_replaces_a_checked_file_is_refused(tmp_path, monkeypatch):
    sound, pipe = tmp_path / "sound.png", tmp_path / "x.png"
    Image.new("L", (8, 8)).save(sound)
    os.mkfifo(pipe)
    status = sound.stat()
    monkeypatch.setattr(image_file.Path, "stat", lambda path: status)
    with pytest.raises(UsageError, match="a named pipe"):
        decode_image(pipe, 8, 8)


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "huge.jpg"
    path.write_bytes(b"\xff\xd8\xff")
    os.truncate(path, 10_000_000_000)
    with pytest.raises(UsageError, match=r"huge\.jpg: 10,000 MB, more than the 512 MB"):
        decode_image(path, 8, 8)


def test_empty_file_is_named_as_empty(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(UsageError, match="an empty file"):
        decode_image(tmp_path / "a.jpg", 8, 8)


def test_heic_gets_advice():
    with pytest.raises(UsageError, match="HEIC is not supported; convert it, e"):
        decode_image(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(64), 8, 8)


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_icon_with_a_huge_image_is_refused_unopened(kind):
    """Pillow decodes it while opening the file, although its list says 1 x 1."""
    body = png_header(8_001, 8_000) if kind == "PNG" else struct.pack("<IiiHHIIiiII", 40, 8_001, 16_000, 1, 8, *[0] * 6)
    icon = b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 1, 1, 0, 0, 1, 8, len(body), 22) + body
    with pytest.raises(UsageError, match="an icon of more than 64 million pixels"):
        decode_image(icon, 8, 8)
    small = encoded(Image.fromarray(smooth(16, 16)), format="ICO")
    np.testing.assert_array_equal(decode_image(small, 16, 16), smooth(16, 16))


def test_only_one_orientation_text_is_examined(monkeypatch):
    """Each may take a millisecond, and a file of 20 MB holds thousands."""
    looks = []
    monkeypatch.setattr(image_file, "_is_valid", lambda *chunk: bool(looks.append(chunk)))
    content = encoded(Image.fromarray(smooth(8, 8)))
    texts = chunk(b"zTXt", b"Raw profile type exif\0\0" + LONG_TEXT) * 50
    assert strip_metadata(behind_header(content, "PNG", texts)) == strip_metadata(content)
    assert len(looks) == 1
