"""From a picture file to pixels, against Pillow and paddle.vision's transforms."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from paddle_resnet.data import decode, decode_image
from paddle_resnet.errors import UsageError


def smooth(height, width, seed=0):
    """A smooth random picture, uint8 [height, width, 3]."""
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


def sixteen_bit_png(levels):
    """A PNG of colour type 2 and 16 bits a channel, which Pillow cannot write: rows without a filter, big-endian."""
    height, width = levels.shape[:2]

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


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


@pytest.mark.parametrize(
    ("mode", "colour"), [("1", 1), ("LA", (255, 255)), ("PA", None), ("HSV", (0, 0, 255)), ("RGBX", (255,) * 4)]
)
def test_rarer_modes_are_converted(mode, colour):
    picture = (
        Image.new("L", (8, 8), 255).convert("P").convert("PA") if mode == "PA" else Image.new(mode, (8, 8), colour)
    )
    assert (decode_image(picture, 8, 8) == 255).all()


def test_a_large_jpeg_shrunk_while_decoded_is_the_same_picture():
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


def test_a_very_long_picture_costs_no_more_than_a_square():
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
    with pytest.raises(UsageError, match=r"cat\.jpg: cannot be read as a picture .*remove or replace"):
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
    "pixels", [np.zeros((8, 8, 3)), np.zeros((2, 8, 8, 3), np.uint8), np.zeros((8, 8, 2), np.uint8)]
)
def test_pixels_of_another_kind_are_refused(pixels):
    with pytest.raises(UsageError, match="expected uint8 pixels"):
        decode_image(pixels, 8, 8)


def test_a_format_that_runs_programs_is_refused_whatever_its_name_is(tmp_path):
    """Pillow hands EPS to Ghostscript."""
    path = tmp_path / "a.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(UsageError, match=r"a\.jpg: cannot be read as a picture \(none of JPEG,"):
        decode_image(path, 8, 8)


@pytest.mark.parametrize("mode", ["I;16", "I", "RGBA", "LA", "P"])
def test_large_pictures_are_converted_band_by_band_to_the_same_pixels(monkeypatch, mode):
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


def test_a_picture_of_16_bits_takes_no_more_than_its_pixels_twice():
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
