"""What each request passes first: hosts and origins, the token, request id, response headers, log line, metrics.

Starlette's TrustedHostMiddleware knows no IP addresses. Its CORSMiddleware, which sends the headers of CORS, refuses no
request: a page of another site could use the service, though not read the responses.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import random
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from paddle_resnet.errors import UsageError
from paddle_resnet.files import decode_text
from paddle_resnet.service.errors import ServiceError
from paddle_resnet.service.shutdown import GracefulShutdown
from paddle_resnet.service.telemetry import Metrics, log

VALID_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
CONTENT_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The pages load their own scripts and styles, and nothing from other hosts. No script inside a page runs."""
COMMON_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", CONTENT_POLICY),
]
HEALTH_ROUTES = {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"}
PROBE_ROUTES = {*HEALTH_ROUTES, "/metrics"}
"""Requested every few seconds: logged only where the status is not 200."""
OPEN_ROUTES = {*HEALTH_ROUTES, "/", "/docs", "/openapi.json", "/static"}
"""They need no token, and say nothing about the model."""
DEFAULT_PORTS = {"http": 80, "https": 443}


class RequestMiddleware:
    """Request id, headers, log line and metrics of each request; and hosts, origins and the token.

    Every exception of the application becomes an error response here. No fault of the service leaves it but as a 500
    that says nothing about the cause. The application adds to the log line by ``state["log_fields"]``.

    Attributes:
        token: that requests need; None: none.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, shutdown: GracefulShutdown, hosts: HostPolicy, token: bytes | None
    ) -> None:
        self._app = app
        self.metrics = metrics
        self.shutdown = shutdown
        self._hosts = hosts
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        request_id = headers.get(b"x-request-id", b"")
        if not VALID_REQUEST_ID.fullmatch(request_id):
            request_id = b"%032x" % random.getrandbits(128)
        fields: dict[str, Any] = {"request_id": request_id.decode("ascii"), "method": scope["method"]}
        fields |= {"route": "other", "status": 0, "ms": 0.0}
        scope.setdefault("state", {})["log_fields"] = fields

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                fields["status"] = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id), *COMMON_HEADERS]
                if self.shutdown.draining:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            self._hosts.check(scope, headers)
            self._check_token(scope["path"], headers)
            scope["app"] = self  # or the router would respond to 404 and 405 itself
            await self._app(scope, receive, send_with_headers)
        except Exception as exception:
            response = self._error_response(exception, scope, fields)
            if not fields["status"]:
                await response(scope, receive, send_with_headers)
        finally:
            self._record(scope, time.perf_counter() - started, fields)

    def _check_token(self, path: str, headers: dict[bytes, bytes]) -> None:
        if self.token is None or path in OPEN_ROUTES or path.startswith("/static/"):
            return
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self.token):
            message = "this service needs its token, as Authorization: Bearer TOKEN"
            raise ServiceError(401, "unauthorized", message, headers={"WWW-Authenticate": "Bearer"})

    def _error_response(self, exception: Exception, scope: Scope, fields: dict[str, Any]) -> Response:
        if isinstance(exception, HTTPException) and exception.status_code == 405:
            allowed = ", ".join(sorted((exception.headers or {})["Allow"].split(", ")))
            if scope["method"] == "OPTIONS":
                return Response(status_code=204, headers={"Allow": f"{allowed}, OPTIONS"})
            message = f"this address takes {allowed} only"
            error = ServiceError(405, "method_not_allowed", message, headers={"Allow": allowed})
        elif isinstance(exception, HTTPException):
            error = ServiceError(404, "not_found", "no such address; / is a page, /docs lists the others")
        elif isinstance(exception, ServiceError):
            error = exception
        else:
            log("internal error", logging.ERROR, exception, request_id=fields["request_id"])
            error = ServiceError(500, "internal", "the service failed; its log says why")
        fields["code"] = error.code
        self.metrics.errors.labels(error.code).inc()
        return error.response(open_inference=scope["path"].startswith("/v2"))

    def _record(self, scope: Scope, seconds: float, fields: dict[str, Any]) -> None:
        """Count and log a request. Paths that a client makes up are one route: each would be a new time series."""
        path: str = scope["path"]
        if "endpoint" in scope and not path.startswith("/static/"):
            for name, value in scope["path_params"].items():
                path = path.replace(f"/{value}", f"/{{{name}}}", 1)
            fields["route"] = path
        fields["ms"] = round(1000 * seconds, 2)
        self.metrics.requests.labels(fields["route"], str(fields["status"])).inc()
        self.metrics.seconds.labels(fields["route"]).observe(seconds)
        if fields["status"] != 200 or fields["route"] not in PROBE_ROUTES:
            log("request", **fields)


def read_token(path: Path | None) -> bytes | None:
    """Return the token in a file, without the white space around it; None without a file.

    Raises:
        UsageError: it cannot be read, or holds no token.
    """
    if path is None:
        return None
    try:
        token = decode_text(path.read_bytes(), path).strip().encode()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error}); expected the token alone") from None
    if not re.fullmatch(rb"[\x21-\x7e]{1,4096}", token):
        raise UsageError(f"{path}: expected one token of visible ASCII characters, such as from: openssl rand -hex 32")
    return token


class HostPolicy:
    """Which host names this service goes by, and which sites' pages may use it.

    A page of any site can make its visitor's browser send requests here. By a name of its own that resolves to this
    address (DNS rebinding) it could even read the responses, so other names than the service's are refused. Addresses
    are its own: a name cannot rebind to them.

    `names` are allowed besides loopback ones, addresses and what it is `bound` to; ``*.example.org`` is all below it,
    ``*`` any. `origins`, such as ``https://example.org``, are allowed besides loopback ones and the service's own.
    """

    def __init__(self, names: Iterable[str], origins: Iterable[str], bound: str) -> None:
        self._names = {name.lower().strip("[]").removesuffix(".") for name in (*names, bound)}
        self._origins = {origin.lower().rstrip("/") for origin in origins}

    def check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Refuse a request without a Host header or with two (400), and for another host or by another site (403)."""
        guarded = (b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode")
        named, origin, site, mode = map(headers.get, guarded)
        if sum(name in guarded for name, _ in scope["headers"]) > sum(name in headers for name in guarded):
            raise _malformed("a header occurs twice: Host, Origin, Sec-Fetch-Site or Sec-Fetch-Mode")
        if named is None and scope["http_version"] == "1.0" and origin is None and site is None:
            return
        host = _parse_authority((named or b"").decode("latin-1"))
        if host is None:
            raise _malformed("the Host header is not a name or address with an optional port")
        if not self._is_ours(host):
            message = "this host name is not allowed; --allow-host allows others than localhost and IPs"
            raise ServiceError(403, "host_not_allowed", message)
        if origin is not None:
            allowed = (site == b"same-origin" and origin == b"null") or self._may_use(origin.decode("latin-1"), host)
        else:
            # A link on another site may be followed.
            allowed = site != b"cross-site" or (scope["method"] in ("GET", "HEAD") and mode == b"navigate")
        if not allowed:
            message = "pages of other sites may not use this service; --allow-origin allows some"
            raise ServiceError(403, "origin_not_allowed", message)

    def _is_ours(self, host: _Authority) -> bool:
        if host.is_address or host.is_loopback or not self._names.isdisjoint({host.name, "*"}):
            return True
        return any(name.startswith("*.") and host.name.endswith(name[1:]) for name in self._names)

    def _may_use(self, origin: str, host: _Authority) -> bool:
        scheme, _, authority = origin.lower().partition("://")
        site, port = _parse_authority(authority), DEFAULT_PORTS.get(scheme)
        if not self._origins.isdisjoint({origin.lower(), "*"}):
            return True
        if site is None or port is None:
            return False
        return site.is_loopback or (site.name, site.port or port) == (host.name, host.port or port)


class _Authority(NamedTuple):
    """``name[:port]``, in lower case."""

    name: str
    port: int | None
    is_address: bool
    is_loopback: bool


@lru_cache(1024)
def _parse_authority(text: str) -> _Authority | None:
    with suppress(ValueError):
        parts = urlsplit(f"//{text}")
        name = (parts.hostname or "").removesuffix(".")
        if not name or parts.netloc != text or "@" in text or not re.fullmatch(r"[^\s\\]+", text):
            return None
        with suppress(ValueError):
            return _Authority(name, parts.port, True, ipaddress.ip_address(name).is_loopback)
        return _Authority(name, parts.port, False, name == "localhost" or name.endswith(".localhost"))
    return None


def _malformed(message: str) -> ServiceError:
    return ServiceError(400, "malformed_request", message)
