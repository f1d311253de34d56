"""The service's own pages: one file each, and a policy under which the browser runs and loads nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources

from starlette.responses import Response


def page(name: str) -> Response:
    """The page of the package's file ``pages/<name>.html``, to be sent as it is.

    The Content-Security-Policy names the page's one style and one script by their hashes: no other script would run,
    however it found its way into the page.
    """
    html = (resources.files("paddle_resnet.service") / "pages" / f"{name}.html").read_text(encoding="utf-8")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash_of('script', html)}",
            f"style-src {_hash_of('style', html)}",
            "img-src 'self' blob: data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}
    return Response(html, media_type="text/html; charset=utf-8", headers=headers)


def _hash_of(tag: str, html: str) -> str:
    (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    digest = hashlib.sha256(inline.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
