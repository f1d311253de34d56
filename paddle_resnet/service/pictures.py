"""From a request's body to encoded pictures, and from these to pixels.

A body is one picture (``image/...``), a form with a picture in each part (``multipart/form-data``), or JSON with
base64. Names of parts and files are not looked at.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
import time
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from paddle_resnet.images.image_file import JPEG, jpeg_scan_count, strip_metadata
from paddle_resnet.service.errors import Refusal

JPEG_SPEED, OTHER_SPEED = 3e8, 2e7
"""Pixels that a slow core decodes in a second, those of a JPEG once for each scan: what decoding will take is known
before it begins."""
LIGHT_SECONDS = 0.15
"""Of decoding, up to which a picture shares a batch with others."""
HEADER_SECONDS = 0.02
"""Until a header is read, which says what the pixels will take; and what they may take more than it says."""
# Of the formats that Pillow knows, those that browsers and cameras make: the others are only ways to attack.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
ACCEPTED = "an image, multipart/form-data with a picture in each part, or application/json with base64"


JSON_SHAPE = '{"images": ["<base64>", ...]}'
DATA_URL = re.compile(r"\s*data:[^,]{0,200};base64,", re.IGNORECASE)
FILE_NAME = re.compile(rb";\s*filename\*?\s*=", re.IGNORECASE)


class JsonPictures(BaseModel):
    """The body of a JSON request."""

    model_config = ConfigDict(extra="forbid")

    images: list[str] = Field(min_length=1, description="picture files, each encoded as base64")


def is_one_picture(content_type: str) -> bool:
    """Whether a body of this type is a picture itself."""
    return content_type[:6].lower() == "image/"


def split_body(body: bytes, content_type: str, most: int) -> list[bytes]:
    """Return the encoded pictures of a body that is no picture itself, at least one and at most `most`.

    Raises:
        Refusal: 400 malformed, 413 too many, 415 of another type.
    """
    kind, options = parse_options_header(content_type.encode("latin-1"))
    if kind == b"multipart/form-data":
        pictures = _split_form(body, options.get(b"boundary", b""), most)
    elif kind == b"application/json":
        pictures = _split_json(body, most)
    else:
        raise Refusal(415, "unsupported_type", f"expected {ACCEPTED}")
    if not pictures:
        raise Refusal(400, "no_image", "the body holds no picture")
    return pictures


class Verdict(IntEnum):
    """What came of decoding a picture."""

    READ = 0
    UNREADABLE = 1
    TOO_LARGE = 2
    TOO_SLOW = 3
    COSTLY = 4
    """Not decoded, as it takes longer than a picture may that shares a batch."""
    LATER = 5
    """Not begun, as others of the batch have taken long."""


class Result(NamedTuple):
    """What came of a picture: of one that was read its scores, float32 ``[classes]``, and where asked for its pixels.

    `seconds` is what decoding a costly one is expected to take.
    """

    verdict: Verdict
    scores: np.ndarray | None = None
    pixels: np.ndarray | None = None
    seconds: float = 0.0


class _TooSlow(Exception):  # noqa: N818 (not a fault of ours)
    """Decoding has taken the time it may take."""


class _TimedBytes(io.BytesIO):
    """A file that ends the decoding which reads it, bit by bit, after some seconds of this thread's processor time."""

    def __init__(self, data: bytes, seconds: float) -> None:
        super().__init__(data)
        self.allow(seconds)

    def allow(self, seconds: float) -> None:
        """Let it go on for so many seconds from now."""
        self._end = time.thread_time() + seconds

    def read(self, size: int | None = -1, /) -> bytes:
        if time.thread_time() > self._end:
            raise _TooSlow
        return super().read(size)


def decode(
    data: bytes, max_pixels: int, to_pixels: Callable[[Image.Image], np.ndarray], *, seconds: float, light: bool = False
) -> Result:
    """Turn one encoded picture into pixels, uint8 ``[S, S, 3]``.

    The time is bounded twice: by what the header and the number of scans promise, before the first pixel, and by what
    is taken.

    Args:
        data: the file.
        max_pixels: of a larger one nothing but the header is read.
        to_pixels: decodes the opened picture.
        seconds: of processor time that it may take.
        light: give up with `Verdict.COSTLY` what takes more than `LIGHT_SECONDS`.
    """
    try:
        file = _TimedBytes(strip_metadata(data), HEADER_SECONDS if light else seconds)
        # The size is said before the first pixel: a bomb does not go off.
        with Image.open(file, formats=FORMATS) as picture:
            pixels = picture.width * picture.height
            if pixels > max_pixels:
                return Result(Verdict.TOO_LARGE)
            scans = jpeg_scan_count(data) if data.startswith(JPEG) else 0
            expected = pixels * scans / JPEG_SPEED if scans else pixels / OTHER_SPEED
            if expected > seconds:
                return Result(Verdict.TOO_SLOW)
            if light and expected > LIGHT_SECONDS:
                return Result(Verdict.COSTLY, seconds=expected)
            if light:
                file.allow(HEADER_SECONDS + 3 * expected)
            return Result(Verdict.READ, pixels=to_pixels(picture))
    except _TooSlow:
        return Result(Verdict.COSTLY, seconds=seconds) if light else Result(Verdict.TOO_SLOW)
    except Image.DecompressionBombError:
        return Result(Verdict.TOO_LARGE)
    except Exception:  # Pillow's readers raise almost anything on damaged files
        return Result(Verdict.UNREADABLE)


