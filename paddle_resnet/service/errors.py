"""A request that is not answered with predictions, and what its sender is told."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse


class Refusal(Exception):  # noqa: N818 (an answer, not a fault of ours)
    """Ends a request with an HTTP status; `code` is for programs, `message` for people.

    Args:
        status: 4xx, or 503 and 504 where the service cannot.
        code: one word of a fixed list, such as ``"busy"``.
        message: what was wrong and what to do; it never holds a file's name or a path.
        image: which picture of the request, from 0.
        retry_after: seconds after which trying again may succeed.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        image: int | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.image = image
        self.retry_after = retry_after

    def response(self) -> JSONResponse:
        """``{"error": {"code": ..., "message": ..., "image": ...}}`` with the headers that go with it."""
        error: dict[str, object] = {"code": self.code, "message": self.message}
        if self.image is not None:
            error["image"] = self.image
        headers = None if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return JSONResponse({"error": error}, self.status, headers)


def refused(request: Request, refusal: Refusal) -> JSONResponse:
    """Answer with a refusal, and note its code for the log."""
    request.state.noted = {"code": refusal.code}
    return refusal.response()


def busy(seconds: float) -> Refusal:
    """The queue is full; it is expected to have room after so many seconds."""
    return Refusal(
        429, "busy", "too many pictures are waiting; try again later", retry_after=min(60, max(1, round(seconds)))
    )
