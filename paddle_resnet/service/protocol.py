"""uvicorn's HTTP protocol, with limits that uvicorn leaves to a proxy.

The parser gets a request in small slices, and never more bytes than the request may still have outside its body.
Request line, headers, chunk sizes and trailers share one budget, whatever state the parser is in. Bytes of the body
give a part of it back, so that a long body may have many chunks.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from http import HTTPStatus
from typing import Any, ClassVar
from urllib.parse import urlsplit

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from paddle_resnet.service.logs import log_request

MAX_HEAD = 32 * 2**10
"""Bytes of a request outside its body."""
SLICE = 16 * 2**10
"""Bytes that are parsed at once."""
BODY_PER_FRAMING = 8
"""Bytes of a body that allow one more byte outside it: chunks of at least 64 bytes always pass."""
HEAD_SECONDS = 10.0
"""Until the head is complete."""
UNWANTED_SECONDS = 2.0
"""How long the rest of a body is read after its response: some clients read no response before."""
WRITE_SECONDS = 30.0
"""How long a client may leave a response unread."""
HALF_CLOSED_SECONDS = 1.0
"""A client that closes its side so soon after its request waits for the response. Later, it has left."""
MAX_PIPELINED = 16
"""Requests of a connection that wait for the responses to those before."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """For uvicorn's `http` option, which makes an object for each connection."""

    max_connections: ClassVar[int] = 1000
    waiting: ClassVar[dict[str, dict[BoundedHttpProtocol, None]]] = {}
    """For each client its connections that wait for its bytes, the longest waiting first."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._close_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._in_body = False
        self._ignore_input = False
        self._budget = MAX_HEAD
        self._body_bytes = 0
        self._complete_since = 0.0
        self._parse_error: tuple[int, str, str] | None = None
        self._current: RequestResponseCycle | None = None
        """The request that is answered now; uvicorn's `cycle` is the one that came last."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head. Beyond `max_connections` close one that waits for its client."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            if not self.waiting:
                self._send_error(503, "busy", "too many connections; try again later")
                return
            most = max(self.waiting.values(), key=len)
            next(iter(most))._abort()
        self._wait_for_client()
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ignore_input = True
        self._leave_waiting()
        self._cancel_close()
        self.resume_writing()
        if self._current is not None and not self._current.response_complete:
            self._current.disconnected = True  # uvicorn tells only the last request of a pipeline
            self._current.message_event.set()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        """Parse slices, and count what lies outside the body before it is parsed."""
        view = memoryview(data)
        while view and not self._ignore_input:
            if self._budget <= 0:
                self._budget_exceeded()
                return
            size = min(len(view), SLICE, self._budget)
            self._body_bytes = 0
            try:
                self.parser.feed_data(view[:size])
            except httptools.HttpParserUpgrade as upgrade:
                size = upgrade.args[0]  # an upgrade is ignored, as HTTP allows
            except httptools.HttpParserError:
                self._send_error(*self._parse_error or (400, "malformed_request", "this is not a valid HTTP request"))
                return
            outside = size - self._body_bytes
            self._budget = min(MAX_HEAD, self._budget - outside + self._body_bytes // BODY_PER_FRAMING)
            view = view[size:]

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Keep the connection for the response to a complete request that came just before."""
        soon = time.monotonic() - self._complete_since < HALF_CLOSED_SECONDS
        if self._ignore_input or self._in_body or not soon or self.cycle is None or self.cycle.response_complete:
            return None
        self._close_after_responses()
        return True

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            raise self._stop(429, "busy", "too many requests at once on one connection")
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self._budget = MAX_HEAD
        if not self._in_head:  # the time for the first head began with the connection
            self._expect_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            raise self._stop(400, "trailers", "trailers after a chunked body are not accepted")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._cancel_close()
        if not self.url.startswith(b"/") and self.url != b"*":
            self._split_absolute_target()
        self._in_head, self._in_body = False, True
        super().on_headers_complete()
        if not self.pipeline:
            self._current = self.cycle

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._cancel_close()
        self._in_body = False
        self._complete_since = time.monotonic()
        if not self.cycle.response_complete:
            self._leave_waiting()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Limit the time of a body that is not needed any more."""
        if self.pipeline:
            self._current = self.pipeline[-1][0]
        super().on_response_complete()
        if self.transport.is_closing():
            self._close_after(UNWANTED_SECONDS)  # for a client that does not read
            return
        if self.cycle.response_complete:
            self._wait_for_client()
        if self._in_body:
            self._close_after(UNWANTED_SECONDS)

    def pause_writing(self) -> None:
        """Limit the time of a client that does not read."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(WRITE_SECONDS, self._abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _split_absolute_target(self) -> None:
        """Turn ``http://host/path`` into the path, and put its host into the Host header."""
        target = urlsplit(self.url.decode("ascii"))
        if target.scheme not in ("http", "https") or not target.netloc or self.parser.get_method() == b"CONNECT":
            raise self._stop(400, "malformed_request", "the target of a request must be a path of this service")
        self.url = f"{target.path or '/'}{'?' if target.query else ''}{target.query}".encode("ascii")
        self.headers[:] = [(name, target.netloc.encode() if name == b"host" else value) for name, value in self.headers]

    def _stop(self, status: int, code: str, message: str) -> Exception:
        """Return what stops the parser when it is raised in a callback. The parser raises an error of its own then."""
        self._parse_error = (status, code, message)
        return ValueError(message)

    def _budget_exceeded(self) -> None:
        if self._in_head:
            self._send_error(431, "head_too_large", f"the request line and headers are larger than {MAX_HEAD:,} bytes")
        else:
            self._send_error(400, "malformed_request", "the chunks are too small, or something follows the request")

    def _send_error(self, status: int, code: str, message: str) -> None:
        """Send an error as JSON, read what still comes for a moment, and close. Responses before it go first."""
        self._ignore_input = True
        current = self.cycle if self._in_body else None
        before = self.pipeline or (current is None and self.cycle is not None and not self.cycle.response_complete)
        if before or (current is not None and current.response_started):
            self._close_after_responses()
            return
        log_request(request_id=f"{random.getrandbits(128):032x}", status=status, code=code)
        if current is not None:
            current.disconnected = True
            current.message_event.set()
        body = json.dumps({"error": {"code": code, "message": message}}).encode()
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(body)}\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode("ascii") + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._close_after(UNWANTED_SECONDS)

    def _close_after_responses(self) -> None:
        """Take no more input, and close after the response to the last complete request."""
        self._ignore_input = True
        self._cancel_close()
        if self._in_body and self.pipeline:
            self.pipeline.popleft()  # it never becomes complete
        last = self.pipeline[0][0] if self.pipeline else self.cycle
        last.keep_alive = False
        if last.response_complete:
            self.transport.close()
        elif last.response_started and self._in_body:
            self._close_after(UNWANTED_SECONDS)

    def _expect_head(self) -> None:
        self._in_head = True
        self._close_after(HEAD_SECONDS)

    def _wait_for_client(self) -> None:
        self.waiting.setdefault(self._client_address, {})[self] = None

    def _leave_waiting(self) -> None:
        connections = self.waiting.get(self._client_address)
        if connections is not None:
            connections.pop(self, None)
            if not connections:
                del self.waiting[self._client_address]

    @property
    def _client_address(self) -> str:
        return self.client[0] if self.client else ""

    def _close_after(self, seconds: float) -> None:
        self._cancel_close()
        self._close_timer = self.loop.call_later(seconds, self._on_close_timer)

    def _cancel_close(self) -> None:
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None

    def _on_close_timer(self) -> None:
        if not self._ignore_input and self.cycle is not None and not self.cycle.response_complete:
            self._close_after(HEAD_SECONDS)  # a response is on its way to a client that pipelines
        else:
            self._abort()

    def _abort(self) -> None:
        self._leave_waiting()
        self.transport.abort()
