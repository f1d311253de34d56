"""The service's addresses."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import anyio.to_thread
import numpy as np
from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from paddle_resnet.service.body_limiter import Buffers
from paddle_resnet.service.errors import Refusal
from paddle_resnet.service.inference_workers import Network
from paddle_resnet.service.metrics import Metrics
from paddle_resnet.service.pages import page
from paddle_resnet.service.pictures import FORMATS
from paddle_resnet.service.predict import Answering, client_of
from paddle_resnet.service.predict_fast_path import PREDICT, TOP, Predict, json_response
from paddle_resnet.service.schema import ERRORS, ExplanationAnswer, ModelInfo, Predictions, State, request_body
from paddle_resnet.service.settings import Settings
from paddle_resnet.service.shutdown import Lifetime

if TYPE_CHECKING:
    from paddle_resnet.inference import Predictor
    from paddle_resnet.service.explain import Explainer

EXPLANATIONS_WAITING = 4
"""Grad-CAM goes forward and backward through the network, and takes the cores from /predict: few wait for it."""


def prediction_routes(predict: Predict) -> APIRouter:
    """`POST /predict`."""
    router = APIRouter(tags=["predictions"])

    @router.post(
        PREDICT,
        summary="Classify pictures",
        responses={200: {"model": Predictions}, **ERRORS},
        openapi_extra=request_body(several=True),
    )
    async def predict_route(
        request: Request, top: Annotated[int, Query(ge=1, description="how many classes to rank")] = TOP
    ) -> Response:
        return await predict(request, top)

    return router


def explanation_routes(answering: Answering, buffers: Buffers, explainer: Explainer) -> APIRouter:
    """`POST /explain`."""
    router = APIRouter(tags=["predictions"])
    classes = frozenset(answering.predictor.classes)
    limiter = anyio.CapacityLimiter(1)
    under_way = 0

    def explanation(pixels: np.ndarray | None, scores: np.ndarray, label: str | None) -> dict[str, object]:
        assert pixels is not None  # of pictures that are computed alone they come with the scores
        return explainer.explain(pixels, scores, label).as_json()

    @router.post(
        "/explain",
        summary="Show which places of a picture speak for a class (Grad-CAM)",
        responses={200: {"model": ExplanationAnswer}, **ERRORS},
        openapi_extra=request_body(several=False),
    )
    async def explain_route(
        request: Request,
        label: Annotated[str | None, Query(alias="class", description="default: the most probable class")] = None,
    ) -> Response:
        if label is not None and label not in classes:
            raise Refusal(422, "unknown_class", "the model has no such class; GET /model lists them")
        nonlocal under_way
        if under_way > EXPLANATIONS_WAITING:
            raise Refusal(429, "busy", "too many explanations are waiting; try again later", retry_after=1)
        answering.queue.check_room(client_of(request))
        under_way += 1
        try:
            async with (
                buffers.body(request) as body,
                answering.scores(request, body, 1, alone=True) as (rows, pixels),
            ):
                explain = partial(explanation, pixels[0], rows[0], label)
                return json_response(await anyio.to_thread.run_sync(explain, limiter=limiter))
        finally:
            under_way -= 1

    return router


def information_routes(
    predictor: Predictor, network: Network, settings: Settings, metrics: Metrics, lifetime: Lifetime, explains: bool
) -> APIRouter:
    """The pages, the model's description, and what those who run services ask for."""
    router = APIRouter()
    start, documentation = page("index"), page("docs")

    @router.get("/", include_in_schema=False)
    async def index() -> Response:
        return start

    @router.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return documentation

    @router.get("/model", tags=["about"], summary="Describe the model and the limits")
    async def model() -> ModelInfo:
        return ModelInfo(
            model=predictor.config.model,
            classes=list(predictor.classes),
            image_size=predictor.config.input.image_size,
            max_images=settings.max_images,
            max_body=settings.max_body,
            max_pixels=settings.max_pixels,
            formats=list(FORMATS),
            explain=explains,
        )

    @router.get("/healthz", tags=["operation"], summary="Whether the process works", responses={503: {"model": State}})
    async def healthz() -> JSONResponse:
        return _state("ok", network.alive)

    @router.get("/readyz", tags=["operation"], summary="Whether to send requests", responses={503: {"model": State}})
    async def readyz() -> JSONResponse:
        if lifetime.draining:
            return _state("draining", False)
        return _state("ready", network.whole)

    @router.get("/metrics", tags=["operation"], summary="Metrics for Prometheus", response_class=Response)
    async def prometheus() -> Response:
        return Response(metrics.exposition(), media_type=metrics.content_type)

    return router


def _state(status: str, good: bool) -> JSONResponse:
    return JSONResponse({"status": status if good or status == "draining" else "failed"}, 200 if good else 503)
