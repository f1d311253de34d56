"""Decoding an image, against Pillow and paddle.vision's transforms."""

import io
import os
import socket
import struct

import numpy as np
import pytest
from image_bytes import encoded, png_header, smooth
from PIL import Image

from paddle_resnet.errors import UsageError
from paddle_resnet.images import image_file
from paddle_resnet.images.decode import decode_image


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


@pytest.mark.parametrize("file_format", ["JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
def test_formats(file_format):
    pixels = smooth(32, 32)
    found = decode_image(encoded(Image.fromarray(pixels), format=file_format), 32, 32)
    assert np.abs(found.astype(int) - pixels).mean() < 12  # lossy formats and GIF's palette


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], format="GIF", save_all=True, append_images=frames[1:])
    assert decode_image(content, 16, 16)[0, 0].tolist() == [255, 0, 0]


def test_very_long_image_costs_no_more_than_a_square():
    # Resized whole, it would have 256 x 15 million pixels.
    found = decode_image(np.full((1, 60_000, 3), 7, np.uint8), 256, 224)
    assert found.shape == (224, 224, 3)
    assert (found == 7).all()


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
