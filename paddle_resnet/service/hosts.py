"""Which names of this service, and pages of which sites, a request may come by.

A web page of any site can make its visitor's browser send requests here, and by changing its own name's address (DNS
rebinding) it can make them look like requests to itself. Browsers say both in headers that pages cannot change. A
program that sends no Origin is let through.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

from starlette.types import Scope

from paddle_resnet.service.errors import Refusal

AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:@/\[\]?#,\\]+)(?::([0-9]{0,5}))?")
DEFAULT_PORTS = {"http": "80", "https": "443"}


class Hosts:
    """The names and sites that are allowed beside the loopback names and IP addresses.

    Args:
        names: of this service: ``name``, ``*.domain`` for all below it, or ``*``.
        origins: of pages, ``https://name[:port]``.
        bound: the address that the service listens on; a name there is one of its own.
    """

    def __init__(self, names: Iterable[str], origins: Iterable[str], bound: str) -> None:
        self._names = {_plain(name) for name in (*names, bound)}
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        self._named_here = lru_cache(1024)(self._is_here)
        self._known_page = lru_cache(1024)(self._is_known_page)

    def check(self, scope: Scope) -> None:
        """Check the headers Host, Origin and Sec-Fetch-Site of a request.

        Raises:
            Refusal: 400 no Host, or two; 403 another site's.
        """
        found: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in (b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode"):
                if name in found:
                    raise Refusal(400, "malformed_request", f"the header {name.decode()} stands twice")
                found[name] = value
        host = found.get(b"host")
        if host is None:
            if scope["http_version"] == "1.0" and b"origin" not in found and b"sec-fetch-site" not in found:
                return
            raise Refusal(400, "malformed_request", "the request has no Host header")
        if not AUTHORITY.fullmatch(host.decode("latin-1").lower()):
            raise Refusal(400, "malformed_request", "the Host header is not a name or address with an optional port")
        if not self._named_here(host):
            message = "the service does not answer by this name; --allow-host allows others than localhost and IPs"
            raise Refusal(403, "host_not_allowed", message)
        origin, site = found.get(b"origin"), found.get(b"sec-fetch-site", b"")
        if origin is not None:
            allowed = (site == b"same-origin" and origin == b"null") or self._known_page(origin, host)
        else:
            # Whoever follows a link to the page comes from another site too.
            follows_link = scope["method"] in ("GET", "HEAD") and found.get(b"sec-fetch-mode") == b"navigate"
            allowed = site != b"cross-site" or follows_link
        if not allowed:
            message = "pages of other sites may not use this service; --allow-origin allows some"
            raise Refusal(403, "origin_not_allowed", message)

    def _is_here(self, host: bytes) -> bool:
        match = AUTHORITY.fullmatch(host.decode("latin-1").lower())
        assert match
        name = _plain(match[1])
        if (
            name == "localhost"
            or name.endswith(".localhost")
            or _address(name)
            or not self._names.isdisjoint({name, "*"})
        ):
            return True
        return any(allowed.startswith("*.") and name.endswith(allowed[1:]) for allowed in self._names)

    def _is_known_page(self, origin: bytes, host: bytes) -> bool:
        text = origin.decode("latin-1").lower()
        if text in self._origins:
            return True
        scheme, _, authority = text.partition("://")
        match = AUTHORITY.fullmatch(authority)
        if scheme not in DEFAULT_PORTS or not match:
            return False
        name = _plain(match[1])
        address = _address(name)
        if name == "localhost" or name.endswith(".localhost") or (address is not None and address.is_loopback):
            return True
        here = AUTHORITY.fullmatch(host.decode("latin-1").lower())
        assert here
        port = DEFAULT_PORTS[scheme]
        return (name, match[2] or port) == (_plain(here[1]), here[2] or port)


def _plain(name: str) -> str:
    return name.lower().strip("[]").removesuffix(".")


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
