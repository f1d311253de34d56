"""Errors that the client is told, as JSON."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse

CLIENT_CLOSED = 499
"""nginx's status for a client that closed its connection. Only the log shows it."""


class ServiceError(Exception):
    """End a request with an HTTP status and ``{"error": {"code": ..., "message": ...}}``.

    Args:
        status: 4xx; or 503 and 504, where the service is the reason.
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

    def response(self, request: Request | None = None) -> JSONResponse:
        """Return the response, and note the code in `request` for the log."""
        if request is not None:
            request.state.log_fields = {"code": self.code}
        error: dict[str, object] = {"code": self.code, "message": self.message}
        if self.image is not None:
            error["image"] = self.image
        headers = None if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return JSONResponse({"error": error}, self.status, headers)


def busy_error(seconds: float, message: str = "too many images are waiting; try again later") -> ServiceError:
    """Return a 429 whose Retry-After is `seconds`, from 1 to 60."""
    return ServiceError(429, "busy", message, retry_after=min(60, max(1, round(seconds))))


def client_closed_error() -> ServiceError:
    """Return the error for a client that left. It is counted and logged."""
    return ServiceError(CLIENT_CLOSED, "gone", "the client closed the connection")


def internal_error() -> JSONResponse:
    """Return a 500 that says nothing about its cause."""
    return JSONResponse({"error": {"code": "internal", "message": "the service failed; its log says why"}}, 500)


class ErrorDetail(BaseModel):
    """Why there are no predictions."""

    code: str = Field(description="one word, for programs")
    message: str = Field(description="one line, for people")
    image: int | None = Field(None, description="the image that is the reason")


class ErrorResponse(BaseModel):
    """Every response whose status is not 200."""

    error: ErrorDetail


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": description}
    for status, description in {
        400: "the body is malformed, or holds no image",
        408: "the body did not arrive in time",
        413: "the body is too large, or holds too many images",
        415: "a body of another type, or compressed",
        422: "an image cannot be read, or has too many pixels",
        429: "too much is waiting: Retry-After says when to try again",
        504: "no prediction in time",
    }.items()
}
"""For the OpenAPI description."""
