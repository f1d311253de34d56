"""A request's body: read within limits of size, time and memory, and split into encoded images.

A body is one image (``image/...``), a form with an image in each part (``multipart/form-data``), or JSON with base64.
Names of parts and files are never looked at.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from paddle_resnet.files import unique_keys
from paddle_resnet.service.errors import ServiceError, busy_error, client_closed_error
from paddle_resnet.service.settings import Settings

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    import anyio

    @asynccontextmanager
    async def timeout(seconds: float) -> AsyncIterator[None]:
        """Stand in for `asyncio.timeout`."""
        with anyio.fail_after(seconds):
            yield


ACCEPTED = "an image, multipart/form-data with an image in each part, or application/json with base64"
JSON_SHAPE = '{"images": ["<base64>", ...]}'
DATA_URL = re.compile(r"\s*data:[^,]{0,200};base64,", re.IGNORECASE)
FILE_NAME = re.compile(rb";\s*filename\*?\s*=", re.IGNORECASE)


class BodyLimiter:
    """Reads bodies, and counts the bytes of all that are held. Used on the event loop alone."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._buffered = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """Read the body. Its bytes count as held until the block ends.

        The client's Content-Length is trusted only where it announces too much.

        Raises:
            ServiceError: 413, 408, 429, 415 (compressed), or the client has left.
        """
        if request.headers.get("content-encoding", "identity") != "identity":
            raise ServiceError(415, "unsupported_type", "the body is compressed; send it uncompressed")
        announced = request.headers.get("content-length", "")
        # More digits are too many bytes anyway, and Python refuses to parse thousands of digits.
        if len(announced) > 18 or (announced.isdecimal() and int(announced) > self._settings.max_body):
            raise self._too_large()
        chunks: list[bytes] = []
        try:
            await self._read_in_time(request, chunks)
            yield chunks[0] if len(chunks) == 1 else b"".join(chunks)
        finally:
            self._buffered -= sum(map(len, chunks))

    async def _read_in_time(self, request: Request, chunks: list[bytes]) -> None:
        try:
            async with timeout(self._settings.body_timeout):
                await self._read_chunks(request, chunks)
        except TimeoutError:
            message = f"the body did not arrive within {self._settings.body_timeout:g} s"
            raise ServiceError(408, "slow_body", message) from None

    async def _read_chunks(self, request: Request, chunks: list[bytes]) -> None:
        size = 0
        more = True
        while more:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise client_closed_error()
            chunk = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(chunk)
            if size > self._settings.max_body:
                raise self._too_large()
            if self._buffered + len(chunk) > self._settings.max_buffered:
                raise busy_error(1, "too many bytes are waiting; try again later")
            self._buffered += len(chunk)
            chunks.append(chunk)

    def _too_large(self) -> ServiceError:
        return ServiceError(413, "body_too_large", f"the body is larger than {self._settings.max_body:,} bytes")


def is_single_image(content_type: str) -> bool:
    """Return whether a body of this type is an encoded image itself."""
    return content_type[:6].lower() == "image/"


def split_body(body: bytes, content_type: str, max_images: int) -> list[bytes]:
    """Return the encoded images of a form or of JSON: at least one, at most `max_images`.

    Raises:
        ServiceError: 400 malformed, 413 too many, 415 another type.
    """
    kind, options = parse_options_header(content_type.encode("latin-1"))
    if kind == b"multipart/form-data":
        images = _split_form(body, options.get(b"boundary", b""), max_images)
    elif kind == b"application/json":
        images = _split_json(body, max_images)
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
            raise _too_many(max_images)
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
        raise _malformed("multipart/form-data") from None
    if not ends or not boundary:
        raise _malformed("multipart/form-data, cut short or with another boundary")
    return [b"".join(chunks) for chunks in images]


def _split_json(body: bytes, max_images: int) -> list[bytes]:
    # A parsed value takes many times its bytes. A body of images has few values; one with more is not parsed.
    if body.count(b",") > 2 * max_images + 100:
        raise _too_many(max_images)
    try:
        if body.count(b"[") + body.count(b"{") > 100:
            raise ValueError("deep")
        value = json.loads(body, object_pairs_hook=unique_keys, parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        raise _malformed(f"JSON; expected {JSON_SHAPE}") from None
    encoded = _encoded_images(value)
    if len(encoded) > max_images:
        raise _too_many(max_images)
    images = []
    for image, text in enumerate(encoded):
        try:
            stripped = DATA_URL.sub("", text, count=1).encode("ascii").translate(None, b" \t\r\n")
            images.append(base64.b64decode(stripped, validate=True))
        except ValueError:  # also that of base64
            raise ServiceError(400, "malformed_body", f"image {image} is not base64", image=image) from None
    return images


def _encoded_images(value: object) -> list[str]:
    """Return the list of `JSON_SHAPE`, or say where `value` differs from it."""
    images = value.get("images") if isinstance(value, dict) else None
    if not isinstance(value, dict) or "images" not in value:
        problem = "images is missing"
    elif len(value) > 1:
        problem = "it has other keys"
    elif not isinstance(images, list) or not images:
        problem = "images"
    elif wrong := [index for index, image in enumerate(images) if not isinstance(image, str)]:
        problem = f"images[{wrong[0]}]"
    else:
        return images
    message = f"the JSON has another shape ({problem}); expected {JSON_SHAPE}"
    raise ServiceError(400, "malformed_body", message)


def _reject_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _malformed(what: str) -> ServiceError:
    return ServiceError(400, "malformed_body", f"the body is not valid {what}")


def _too_many(max_images: int) -> ServiceError:
    return ServiceError(413, "too_many_images", f"more than {max_images} images; send fewer at once")
