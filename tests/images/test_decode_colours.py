"""Modes, bits and transparency become eight bits of RGB on white."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from image_bytes import chunk, encoded, png_start, smooth
from PIL import Image

from paddle_resnet.errors import UsageError
from paddle_resnet.images import decode
from paddle_resnet.images.decode import decode_image


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
    colour = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) if transparent else b""
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return png_start(width, len(rows), depth, colour_type) + colour + body + chunk(b"IEND", b"")


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


def test_cmyk_is_converted():
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert decode_image(encoded(red, format="TIFF"), 16, 16)[0, 0].tolist() == [255, 0, 0]


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
