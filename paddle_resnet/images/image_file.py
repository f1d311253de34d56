"""Read an image file within bounds, and strip what its pixels do not need, before it is decoded."""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import PngImagePlugin

from paddle_resnet.errors import UsageError, printable
from paddle_resnet.files import open_regular
from paddle_resnet.system.portable import READ

MAX_BYTES = 512_000_000  # 64 million pixels of four 16-bit channels, uncompressed
MAX_SEGMENTS = 100_000  # segments of a JPEG, chunks of a PNG. Only an attack on the reader has more.
REPLACE_IT = "; remove or replace it"
FILE_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_WITH_METADATA = re.compile(rb"\xff[\xe0-\xef\xfe]")
_AVIF_EXIF = re.compile(rb"(infe\x02.{7})Exif", re.DOTALL)
_ORIENTATION_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")


def read_file(path: str | Path) -> bytes:
    """Read a regular file; never wait for a pipe or a device with an image's name.

    A folder, a pipe, a socket or a device, or more bytes than any image that is decoded, is a UsageError; what cannot
    be read is an OSError.
    """
    _check_file(path, os.stat(path))  # noqa: PTH116 (faster)
    # That was before opening, which may act on a device or on a pipe's writer.
    # The path may have become another file by now, so opening must not wait for a pipe's other end either.
    descriptor = os.open(path, READ)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        _check_file(path, status)
        return file.read(status.st_size) or b""


@dataclass(frozen=True, slots=True)
class FilePart:
    """An image that lies uncompressed within another file, such as a tar archive."""

    path: str
    start: int  # bytes before it
    size: int  # its bytes
    name: str  # its own name in the file

    def __str__(self) -> str:
        return f"{self.path}: {self.name}"

    def as_name(self) -> str:
        """Return it as one string, ``train-000000.tar/0123.jpg@1024+4096``."""
        return f"{self.path}/{self.name}@{self.start}+{self.size}"

    @classmethod
    def parse(cls, root: Path, name: str) -> FilePart:
        """Read what `as_name` returned, for a file below `root`; raise `UsageError` for other text."""
        found = re.fullmatch(r"(.+?\.tar)/(.+)@(\d{1,18})\+(\d{1,18})", name, re.DOTALL)
        if found is None:
            raise UsageError(f"{printable(name)}: expected FILE.tar/NAME@START+SIZE")
        return cls(str(root / found[1]), int(found[3]), int(found[4]), found[2])


def read_part(part: FilePart) -> bytes:
    """Read a part of a file; errors as of `read_file`."""
    if part.size > MAX_BYTES:
        raise UsageError(f"{printable(str(part))}: {part.size} bytes, more than the largest image; remove it")
    with open_regular(Path(part.path)) as file:
        file.seek(part.start)
        data = file.read(part.size)
    if len(data) < part.size:
        raise UsageError(f"{printable(part.path)}: cut short within {printable(part.name)}; copy or write it again")
    return data


def strip_metadata(data: bytes) -> bytes:
    """Remove texts, colour profiles, thumbnails and private parts from a JPEG, PNG or AVIF file.

    A decoder refuses the whole file if one of them is damaged or long. The orientation (EXIF, XMP) stays, once. Other
    files are returned unchanged.
    """
    if data.startswith(JPEG):
        return _plain_jpeg(data) if _WITH_METADATA.search(data) else data
    if data.startswith(PNG):
        return _plain_png(data)
    if data[4:8] == b"ftyp":  # AVIF has properties of its own for the orientation
        return _AVIF_EXIF.sub(rb"\1none", data)
    return data


def jpeg_scan_count(data: bytes) -> int:
    """Return how often a decoder passes over a JPEG's pixels, else 1; raise `ValueError` for too many segments."""
    if not data.startswith(JPEG) or data.count(b"\xff\xda") < 2:
        return 1
    return sum(marker == START_OF_SCAN for marker, _, _ in _segments(data))


