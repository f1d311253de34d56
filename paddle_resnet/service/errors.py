"""Errors that the client is told, as JSON."""

from __future__ import annotations

from starlette.responses import JSONResponse

CLIENT_CLOSED = 499
"""nginx's status for a client that closed its connection. Only the log shows it."""


class ServiceError(Exception):
    """End a request with an HTTP status and ``{"error": {"code": ..., "message": ...}}``.

    Args:
        status: 4xx; or 500, 503 and 504, where the service is the reason.
        code: one word of a fixed list, such as ``"busy"``, for programs.
        message: for people: what is wrong and what to do. It never holds a file name or a path.
        image: which image of the request is the reason, from 0.
        retry_after: seconds after which another try may succeed.
    """

    def __init__(
        self, status: int, code: str, message: str, *, image: int | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.image = image
        self.retry_after = retry_after
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}

    def response(self) -> JSONResponse:
        error: dict[str, object] = {"code": self.code, "message": self.message}
        if self.image is not None:
            error["image"] = self.image
        return JSONResponse({"error": error}, self.status, self.headers)


def busy_error(seconds: float, message: str = "too many images are waiting; try again later") -> ServiceError:
    """Return a 429 whose Retry-After is `seconds`, from 1 to 60."""
    return ServiceError(429, "busy", message, retry_after=min(60, max(1, round(seconds))))


def client_closed_error() -> ServiceError:
    """Return the error for a client that left. It is counted and logged."""
    return ServiceError(CLIENT_CLOSED, "gone", "the client closed the connection")
