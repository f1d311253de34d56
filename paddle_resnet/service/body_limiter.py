"""A request's body, read within its limits: size, time, and the memory of all bodies together."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from starlette.requests import Request

from paddle_resnet.service.errors import Refusal
from paddle_resnet.service.settings import Settings

GONE = 499
"""Logged where the client left; nobody is there to be told (nginx's number for it)."""


class Buffers:
    """The bytes of all bodies that are held at this moment (used on the event loop alone)."""

    def __init__(self, settings: Settings) -> None:
        self._limit = settings.max_body
        self._total_limit = settings.max_buffered
        self._seconds = settings.body_seconds
        self.held = 0

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """Read the body; its bytes count as held until the block ends.

        What the client announces is believed only where it announces too much.

        Raises:
            Refusal: 413, 408, 429, 415 (compressed), or the client is gone.
        """
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refusal(415, "unsupported_type", "the body is compressed; send it as it is")
        announced = request.headers.get("content-length", "")
        # So many digits are too many bytes, and Python refuses to read thousands of digits.
        if len(announced) > 18 or (announced.isdecimal() and int(announced) > self._limit):
            raise self._too_large()
        chunks: list[bytes] = []
        try:
            await self._read(request, chunks)
            yield chunks[0] if len(chunks) == 1 else b"".join(chunks)
        finally:
            self.held -= sum(map(len, chunks))

    async def _read(self, request: Request, chunks: list[bytes]) -> None:
        size = 0
        more = True
        try:
            async with _deadline(self._seconds):
                while more:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise Refusal(GONE, "gone", "the client is gone")
                    chunk = message.get("body", b"")
                    more = message.get("more_body", False)
                    size += len(chunk)
                    if size > self._limit:
                        raise self._too_large()
                    if self.held + len(chunk) > self._total_limit:
                        raise Refusal(429, "busy", "too many bytes are waiting; try again later", retry_after=1)
                    self.held += len(chunk)
                    chunks.append(chunk)
        except TimeoutError:
            raise Refusal(408, "slow_body", f"the body did not arrive within {self._seconds:g} s") from None

    def _too_large(self) -> Refusal:
        return Refusal(413, "body_too_large", f"the body is larger than {self._limit:,} bytes")


if sys.version_info >= (3, 11):

    def _deadline(seconds: float) -> AbstractAsyncContextManager[object]:
        """Raise TimeoutError in the block when the time is over."""
        return asyncio.timeout(seconds)

else:

    @asynccontextmanager
    async def _deadline(seconds: float) -> AsyncIterator[None]:
        """Raise TimeoutError in the block when the time is over."""
        import anyio

        with anyio.fail_after(seconds):
            yield
