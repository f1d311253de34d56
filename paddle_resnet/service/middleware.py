"""What surrounds each request: an id, headers of the answer, a log line, metrics; and nothing of a fault leaks."""

from __future__ import annotations

import logging
import random
import re
import time

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from paddle_resnet.service.errors import Refusal, refused
from paddle_resnet.service.hosts import Hosts
from paddle_resnet.service.logs import log, log_request
from paddle_resnet.service.metrics import Metrics
from paddle_resnet.service.shutdown import Lifetime

SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
COMMON_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
NO_CONTENT_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
QUIET_ROUTES = {"/healthz", "/readyz", "/metrics"}
"""Asked every few seconds: logged only where the answer is not 200."""


class Envelope:
    """ASGI middleware, outermost."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics, lifetime: Lifetime, routes: frozenset[str], hosts: Hosts
    ) -> None:
        self._app = app
        self._metrics = metrics
        self.lifetime = lifetime
        self._routes = routes
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        status = 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = self._headers(message["headers"], request_id)
            await send(message)

        try:
            self._hosts.check(scope)
            # The server leaves out the body of an answer to HEAD.
            await self._app({**scope, "method": "GET"} if scope["method"] == "HEAD" else scope, receive, send_on)
        except Refusal as refusal:
            await refused(Request(scope), refusal)(scope, receive, send_on)
        except Exception:
            log("fault", logging.ERROR, request_id=request_id.decode("ascii"), exc_info=True)
            if not status:
                await internal_error()(scope, receive, send_on)
        finally:
            self._record(scope, request_id, status, time.perf_counter() - started)

    def _headers(self, headers: list[tuple[bytes, bytes]], request_id: bytes) -> list[tuple[bytes, bytes]]:
        headers = [*headers, (b"x-request-id", request_id), *COMMON_HEADERS]
        if not any(name == NO_CONTENT_POLICY[0] for name, _ in headers):
            headers.append(NO_CONTENT_POLICY)
        if self.lifetime.draining:
            headers.append((b"connection", b"close"))
        return headers

    def _record(self, scope: Scope, request_id: bytes, status: int, seconds: float) -> None:
        # A path of the client's choice would be a new time series each.
        route = scope["path"] if scope["path"] in self._routes else "other"
        self._metrics.request_seen(route, status, seconds)
        if status == 200 and route in QUIET_ROUTES:
            return
        log_request(
            request_id=request_id.decode("ascii"),
            method=scope["method"],
            route=route,
            status=status,
            ms=round(1000 * seconds, 2),
            **scope.get("state", {}).get("noted", {}),
        )


def internal_error() -> JSONResponse:
    """Say that it was our fault, and no more."""
    return JSONResponse({"error": {"code": "internal", "message": "the service failed; its log says why"}}, 500)


def _request_id(scope: Scope) -> bytes:
    """The client's own id where it is sane, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and SANE_ID.fullmatch(value):
            return value
    return b"%032x" % random.getrandbits(128)
