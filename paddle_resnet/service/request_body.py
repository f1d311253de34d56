"""A request's body: read within limits of size, time and memory, and split into encoded images.

A body is one image (``image/...``), a form with an image in each part (``multipart/form-data``), or JSON with base64.
Names of parts and files are never looked at. Starlette's own limit and form parser count one request: they know neither
the bytes of all bodies together nor a slow one, and they parse on the event loop.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from paddle_resnet.service.errors import ServiceError, busy_error, client_closed_error, malformed, too_many_images
from paddle_resnet.service.settings import Settings
from paddle_resnet.text_files import finite_number, unique_keys

ACCEPTED = "an image, multipart/form-data with an image in each part, or application/json with base64"
DATA_URL = re.compile(r"\s*data:[^,]{0,200};base64,", re.IGNORECASE)
URL_SAFE = bytes.maketrans(b"-_", b"+/")
FILE_NAME = re.compile(rb";\s*filename\*?\s*=", re.IGNORECASE)
MAX_NESTED = 100_000  # lists and objects in JSON. Each takes about a hundred bytes of memory, and two in the body.


class BodyLimiter:
    """Reads bodies, and counts the bytes of all that are held. Used on the event loop alone."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._max_buffered = max(settings.max_buffered, settings.max_body)
        self._buffered = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """Read the body, whose bytes count until the block ends. Content-Length is trusted only if it is too large."""
        if request.headers.get("content-encoding", "").lower() not in ("", "identity"):
            raise ServiceError(415, "unsupported_type", "the body is compressed; send it uncompressed")
        announced = request.headers.get("content-length", "")
        # More digits are too many bytes anyway, and Python refuses to parse thousands of digits.
        if len(announced) > 18 or (announced.isdecimal() and int(announced) > self._settings.max_body):
            raise self._too_large()
        chunks: list[bytes] = []
        try:
            await self._read_chunks(request, chunks)
            chunks[:] = [b"".join(chunks)]  # so that every byte is held once
            yield chunks[0]
        finally:
            self._buffered -= sum(map(len, chunks))

    async def _read_chunks(self, request: Request, chunks: list[bytes]) -> None:
        size, seconds = 0, self._settings.body_timeout
        try:
            with anyio.fail_after(seconds):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > self._settings.max_body:
                        raise self._too_large()
                    if self._buffered + len(chunk) > self._max_buffered:
                        raise busy_error("bytes")
                    self._buffered += len(chunk)
                    chunks.append(chunk)
        except TimeoutError:
            raise ServiceError(408, "slow_body", f"the body did not arrive within {seconds:g} s") from None
        except ClientDisconnect:
            raise client_closed_error() from None

    def _too_large(self) -> ServiceError:
        return ServiceError(413, "body_too_large", f"the body is larger than {self._settings.max_body:,} bytes")


def split_body(body: bytes, content_type: str, max_images: int) -> list[bytes]:
    """Return the encoded images of a form or of JSON: at least one, at most `max_images`."""
    kind, options = parse_options_header(content_type.encode("latin-1"))
    if kind == b"multipart/form-data":
        images = _split_form(body, options.get(b"boundary", b""), max_images)
    elif kind == b"application/json":
        texts = parse_json(body, _Images).images
        if len(texts) > max_images:
            raise too_many_images(max_images)
        images = [decode_base64(text, image) for image, text in enumerate(texts)]
    else:
        raise ServiceError(415, "unsupported_type", f"expected {ACCEPTED}")
    if not images:
        raise ServiceError(400, "no_image", "the body holds no image")
    return images


def _split_form(body: bytes, boundary: bytes, max_images: int) -> list[bytes]:
    images: list[list[bytes]] = []
    headers: list[bytes] = []
    ends: list[bool] = []

    def begin_part() -> None:
        if len(images) == max_images:
            raise too_many_images(max_images)
        images.append([])
        headers.clear()

    def check_headers() -> None:
        described = b"; ".join(headers)
        if not FILE_NAME.search(described) and b"image/" not in described.lower():
            message = f"part {len(images) - 1} of the form is a text field; each part is an image file"
            raise ServiceError(400, "text_field", f"{message} (curl -F image=@FILE), and top is in the URL (?top=1)")

    callbacks: dict[str, Callable[..., None]] = {
        "on_part_begin": begin_part,
        "on_header_value": lambda data, start, end: headers.append(data[start:end]),
        "on_headers_finished": check_headers,
        "on_part_data": lambda data, start, end: images[-1].append(data[start:end]),
        "on_end": lambda: ends.append(True),
    }
    try:
        MultipartParser(boundary, callbacks).write(body)  # type: ignore[arg-type]
    except (FormParserError, ValueError):
        raise malformed("the body is not valid multipart/form-data") from None
    if not ends or not boundary:
        raise malformed("the body is not valid multipart/form-data, cut short or with another boundary")
    return [b"".join(chunks) for chunks in images]


Shape = TypeVar("Shape", bound=BaseModel)


class _Images(BaseModel, extra="forbid"):
    images: list[str]


def parse_json(body: bytes, shape: type[Shape]) -> Shape:
    """Parse JSON of a client in bounded memory: a list of lists takes many times its bytes."""
    if body.count(b"[") + body.count(b"{") > MAX_NESTED:
        raise malformed(f"the JSON has more than {MAX_NESTED:,} lists; in /v2, send `data` as one flat list, or binary")
    try:
        value = json.loads(body, object_pairs_hook=unique_keys, parse_constant=finite_number)
    except (ValueError, RecursionError):
        raise malformed("the body is not valid JSON") from None
    if not isinstance(value, dict):
        raise malformed("the JSON has another shape than the page /docs says (expected an object)")
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        own = first["type"] != "extra_forbidden"  # else the place is a name that the client made up
        place = ".".join(map(str, first["loc"])) + ": " if own else ""
        raise malformed(f"the JSON has another shape than the page /docs says ({place}{first['msg']})") from None


def decode_base64(text: str, image: int) -> bytes:
    """Decode base64, also wrapped, of the URL-safe alphabet, without padding, or in a data URL."""
    try:
        compact = DATA_URL.sub("", text, count=1).encode("ascii").translate(URL_SAFE, b" \t\r\n")
        return base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)
    except ValueError:
        raise ServiceError(400, "malformed_body", f"image {image} is not base64", image=image) from None
