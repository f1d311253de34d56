"""What each request passes first: the check of hosts and origins, request id, response headers, log line, metrics."""

from __future__ import annotations

import ipaddress
import logging
import random
import re
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from paddle_resnet.service.errors import ServiceError
from paddle_resnet.service.logs import log, log_request
from paddle_resnet.service.metrics import Metrics
from paddle_resnet.service.shutdown import GracefulShutdown

VALID_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
COMMON_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
DEFAULT_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
PROBE_ROUTES = {"/healthz", "/readyz", "/metrics"}
"""Requested every few seconds: logged only where the status is not 200."""
AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:@/\[\]?#,\\]+)(?::([0-9]{0,5}))?")
DEFAULT_PORTS = {"http": "80", "https": "443"}


class RequestMiddleware:
    """The outermost ASGI middleware. A request id, headers, a log line and metrics for each request.

    Every exception of the application becomes an error response here. No fault of the service leaves it but as a 500
    that says nothing about the cause.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, shutdown: GracefulShutdown, routes: frozenset[str], hosts: HostPolicy
    ) -> None:
        self._app = app
        self._metrics = metrics
        self.shutdown = shutdown
        self._routes = routes
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        fields: dict[str, object] = {}
        scope.setdefault("state", {})["log_fields"] = fields
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = self._headers(message["headers"], request_id)
            await send(message)

        async def send_error(error: ServiceError) -> None:
            fields["code"] = error.code
            self._metrics.errors.labels(error.code).inc()
            await error.response()(scope, receive, send_with_headers)

        try:
            self._hosts.check(scope)
            scope["app"] = self  # or the router would respond to 404 and 405 itself
            await self._app(scope, receive, send_with_headers)
        except ServiceError as error:
            await send_error(error)
        except HTTPException as error:
            await send_error(_routing_error(error))
        except Exception:
            log("internal error", logging.ERROR, request_id=request_id.decode("ascii"), exc_info=True)
            if not status:
                await send_error(ServiceError(500, "internal", "the service failed; its log says why"))
        finally:
            self._record(scope, request_id, status, time.perf_counter() - started, fields)

    def _headers(self, headers: list[tuple[bytes, bytes]], request_id: bytes) -> list[tuple[bytes, bytes]]:
        headers = [*headers, (b"x-request-id", request_id), *COMMON_HEADERS]
        if not any(name == DEFAULT_POLICY[0] for name, _ in headers):
            headers.append(DEFAULT_POLICY)
        if self.shutdown.draining:
            headers.append((b"connection", b"close"))
        return headers

    def _record(self, scope: Scope, request_id: bytes, status: int, seconds: float, fields: dict[str, object]) -> None:
        # Paths that a client makes up would each be a new time series.
        route = scope["path"] if scope["path"] in self._routes else "other"
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if status != 200 or route not in PROBE_ROUTES:
            log_request(
                request_id=request_id.decode("ascii"),
                method=scope["method"],
                route=route,
                status=status,
                ms=round(1000 * seconds, 2),
                **fields,
            )


def _request_id(scope: Scope) -> bytes:
    """Return the client's own id where it is valid, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and VALID_REQUEST_ID.fullmatch(value):
            return value
    return b"%032x" % random.getrandbits(128)


def _routing_error(error: HTTPException) -> ServiceError:
    """Return the error for what the router raises: 404 and 405."""
    if error.status_code != 405:
        return ServiceError(404, "not_found", "no such address; / is a page, /docs lists the others")
    allowed = ", ".join(sorted((error.headers or {})["Allow"].split(", ")))
    refused = ServiceError(405, "method_not_allowed", f"this address takes {allowed} only")
    refused.headers["Allow"] = allowed
    return refused


class HostPolicy:
    """By which host names, and from pages of which sites, a request may come.

    Any web page can make its visitor's browser send requests here, and with DNS rebinding it can make them look like
    requests to itself. Browsers tell both in headers that a page cannot change. A program that sends no Origin passes.
    Loopback names and IP addresses are always allowed.

    Args:
        names: more names of this service: ``name``, ``*.domain`` for all below it, or ``*``.
        origins: sites whose pages may use it, ``https://name[:port]``.
        bound: the address that the service listens on; if it is a name, it is allowed.
    """

    def __init__(self, names: Iterable[str], origins: Iterable[str], bound: str) -> None:
        self._names = {_normalized(name) for name in (*names, bound)}
        self._origins = {origin.lower().rstrip("/") for origin in origins}

    def check(self, scope: Scope) -> None:
        """Check the headers Host, Origin and Sec-Fetch-* of a request.

        Raises:
            ServiceError: 400, no Host or two; 403, another host or site.
        """
        found: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in (b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode"):
                if name in found:
                    raise _malformed(f"the header {name.decode()} occurs twice")
                found[name] = value
        origin, site = found.get(b"origin"), found.get(b"sec-fetch-site")
        if b"host" not in found:
            if scope["http_version"] == "1.0" and origin is None and site is None:
                return
            raise _malformed("the request has no Host header")
        host = _parse_authority(found[b"host"].decode("latin-1"))
        if host is None:
            raise _malformed("the Host header is not a name or address with an optional port")
        if not self._is_ours(host):
            message = "this host name is not allowed; --allow-host allows others than localhost and IPs"
            raise ServiceError(403, "host_not_allowed", message)
        if origin is not None:
            allowed = (site == b"same-origin" and origin == b"null") or self._may_use(origin.decode("latin-1"), host)
        else:
            # A link on another site may be followed.
            follows_link = scope["method"] in ("GET", "HEAD") and found.get(b"sec-fetch-mode") == b"navigate"
            allowed = site != b"cross-site" or follows_link
        if not allowed:
            message = "pages of other sites may not use this service; --allow-origin allows some"
            raise ServiceError(403, "origin_not_allowed", message)

    def _is_ours(self, host: _Authority) -> bool:
        if host.is_loopback or host.is_address or not self._names.isdisjoint({host.name, "*"}):
            return True
        return any(name.startswith("*.") and host.name.endswith(name[1:]) for name in self._names)

    def _may_use(self, origin: str, host: _Authority) -> bool:
        scheme, _, authority = origin.lower().partition("://")
        if origin.lower() in self._origins:
            return True
        site, port = _parse_authority(authority), DEFAULT_PORTS.get(scheme)
        if site is None or port is None:
            return False
        return site.is_loopback or (site.name, site.port or port) == (host.name, host.port or port)


class _Authority(NamedTuple):
    """``name[:port]``, in lower case."""

    name: str
    port: str | None
    is_address: bool
    is_loopback: bool


@lru_cache(1024)
def _parse_authority(text: str) -> _Authority | None:
    match = AUTHORITY.fullmatch(text.lower())
    if match is None:
        return None
    name = _normalized(match[1])
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return _Authority(name, match[2], False, name == "localhost" or name.endswith(".localhost"))
    return _Authority(name, match[2], True, address.is_loopback)


def _normalized(name: str) -> str:
    return name.lower().strip("[]").removesuffix(".")


def _malformed(message: str) -> ServiceError:
    return ServiceError(400, "malformed_request", message)
