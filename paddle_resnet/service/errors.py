"""Errors that the client is told, as JSON."""

from __future__ import annotations

from starlette.responses import JSONResponse


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
        self.status, self.code, self.message, self.image, self.headers = status, code, message, image, headers

    def response(self, path: str) -> JSONResponse:
        """Return the response for an address; that of the Open Inference Protocol is ``{"error": message}``."""
        error: dict[str, object] = {"code": self.code, "message": self.message}
        if self.image is not None:
            error["image"] = self.image
        return JSONResponse({"error": self.message if path.startswith("/v2") else error}, self.status, self.headers)


def busy_error(what: str = "images") -> ServiceError:
    """Return a 429 with a Retry-After."""
    message = f"too many {what} are waiting; try again later"
    return ServiceError(429, "busy", message, headers={"Retry-After": "1"})


def unavailable_error(message: str) -> ServiceError:
    """Return a 503 with a Retry-After."""
    return ServiceError(503, "unavailable", f"{message}; try again later", headers={"Retry-After": "1"})


def timeout_error() -> ServiceError:
    """Return a 504 with a Retry-After."""
    return ServiceError(504, "timeout", "no prediction in time; try again later", headers={"Retry-After": "1"})


def client_closed_error() -> ServiceError:
    """Return the error for a client that left: nginx's status 499, which only the log and the metrics show."""
    return ServiceError(499, "gone", "the client closed the connection")


def malformed(message: str) -> ServiceError:
    """Return the error for a body that is not what its type says."""
    return ServiceError(400, "malformed_body", message)


def too_many_images(max_images: int) -> ServiceError:
    """Return the error for a request with more than `max_images`."""
    return ServiceError(413, "too_many_images", f"more than {max_images} images; send fewer at once")
