"""uvicorn's HTTP protocol, with bounds that uvicorn leaves to a proxy: of a head, and of a body nobody wants."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
MAX_HEAD = 32 * 2**10
"""Bytes of a request's line and headers."""
HEAD_SECONDS = 10.0
"""Until they are there."""
UNWANTED_SECONDS = 2.0
"""For the rest of a body that is answered already: it is read, or its sender might not get to the answer."""


class GuardedProtocol(HttpToolsProtocol):
    """For uvicorn's `http` option: it makes an object for each connection."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._patience: asyncio.TimerHandle | None = None
        self._in_head = False
        self._in_body = False
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._be_calm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what a head takes."""
        super().data_received(data)
        if not self._in_head:
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD and not self.transport.is_closing():
            self.transport.write(HEAD_TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        """Wait for the next head (of the first, since the connection was made)."""
        super().on_message_begin()
        if not self._in_head:
            self._expect_head()

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._be_calm()
        self._in_head, self._in_body = False, True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is there."""
        self._be_calm()
        self._in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Do not wait long for a body that nobody reads."""
        super().on_response_complete()
        if self._in_body:
            self._close_after(UNWANTED_SECONDS)

    def _expect_head(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        self._close_after(HEAD_SECONDS)

    def _close_after(self, seconds: float) -> None:
        self._be_calm()
        self._patience = self.loop.call_later(seconds, self._give_up)

    def _be_calm(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._close_after(HEAD_SECONDS)  # an answer is on its way to a client that pipelines
        elif not self.transport.is_closing():
            self.transport.close()
