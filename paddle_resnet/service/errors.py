"""Errors that the client is told, as JSON."""

from __future__ import annotations

from starlette.responses import JSONResponse

TRY_AGAIN = (429, 503, 504)  # statuses of responses with a Retry-After


class ServiceError(Exception):
    """End a request with an HTTP status and ``{"error": {"code": ..., "message": ...}}``.

    The status is 4xx, or 500, 503 or 504 where the service is the reason. The code is one word of a fixed list, for
    programs. The message is for people: what is wrong and what to do; it never holds a file name or a path. `image` is
    the one that is the reason, from 0.
    """

    def __init__(
        self, status: int, code: str, message: str, *, image: int | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.image = status, code, message, image
        self.headers = {"Retry-After": "1"} if status in TRY_AGAIN else headers

    def response(self, path: str) -> JSONResponse:
        """Return the response for an address; that of the Open Inference Protocol is ``{"error": message}``."""
        error: dict[str, object] = {"code": self.code, "message": self.message}
        if self.image is not None:
            error["image"] = self.image
        return JSONResponse({"error": self.message if path.startswith("/v2") else error}, self.status, self.headers)


def busy_error(what: str = "images") -> ServiceError:
    """Return a 429."""
    return ServiceError(429, "busy", f"too many {what} are waiting; try again later")


def client_closed_error() -> ServiceError:
    """Return the error for a client that left: nginx's status 499, which only the log and the metrics show."""
    return ServiceError(499, "gone", "the client closed the connection")


def malformed(message: str) -> ServiceError:
    """Return the error for a body that is not what its type says."""
    return ServiceError(400, "malformed_body", message)


def too_many_images(max_images: int) -> ServiceError:
    """Return the error for a request with more than `max_images`."""
    return ServiceError(413, "too_many_images", f"more than {max_images} images; send fewer at once")
