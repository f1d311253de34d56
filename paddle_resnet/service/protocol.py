"""uvicorn's HTTP protocol, with limits that uvicorn leaves to a proxy.

uvicorn bounds neither a head nor chunks, waits for a slow head for ever, and at its limit of connections refuses the
honest as well as the idle. (Its parser zttp has bounds, but is called experimental by its authors.)

The parser gets a request in small slices, and never more bytes than the request may still have outside its body.
Request line, headers, chunk sizes and trailers share one budget, whatever state the parser is in. Bytes of the body
give a part of it back, so that a long body may have many chunks.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from http import HTTPStatus
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from paddle_resnet.service.telemetry import log

MAX_HEAD = 32 * 2**10  # bytes of a request outside its body
SLICE = 16 * 2**10  # bytes that are parsed at once
BODY_PER_FRAMING = 8  # bytes of a body that allow one more byte outside it: chunks of at least 64 bytes always pass
HEAD_SECONDS = 10.0  # until the head is complete
UNWANTED_SECONDS = 2.0  # how long the rest of a body is read after its response: some clients read no response before
WRITE_SECONDS = 30.0  # how long a client may leave a response unread
CROWDED = 0.9  # share of the allowed connections, from which on connections that wait for their client are closed


class BoundedHttpProtocol(HttpToolsProtocol):
    """A connection of uvicorn (its `http` option), with one request at a time: uvicorn would queue pipelined ones."""

    def __init__(self, *, max_connections: int, **options: Any) -> None:
        super().__init__(**options)
        self._max_connections = max_connections
        self._close_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._waiting_since: float | None = None  # since when it waits for the client's bytes
        self._in_head = self._in_body = self._ignore_input = False
        self._budget = MAX_HEAD
        self._body_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head; where there are too many connections, close those that wait longest."""
        super().connection_made(transport)
        if len(self.connections) > CROWDED * self._max_connections:
            self._close_waiting_connections()
        self._waiting_since = time.monotonic()
        if len(self.connections) > self._max_connections:
            self._refuse(503, "unavailable", "too many connections have a request under way; try again later")
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ignore_input = True
        self._waiting_since = None
        self._cancel_close()
        self.resume_writing()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        """Parse slices, and count what lies outside the body before it is parsed."""
        view = memoryview(data)
        while view and not self._ignore_input:
            if self._budget <= 0:
                too_large = (431, "head_too_large", f"the request line and headers are larger than {MAX_HEAD:,} bytes")
                too_small = (400, "malformed_request", "the chunks are too small, or something follows the request")
                self._refuse(*too_large if self._in_head else too_small)
                return
            size = min(len(view), SLICE, self._budget)
            self._body_bytes = 0
            try:
                self.parser.feed_data(view[:size])
            except httptools.HttpParserUpgrade as upgrade:
                size = upgrade.args[0]  # an upgrade is ignored, as HTTP allows
            except httptools.HttpParserError:
                self._refuse(400, "malformed_request", "this is not a valid HTTP request, or it has trailers")
                return
            outside = size - self._body_bytes
            self._budget = min(MAX_HEAD, self._budget - outside + self._body_bytes // BODY_PER_FRAMING)
            view = view[size:]

    def on_message_begin(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            raise ValueError("pipelined")
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self._budget = MAX_HEAD
        if not self._in_head:  # the time for the first head began with the connection
            self._expect_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            raise ValueError("trailers")  # the parser turns it into an error of its own
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._cancel_close()
        self._in_head, self._in_body = False, True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._cancel_close()
        self._in_body = False
        if not self.cycle.response_complete:
            self._waiting_since = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Limit the time of a body that is not needed any more, and of a client that does not read."""
        super().on_response_complete()
        if self._in_body or self.transport.is_closing():
            self._close_after(UNWANTED_SECONDS)
        elif self._ignore_input:
            self.transport.close()
        self._waiting_since = time.monotonic()

    def pause_writing(self) -> None:
        """Limit the time of a client that does not read."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(WRITE_SECONDS, self._abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _close_waiting_connections(self) -> None:
        """Close some that wait for their client, of the client that has most: those that have waited longest."""
        others = cast("set[BoundedHttpProtocol]", self.connections) - {self}
        waiting = [(each._waiting_since, each) for each in others if each._waiting_since is not None]
        of_client = Counter(each.client and each.client[0] for _, each in waiting)
        for client, connections in of_client.most_common(1):
            theirs = [(since, each) for since, each in waiting if (each.client and each.client[0]) == client]
            for _, connection in sorted(theirs, key=lambda pair: pair[0])[: 1 + connections // 10]:
                connection._abort()

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Send an error as JSON, read what still comes for a moment, and close; a response under way goes first."""
        self._ignore_input = True
        self._cancel_close()
        if self.cycle is not None and not self.cycle.response_complete:
            if self.cycle.response_started or not self._in_body:
                self.cycle.keep_alive = False
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        log("request", request_id=f"{random.getrandbits(128):032x}", status=status, code=code)
        body = json.dumps({"error": {"code": code, "message": message}}).encode()
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            head += "retry-after: 1\r\n"
        head += f"content-length: {len(body)}\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode("ascii") + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._close_after(UNWANTED_SECONDS)

    def _expect_head(self) -> None:
        self._in_head = True
        self._close_after(HEAD_SECONDS)

    def _close_after(self, seconds: float) -> None:
        self._cancel_close()
        self._close_timer = self.loop.call_later(seconds, self._abort)

    def _cancel_close(self) -> None:
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None

    def _abort(self) -> None:
        self._waiting_since = None
        self.connections.discard(self)  # its end comes later, and others may come before
        self.transport.abort()
