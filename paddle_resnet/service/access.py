"""Who may use the service: the host names that it goes by, the sites whose pages may use it, and the bearer token.

Starlette's TrustedHostMiddleware knows no IP addresses. Its CORSMiddleware, which sends the headers of CORS, refuses no
request: a page of another site could use the service, though not read the responses.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from paddle_resnet.errors import UsageError
from paddle_resnet.service.errors import ServiceError
from paddle_resnet.service.settings import normal_origin
from paddle_resnet.text_files import decode_text


def read_token(path: Path | None) -> bytes | None:
    """Return the stripped token of a file, or None without one; an unreadable or empty file is a UsageError."""
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
    ``*`` any. `origins`, such as ``https://example.org``, are allowed besides loopback ones and the service's own;
    they are those of `Settings`, in the form in which browsers send them.
    """

    def __init__(self, names: Iterable[str], origins: Iterable[str], bound: str) -> None:
        self._names = {name.lower().strip("[]").removesuffix(".") for name in (*names, bound)}
        self._origins = set(origins)

    def check(self, headers: Headers, http_version: str = "1.1") -> None:
        """Refuse a request without a Host header or with two (400), and for another host or by another site (403)."""
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if http_version == "1.0" and not hosts and not origins:
            return
        name = _host_name(hosts[0]) if len(hosts) == 1 else None
        if name is None or len(origins) > 1:
            message = "expected one Host header, a name or address with an optional port, and at most one Origin"
            raise ServiceError(400, "malformed_request", message)
        if not self._is_ours(name):
            message = "this host name is not allowed; --allow-host allows others than localhost and IPs"
            raise ServiceError(403, "host_not_allowed", message)
        if origins and not self._may_use(normal_origin(origins[0]), hosts[0]):
            message = "pages of other sites may not use this service; --allow-origin allows some"
            raise ServiceError(403, "origin_not_allowed", message)

    def _is_ours(self, name: str) -> bool:
        if _is_loopback(name) or _address(name) or not self._names.isdisjoint({name, "*"}):
            return True
        return any(each.startswith("*.") and name.endswith(each[1:]) for each in self._names)

    def _may_use(self, origin: str, host: str) -> bool:
        if not self._origins.isdisjoint({origin, "*"}):
            return True
        scheme, _, authority = origin.partition("://")
        name = _host_name(authority)
        # Browsers leave out the usual port in both headers, but a proxy may add it to Host.
        is_own = origin == normal_origin(f"{scheme}://{host}")
        return scheme in ("http", "https") and name is not None and (is_own or _is_loopback(name))


def _host_name(authority: str) -> str | None:
    """Return the name in ``name[:port]``, in lower case and without a final dot; None if that is no authority."""
    try:
        parts = urlsplit(f"//{authority}")
        name, _ = (parts.hostname or "").removesuffix("."), parts.port
    except ValueError:
        return None
    return name if name and parts.netloc == authority and not re.search(r"[\s\\@]", authority) else None


def _is_loopback(name: str) -> bool:
    address = _address(name)
    return address.is_loopback if address else name == "localhost" or name.endswith(".localhost")


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
