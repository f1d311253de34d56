"""Metadata of images: orientation is kept, and what is damaged or too much changes no pixel and costs no time."""

import io
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
import pytest
from image_bytes import TIFF, behind_header, chunk, encoded, segment, smooth
from PIL import Image

from paddle_resnet.errors import UsageError
from paddle_resnet.images import image_file
from paddle_resnet.images.decode import decode_image, pillow_warnings
from paddle_resnet.images.image_file import jpeg_scan_count, strip_metadata


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


def test_only_one_orientation_text_is_examined(monkeypatch):
    """Each may take a millisecond, and a file of 20 MB holds thousands."""
    looks = []
    monkeypatch.setattr(image_file, "_is_valid", lambda *chunk: bool(looks.append(chunk)))
    content = encoded(Image.fromarray(smooth(8, 8)))
    texts = chunk(b"zTXt", b"Raw profile type exif\0\0" + LONG_TEXT) * 50
    assert strip_metadata(behind_header(content, "PNG", texts)) == strip_metadata(content)
    assert len(looks) == 1