def largest_icon_pixels(data: bytes) -> int:
    """Return the pixels of an icon's largest image (Pillow decodes one on opening), whatever its list says; else 0."""
    if not data.startswith(b"\0\0\1\0"):
        return 0
    largest = 0
    for entry in range(6, min(len(data), 6 + 16 * int.from_bytes(data[4:6], "little")), 16):
        start = int.from_bytes(data[entry + 12 : entry + 16], "little")
        is_png = data.startswith(PNG, start)
        if start + 24 <= len(data):
            width, height = struct.unpack_from(">2i" if is_png else "<2i", data, start + (16 if is_png else 4))
            largest = max(largest, abs(width * height) // (1 if is_png else 2))  # a bitmap includes its mask
    return largest


def _check_file(path: str | Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = FILE_KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise UsageError(f"{printable(str(path))}: is {kind}, not a regular file{REPLACE_IT}")
    if status.st_size > MAX_BYTES:
        size, most = f"{status.st_size / 1e6:,.0f} MB", f"{MAX_BYTES // 1_000_000} MB"
        raise UsageError(f"{printable(str(path))}: {size}, more than the {most} of the largest image{REPLACE_IT}")


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of a JPEG's segments, up to its end; skip pixels and stray bytes between them.

    As in libjpeg, a segment inside another one (a thumbnail) does not count, nor does anything after the end.
    """
    position = len(JPEG) - 1
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.search(data, position)
        if found is None or data[found.start() + 1] == END_OF_IMAGE:
            return
        marker, position = data[found.start() + 1], found.end()
        if marker >= 0xC0 and marker != JPEG[1]:  # the others have no length
            position += max(2, int.from_bytes(data[position : position + 2], "big"))
        yield marker, found.start(), position
    raise ValueError(f"more than {MAX_SEGMENTS:,} segments")


def _plain_jpeg(data: bytes) -> bytes:
    kept = [data[:2]]
    seen: set[bytes] = set()
    for marker, start, end in _segments(data):
        if marker == START_OF_SCAN:
            return b"".join([*kept, data[start:]])
        if marker == 0xFE or 0xE0 <= marker <= 0xEF:
            purpose = _purpose(marker, data[start + 4 : min(end, start + 64)])
            if purpose is None or purpose in seen:
                continue
            seen.add(purpose)
        kept.append(data[start:end])
    return data  # without a scan it is no image


def _purpose(marker: int, body: bytes) -> bytes | None:
    """Return what an application segment says about the pixels, their colours or their orientation; None: nothing."""
    if marker == 0xE1:
        return next((key for key in (b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0") if body.startswith(key)), None)
    if (marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 14) or (
        marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12
    ):
        return body[:5]
    return None


def _plain_png(data: bytes) -> bytes:
    kept = [PNG]
    seen: set[bytes] = set()
    position = len(PNG)
    for _ in range(MAX_SEGMENTS):
        length = int.from_bytes(data[position : position + 4], "big")
        kind, start, end = data[position + 4 : position + 8], position, position + 12 + length
        if len(kind) < 4 or end > len(data):  # cut short
            return b"".join([*kept, data[start:]])
        position = end
        body = memoryview(data)[start + 8 : end - 4]
        if not kind[0] & 0x20 or kind == b"tRNS":
            kept.append(data[start:end])
        elif kind not in seen and (kind == b"eXIf" or bytes(body[:22]).startswith(_ORIENTATION_TEXTS)):
            seen.add(kind)  # valid or not: checking each of thousands would take long
            if _is_valid(kind, bytes(body), data[end - 4 : end]):
                kept.append(data[start:end])
        if kind == b"IEND":
            return b"".join(kept)
    raise ValueError(f"more than {MAX_SEGMENTS:,} chunks")


def _is_valid(kind: bytes, body: bytes, checksum: bytes) -> bool:
    try:
        PngImagePlugin.PngStream(io.BytesIO(body)).call(kind, 0, len(body))
    except Exception:  # a long text, for one
        return False
    return zlib.crc32(kind + body) == int.from_bytes(checksum, "big")
