"""`POST /predict`, and the pipeline from a request's body to scores that it shares with `/explain`."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from paddle_resnet.service.batcher import Batcher
from paddle_resnet.service.errors import ERROR_RESPONSES, ServiceError, client_closed_error
from paddle_resnet.service.inference_workers import InferenceWorkers
from paddle_resnet.service.metrics import Metrics
from paddle_resnet.service.request_body import BodyLimiter, describe_body, is_single_image, split_body
from paddle_resnet.service.request_queue import PendingRequest
from paddle_resnet.service.settings import Settings
from paddle_resnet.service.worker_process import release_memory

if TYPE_CHECKING:
    from paddle_resnet.inference import Predictor

PREDICT = "/predict"
DEFAULT_TOP = 5
USUAL_QUERY = re.compile(rb"(?:top=([1-9][0-9]{0,5}))?")
SPLIT_THREADS = 2
"""Threads that split forms and JSON: a large or hostile body may take them long."""
DISCONNECT_CHECK_SECONDS = 0.5
"""A request younger than this is not watched for its client leaving: that costs more than most requests do."""
LARGE_BODY = 1 << 20
RELEASE_SECONDS = 2.0
"""After a larger body memory is returned to the system, once for all large bodies of this time."""


class InferencePipeline:
    """From a request to scores: read and split the body, admit, queue, compute. One per process.

    `predictor` only ranks; `workers` decode and compute.
    """

    def __init__(self, predictor: Predictor, workers: InferenceWorkers, settings: Settings, metrics: Metrics) -> None:
        self.predictor = predictor
        self.batcher = Batcher(workers.run, settings, lambda: workers.ready, metrics.observe_batch)
        self._body_limiter = BodyLimiter(settings)
        self._settings = settings
        self._metrics = metrics
        self._split_threads = ThreadPoolExecutor(SPLIT_THREADS, thread_name_prefix="split")
        self._release_timer: asyncio.TimerHandle | None = None

    async def close(self) -> None:
        """Compute what is queued, and end the threads."""
        await self.batcher.close()
        self._split_threads.shutdown()

    async def predict(self, request: Request, top: int) -> Response:
        """Answer `POST /predict` with the `top` most probable classes of each image."""
        async with self.run(request, self._settings.max_images) as (scores, _):
            request.state.log_fields = {"images": len(scores)}
            ranked = self.predictor.rank(scores, min(top, len(self.predictor.classes)))
        predictions = [
            {"image": image, "top": [{"class": label, "probability": round(value, 6)} for label, value in best]}
            for image, best in enumerate(ranked)
        ]
        return json_response({"model": self.predictor.config.model, "predictions": predictions})

    @asynccontextmanager
    async def run(
        self, request: Request, max_images: int, *, with_pixels: bool = False
    ) -> AsyncIterator[tuple[np.ndarray, list[np.ndarray | None]]]:
        """Read a request and give the scores of its images, float32 ``[N, classes]``, and pixels.

        The body and the images count against the limits until the block ends.

        Args:
            request: its body is not read yet.
            max_images: that it may hold.
            with_pixels: run each image by itself, and give its pixels, uint8 ``[S, S, 3]``.

        Raises:
            ServiceError: the body, an image or the state of the service is the reason why there are no scores.
        """
        self.batcher.check_capacity(client_of(request))
        async with self._body_limiter.read(request) as body:
            pending = PendingRequest(client_of(request), with_pixels=with_pixels)
            stop_watching = self._watch(request, pending)
            try:
                images = await self._admit(request, pending, body, max_images)
                self.batcher.put(pending, images)
                yield await pending.scores, pending.pixels
            except ServiceError as error:
                self._metrics.refusals.labels(error.code).inc()
                raise
            finally:
                stop_watching()
                self.batcher.release(pending)
                self._metrics.queue.set(self.batcher.admitted)
                if len(body) > LARGE_BODY and self._release_timer is None:
                    self._release_timer = asyncio.get_running_loop().call_later(RELEASE_SECONDS, self._release_memory)
                # The error refers to this frame, and the frame to the error: without this line both would keep the
                # body until the garbage collector runs.
                del pending

    def _watch(self, request: Request, pending: PendingRequest) -> Callable[[], None]:
        """Fail a request that takes too long, or whose client leaves. Return the function that stops watching."""
        loop = asyncio.get_running_loop()
        watchers: list[asyncio.Task[None]] = []

        async def fail_on_disconnect() -> None:
            while not pending.done:
                if (await request.receive())["type"] == "http.disconnect":
                    pending.fail(client_closed_error())

        timers = [
            loop.call_later(self._settings.response_timeout, pending.time_out),
            loop.call_later(DISCONNECT_CHECK_SECONDS, lambda: watchers.append(loop.create_task(fail_on_disconnect()))),
        ]

        def stop() -> None:
            for timer in timers:
                timer.cancel()
            for watcher in watchers:
                watcher.cancel()

        return stop

    async def _admit(self, request: Request, pending: PendingRequest, body: bytes, max_images: int) -> list[bytes]:
        """Admit the images of a body, the first one before it is split, and return them."""
        content_type = request.headers.get("content-type", "")
        self.batcher.admit(pending, 1)
        self._metrics.queue.set(self.batcher.admitted)
        if is_single_image(content_type):
            return [body]
        loop = asyncio.get_running_loop()
        images = await loop.run_in_executor(self._split_threads, split_body, body, content_type, max_images)
        self.batcher.admit(pending, len(images) - 1)
        self._metrics.queue.set(self.batcher.admitted)
        return images

    def _release_memory(self) -> None:
        self._release_timer = None
        release_memory()


def client_of(request: Request) -> str:
    """Return whose request it is: the sender's address, or the network of an IPv6 address."""
    return "" if request.client is None else _client_of_address(request.client.host)


