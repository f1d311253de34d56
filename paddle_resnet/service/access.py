"""Who may use the service: the host names that it goes by, the sites whose pages may use it, and the bearer token.

Starlette's TrustedHostMiddleware knows no IP addresses. Its CORSMiddleware, which sends the headers of CORS, refuses no
request: a page of another site could use the service, though not read the responses.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from paddle_resnet.errors import UsageError
from paddle_resnet.files import decode_text
from paddle_resnet.service.errors import ServiceError

DEFAULT_PORTS = {"http": 80, "https": 443}


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


def check_token(headers: Headers, expected: bytes) -> None:
    """Refuse a request (401) that does not carry the token."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode("latin-1"), expected):
        message = "this service needs its token, as Authorization: Bearer TOKEN"
        raise ServiceError(401, "unauthorized", message, headers={"WWW-Authenticate": "Bearer"})


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

    def check(self, headers: Headers, http_version: str = "1.1") -> None:
        """Refuse a request without a Host header or with two (400), and for another host or by another site (403)."""
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if http_version == "1.0" and not hosts and not origins:
            return
        host = _parse_authority(hosts[0]) if len(hosts) == 1 else None
        if host is None or len(origins) > 1:
            message = "expected one Host header, a name or address with an optional port, and at most one Origin"
            raise ServiceError(400, "malformed_request", message)
        if not self._is_ours(host):
            message = "this host name is not allowed; --allow-host allows others than localhost and IPs"
            raise ServiceError(403, "host_not_allowed", message)
        if origins and not self._may_use(origins[0].lower(), host):
            message = "pages of other sites may not use this service; --allow-origin allows some"
            raise ServiceError(403, "origin_not_allowed", message)

    def _is_ours(self, host: _Authority) -> bool:
        if host.is_address or host.is_loopback or not self._names.isdisjoint({host.name, "*"}):
            return True
        return any(name.startswith("*.") and host.name.endswith(name[1:]) for name in self._names)

    def _may_use(self, origin: str, host: _Authority) -> bool:
        scheme, _, authority = origin.partition("://")
        site, port = _parse_authority(authority), DEFAULT_PORTS.get(scheme)
        if not self._origins.isdisjoint({origin, "*"}):
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


@lru_cache(100)
def _parse_authority(text: str) -> _Authority | None:
    try:
        parts = urlsplit(f"//{text}")
        name, port = (parts.hostname or "").removesuffix("."), parts.port
    except ValueError:
        return None
    if not name or parts.netloc != text or not re.fullmatch(r"[^\s\\@]+", text):
        return None
    try:
        return _Authority(name, port, True, ipaddress.ip_address(name).is_loopback)
    except ValueError:
        return _Authority(name, port, False, name == "localhost" or name.endswith(".localhost"))
