"""`POST /predict`: the answer, and a short way to it for the request that comes thousands of times a second."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from paddle_resnet.service.body_limiter import Buffers
from paddle_resnet.service.errors import Refusal, refused
from paddle_resnet.service.predict import Answering, client_of
from paddle_resnet.service.settings import Settings

PREDICT = "/predict"
TOP = 5
"""Classes that are ranked if the request does not say how many."""
USUAL_QUERY = re.compile(rb"(?:top=([1-9][0-9]{0,5}))?")

Predict = Callable[[Request, int], Awaitable[Response]]


def prediction(answering: Answering, buffers: Buffers, settings: Settings) -> Predict:
    """Make the function that answers a request with the `top` most probable classes of each picture."""
    predictor = answering.predictor
    most_classes = len(predictor.classes)

    async def predict(request: Request, top: int) -> Response:
        answering.queue.check_room(client_of(request))
        async with (
            buffers.body(request) as body,
            answering.scores(request, body, settings.max_images) as (rows, _),
        ):
            request.state.noted = {"images": len(rows)}
            ranked = predictor.rank(rows, min(top, most_classes))
        return json_response(
            {
                "model": predictor.config.model,
                "predictions": [
                    {
                        "image": image,
                        "top": [{"class": label, "probability": round(share, 6)} for label, share in best],
                    }
                    for image, best in enumerate(ranked)
                ],
            }
        )

    return predict


class ShortWay:
    """ASGI middleware: `POST /predict` as it nearly always comes is answered here, all else by the application.

    What FastAPI would do for it (look through its middlewares and routes, read and check the parameters) takes
    longer than all the rest of a small picture's request.
    """

    def __init__(self, app: ASGIApp, predict: Predict) -> None:
        self._app = app
        self._predict = predict

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        top = _usual_top(scope)
        if top is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await self._predict(request, top)
        except Refusal as refusal:
            response = refused(request, refusal)
        await response(scope, receive, send)


def _usual_top(scope: Scope) -> int | None:
    """How many classes a usual prediction's request wants ranked; None for other requests."""
    if scope["type"] != "http" or scope["path"] != PREDICT or scope["method"] != "POST":
        return None
    usual = USUAL_QUERY.fullmatch(scope["query_string"])
    return None if usual is None else int(usual[1] or TOP)


def json_response(value: dict[str, Any]) -> Response:
    """An answer in compact JSON."""
    return Response(json.dumps(value, ensure_ascii=False, separators=(",", ":")), media_type="application/json")