@lru_cache(1024)
def _client_of_address(address: str) -> str:
    """Of IPv6 return the /64 network: its owner has all addresses in it."""
    with suppress(ValueError):
        parsed = ipaddress.ip_address(address)
        if isinstance(parsed, ipaddress.IPv6Address):
            return str(parsed.ipv4_mapped or parsed.packed[:8].hex())
    return address


class PredictFastPath:
    """ASGI middleware that answers the usual `POST /predict` itself, and passes all else to the application.

    FastAPI's share of such a request (its middleware, its routes, its checks of parameters) would take longer than all
    the rest for a small image.
    """

    def __init__(self, app: ASGIApp, pipeline: InferencePipeline) -> None:
        self._app = app
        self._pipeline = pipeline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        top = _top_of_usual_request(scope)
        if top is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await self._pipeline.predict(request, top)
        except ServiceError as error:
            response = error.response(request)
        await response(scope, receive, send)


def _top_of_usual_request(scope: Scope) -> int | None:
    """Return how many classes to rank; None for a request that needs FastAPI."""
    if scope["type"] != "http" or scope["path"] != PREDICT or scope["method"] != "POST":
        return None
    usual = USUAL_QUERY.fullmatch(scope["query_string"])
    return None if usual is None else int(usual[1] or DEFAULT_TOP)


def json_response(value: dict[str, Any]) -> Response:
    """Return compact JSON."""
    return Response(json.dumps(value, ensure_ascii=False, separators=(",", ":")), media_type="application/json")


# For the OpenAPI description. Responses are made without these classes, for speed.


class RankedClass(BaseModel):
    """A class and its probability."""

    model_config = ConfigDict(populate_by_name=True)

    label: str = Field(alias="class")
    probability: float = Field(ge=0, le=1)


class ImagePrediction(BaseModel):
    """The most probable classes of one image."""

    image: int = Field(description="the image's number in the request, from 0")
    top: list[RankedClass] = Field(description="the most probable classes, the best first")


class Predictions(BaseModel):
    """Of all images of a request, in their order."""

    model: str
    predictions: list[ImagePrediction]


def predict_routes(pipeline: InferencePipeline) -> APIRouter:
    """Return the route of `POST /predict`, for requests that do not take the fast path."""
    router = APIRouter(tags=["predictions"])

    @router.post(
        PREDICT,
        summary="Classify images",
        responses={200: {"model": Predictions}, **ERROR_RESPONSES},
        openapi_extra=describe_body(several=True),
    )
    async def predict_route(
        request: Request, top: Annotated[int, Query(ge=1, description="how many classes to rank")] = DEFAULT_TOP
    ) -> Response:
        return await pipeline.predict(request, top)

    return router
