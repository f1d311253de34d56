"""uvicorn's HTTP protocol, with bounds that uvicorn leaves to a proxy.

The parser gets a message in small slices, and never more bytes than the message may still have outside its body: a
request line, headers, the sizes of chunks and trailers share one budget, whatever state the parser is in. Bytes of the
body give a part of it back, so that long bodies may have many chunks.
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
"""Bytes of a body that allow one more byte outside it: chunks of at least 64 bytes are never refused."""
HEAD_SECONDS = 10.0
"""Until they are there."""
UNWANTED_SECONDS = 2.0
"""For the rest of a body that is answered already: it is read, or its sender might not get to the answer."""
WRITE_SECONDS = 30.0
"""That a client may leave an answer unread."""
HALF_CLOSED_SECONDS = 1.0
"""A client that ends its side so soon behind its request waits for the answer; later, it has given up."""
MAX_PIPELINED = 16
"""Requests of a connection that wait for the answers to those before."""


class GuardedProtocol(HttpToolsProtocol):
    """For uvicorn's `http` option: it makes an object for each connection."""

    max_connections: ClassVar[int] = 1000
    waiting: ClassVar[dict[str, dict[GuardedProtocol, None]]] = {}
    """Of each client its connections that wait for its bytes, the longest waiting first."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._patience: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._in_head = False
        self._in_body = False
        self._deaf = False
        self._spare = MAX_HEAD
        self._body_bytes = 0
        self._whole_since = 0.0
        self._refusal: tuple[int, str, str] | None = None
        self._answering: RequestResponseCycle | None = None
        """The request that is answered; uvicorn's `cycle` is the one that came last."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head; where there are too many connections, one that only waits makes place."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            if not self.waiting:
                self._refuse(503, "busy", "too many connections; try again later")
                return
            most = max(self.waiting.values(), key=len)
            next(iter(most))._abort()
        self._wait_for_client()
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._deaf = True
        self._leave_waiting()
        self._be_calm()
        self.resume_writing()
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True  # uvicorn tells the last of a pipeline alone
            self._answering.message_event.set()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        """Parse slices, and count what lies outside the body before it is parsed."""
        view = memoryview(data)
        while view and not self._deaf:
            if self._spare <= 0:
                self._too_much()
                return
            size = min(len(view), SLICE, self._spare)
            self._body_bytes = 0
            try:
                self.parser.feed_data(view[:size])
            except httptools.HttpParserUpgrade as upgrade:
                size = upgrade.args[0]  # an upgrade is ignored, as HTTP allows
            except httptools.HttpParserError:
                self._refuse(*self._refusal or (400, "malformed_request", "this is not a valid HTTP request"))
                return
            outside = size - self._body_bytes
            self._spare = min(MAX_HEAD, self._spare - outside + self._body_bytes // BODY_PER_FRAMING)
            view = view[size:]

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Keep the connection for the answer to a whole request that came just before."""
        soon = time.monotonic() - self._whole_since < HALF_CLOSED_SECONDS
        if self._deaf or self._in_body or not soon or self.cycle is None or self.cycle.response_complete:
            return None
        self._end_after_answers()
        return True

    def on_message_begin(self) -> None:
        """Wait for the next head (of the first, since the connection was made)."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise self._stop(429, "busy", "too many requests at once on one connection")
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self._spare = MAX_HEAD
        if not self._in_head:
            self._expect_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Refuse trailers."""
        if not self._in_head:
            raise self._stop(400, "trailers", "trailers behind a chunked body are not accepted")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._be_calm()
        if not self.url.startswith(b"/") and self.url != b"*":
            self._split_absolute_target()
        self._in_head, self._in_body = False, True
        super().on_headers_complete()
        if not self.pipeline:
            self._answering = self.cycle

    def on_body(self, body: bytes) -> None:
        """Count the bytes of the body in this slice."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is there."""
        self._be_calm()
        self._in_body = False
        self._whole_since = time.monotonic()
        if not self.cycle.response_complete:
            self._leave_waiting()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Do not wait long for a body that nobody reads."""
        if self.pipeline:
            self._answering = self.pipeline[-1][0]
        super().on_response_complete()
        if self.transport.is_closing():
            self._close_after(UNWANTED_SECONDS)  # if its client does not read
            return
        if self.cycle.response_complete:
            self._wait_for_client()
        if self._in_body:
            self._close_after(UNWANTED_SECONDS)

    def pause_writing(self) -> None:
        """The client does not read: wait, but not for ever."""
        super().pause_writing()
        self._stalled = self.loop.call_later(WRITE_SECONDS, self._abort)

    def resume_writing(self) -> None:
        """The client reads."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _split_absolute_target(self) -> None:
        """``http://host/path`` stands for the path, and its host for the header's."""
        target = urlsplit(self.url.decode("ascii"))
        if target.scheme not in ("http", "https") or not target.netloc or self.parser.get_method() == b"CONNECT":
            raise self._stop(400, "malformed_request", "the target of a request must be a path of this service")
        self.url = f"{target.path or '/'}{'?' if target.query else ''}{target.query}".encode("ascii")
        self.headers[:] = [(name, target.netloc.encode() if name == b"host" else value) for name, value in self.headers]

    def _stop(self, status: int, code: str, message: str) -> Exception:
        """Say why the parser is to stop: raised in its callbacks, it comes back as an error of the parser."""
        self._refusal = (status, code, message)
        return ValueError(message)

    def _too_much(self) -> None:
        if self._in_head:
            self._refuse(431, "head_too_large", f"the request line and headers are larger than {MAX_HEAD:,} bytes")
        else:
            self._refuse(400, "malformed_request", "the chunks are too small, or something follows the request")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer in JSON, read what is still coming for a moment, and close; answers before it go first."""
        self._deaf = True
        current = self.cycle if self._in_body else None
        before = self.pipeline or (current is None and self.cycle is not None and not self.cycle.response_complete)
        if before or (current is not None and current.response_started):
            self._end_after_answers()
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

    def _end_after_answers(self) -> None:
        """Take nothing more, and close behind the answer to the last whole request."""
        self._deaf = True
        self._be_calm()
        if self._in_body and self.pipeline:
            self.pipeline.popleft()  # never whole
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
        self.waiting.setdefault(self._client, {})[self] = None

    def _leave_waiting(self) -> None:
        mine = self.waiting.get(self._client)
        if mine is not None:
            mine.pop(self, None)
            if not mine:
                del self.waiting[self._client]

    @property
    def _client(self) -> str:
        return self.client[0] if self.client else ""

    def _close_after(self, seconds: float) -> None:
        self._be_calm()
        self._patience = self.loop.call_later(seconds, self._give_up)

    def _be_calm(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        if not self._deaf and self.cycle is not None and not self.cycle.response_complete:
            self._close_after(HEAD_SECONDS)  # an answer is on its way to a client that pipelines
        else:
            self._abort()

    def _abort(self) -> None:
        self._leave_waiting()
        self.transport.abort()