def refuse(verdict: Verdict, image: int) -> Refusal:
    """Say that the request's picture number `image` cannot be classified."""
    if verdict is Verdict.TOO_LARGE:
        message = f"picture {image} has more pixels than this service takes; make it smaller"
        return Refusal(422, "image_too_large", message, image=image)
    if verdict is Verdict.TOO_SLOW:
        message = f"picture {image} takes too long to decode; save it as a usual JPEG (not progressive), or smaller"
        return Refusal(422, "slow_image", message, image=image)
    message = f"picture {image} cannot be read; expected an undamaged {', '.join(FORMATS)}"
    return Refusal(422, "unreadable_image", message, image=image)


def _split_form(body: bytes, boundary: bytes, most: int) -> list[bytes]:
    pictures: list[list[bytes]] = []
    headers: list[bytes] = []
    ended = False

    def begin() -> None:
        if len(pictures) == most:
            raise _too_many(most)
        pictures.append([])
        headers.clear()

    def add_header(data: bytes, start: int, end: int) -> None:
        headers.append(data[start:end])

    def check_headers() -> None:
        described = b"; ".join(headers)
        if not FILE_NAME.search(described) and b"image/" not in described.lower():
            message = f"part {len(pictures) - 1} of the form is a text field; each part is a picture file"
            raise Refusal(400, "text_field", f"{message} (curl -F image=@FILE), and top stands in the address (?top=1)")

    def add(data: bytes, start: int, end: int) -> None:
        pictures[-1].append(data[start:end])

    def end() -> None:
        nonlocal ended
        ended = True

    callbacks: dict[str, Callable[..., None]] = {
        "on_part_begin": begin,
        "on_header_value": add_header,
        "on_headers_finished": check_headers,
        "on_part_data": add,
        "on_end": end,
    }
    try:
        parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        parser.write(body)
    except (FormParserError, ValueError):
        raise _malformed("multipart/form-data") from None
    if not ended or not boundary:
        raise _malformed("multipart/form-data, cut short or with another boundary")
    return [b"".join(parts) for parts in pictures]


def _split_json(body: bytes, most: int) -> list[bytes]:
    # Each value costs many times its bytes: a body of pictures has few, and is not parsed if it has more.
    if body.count(b",") > 2 * most + 100:
        raise _too_many(most)
    try:
        if body.count(b"[") + body.count(b"{") > 100:
            raise ValueError("deep")
        value = json.loads(body, object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _malformed(f"JSON; expected {JSON_SHAPE}") from None
    try:
        encoded = JsonPictures.model_validate(value).images
    except ValidationError as error:
        place = error.errors()[0]["loc"]
        what = {"missing": "images is missing", "extra_forbidden": "it has other keys"}.get(
            error.errors()[0]["type"], "images" + "".join(f"[{part}]" for part in place[1:] if isinstance(part, int))
        )
        message = f"the JSON has another shape ({what}); expected {JSON_SHAPE}"
        raise Refusal(400, "malformed_body", message) from None
    if len(encoded) > most:
        raise _too_many(most)
    pictures = []
    for image, text in enumerate(encoded):
        try:
            encoded_bytes = DATA_URL.sub("", text, count=1).encode("ascii").translate(None, b" \t\r\n")
            pictures.append(base64.b64decode(encoded_bytes, validate=True))
        except (binascii.Error, ValueError):
            raise Refusal(400, "malformed_body", f"picture {image} is not base64", image=image) from None
    return pictures


def _no_key_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _malformed(what: str) -> Refusal:
    return Refusal(400, "malformed_body", f"the body is not valid {what}")


def _too_many(most: int) -> Refusal:
    return Refusal(413, "too_many_images", f"more than {most} pictures; send fewer at once")
