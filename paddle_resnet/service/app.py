"""The application of one process: its parts put together, and its routes."""

from __future__ import annotations

import base64
import gc
import hashlib
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import resources
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from paddle_resnet import __version__
from paddle_resnet.service.errors import ServiceError, internal_error
from paddle_resnet.service.inference_workers import InferenceWorkers
from paddle_resnet.service.logs import log
from paddle_resnet.service.metrics import Metrics
from paddle_resnet.service.middleware import HostPolicy, RequestMiddleware
from paddle_resnet.service.predict import InferencePipeline, PredictFastPath, predict_routes
from paddle_resnet.service.settings import Settings, load_predictor, pin_model
from paddle_resnet.service.shutdown import GracefulShutdown
from paddle_resnet.service.worker_process import FORMATS

if TYPE_CHECKING:
    from paddle_resnet.inference import Predictor

SWITCH_SECONDS = 0.0005
"""How long a thread may keep Python's lock while others wait. With the usual 5 ms the event loop would wait too long
for a thread that splits a large form or explains an image."""
UNDOCUMENTED = ("/", "/docs", "/openapi.json")


def create_app(settings: Settings) -> RequestMiddleware:
    """Load the model and return the ASGI application, which closes it when the server stops.

    Raises:
        UsageError, RunFailure: the model cannot be loaded.
    """
    predictor = load_predictor(settings)
    settings = pin_model(settings, predictor)
    workers = InferenceWorkers(settings, predictor.config.input.image_size, len(predictor.classes))
    explainer = None
    if settings.explain:  # meanwhile the workers start
        from paddle_resnet.service.explain import Explainer, explain_routes  # imports training and evaluation

        explainer = Explainer.load(predictor)
    predictor.close()  # it only ranks from here on; the workers decode and compute
    workers.wait_until_ready()
    metrics, shutdown = Metrics(), GracefulShutdown(settings.drain_seconds, worker=settings.workers > 1)
    pipeline = InferencePipeline(predictor, workers, settings, metrics)

    def on_worker_replaced() -> None:
        metrics.restarts.inc()
        pipeline.batcher.start_batches()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with _responsive_event_loop():
            await workers.connect(on_worker_replaced)
            shutdown.install()
            log("ready", model=predictor.config.model, device=predictor.device, explain=explainer is not None)
            yield
            await pipeline.close()
            await workers.close()
        log("stopped")

    app = FastAPI(
        title="paddle_resnet",
        version=__version__,
        summary="An exported classifier behind HTTP.",
        docs_url=None,  # FastAPI's own pages load scripts from another host; pages/docs.html loads none
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat the Host header
        lifespan=lifespan,
        exception_handlers=dict.fromkeys(
            (ServiceError, HTTPException, RequestValidationError, Exception), _error_response
        ),
    )
    app.include_router(predict_routes(pipeline))
    if explainer is not None:
        app.include_router(explain_routes(pipeline, explainer))
    app.include_router(_information_routes(predictor, workers, settings, metrics, shutdown, explainer is not None))
    routes = frozenset({*app.openapi()["paths"], *UNDOCUMENTED})
    hosts = HostPolicy(settings.allow_hosts, settings.allow_origins, settings.host)
    return RequestMiddleware(PredictFastPath(app, pipeline), metrics, shutdown, routes, hosts)


@contextmanager
def _responsive_event_loop() -> Iterator[None]:
    """Keep threads and the garbage collector from stopping the event loop for long."""
    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # or each full collection walks through all of Paddle's modules
    yield
    gc.unfreeze()
    sys.setswitchinterval(switch_interval)


async def _error_response(request: Request, error: Exception) -> JSONResponse:
    """Return the response to an exception that was raised in FastAPI."""
    if isinstance(error, ServiceError):
        return error.response(request)
    if isinstance(error, RequestValidationError):
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"][:2])
        return ServiceError(422, "invalid_parameter", f"{place}: {problem['msg']}").response()
    if not isinstance(error, HTTPException):
        return internal_error()
    headers = dict(error.headers or {})
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
    message = "no such address; / is a page, /docs lists the others"
    if error.status_code == 405:
        headers["Allow"] = "GET, HEAD" if headers.get("Allow") == "GET" else headers.get("Allow", "")
        message = f"this address takes {headers['Allow']} only"
    response = ServiceError(error.status_code, code, message).response()
    response.headers.update(headers)
    return response


class ModelInfo(BaseModel):
    """The model and the limits."""

    model: str
    classes: list[str]
    image_size: int
    max_images: int
    max_body: int
    max_pixels: int
    formats: list[str]
    explain: bool


class State(BaseModel):
    """Of /healthz and /readyz."""

    status: str


def _information_routes(
    predictor: Predictor,
    workers: InferenceWorkers,
    settings: Settings,
    metrics: Metrics,
    shutdown: GracefulShutdown,
    explains: bool,
) -> APIRouter:
    """Return the pages, the description of the model, and the routes for operators."""
    router = APIRouter()
    start, documentation = _page("index"), _page("docs")
    about = ModelInfo(
        model=predictor.config.model,
        classes=list(predictor.classes),
        image_size=predictor.config.input.image_size,
        max_images=settings.max_images,
        max_body=settings.max_body,
        max_pixels=settings.max_pixels,
        formats=list(FORMATS),
        explain=explains,
    )

    @router.get("/", include_in_schema=False)
    async def index() -> Response:
        return start

    @router.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return documentation

    @router.get("/model", tags=["about"], summary="Describe the model and the limits")
    async def model() -> ModelInfo:
        return about

    @router.get("/healthz", tags=["operation"], summary="Whether the process works", responses={503: {"model": State}})
    async def healthz() -> JSONResponse:
        return _state("ok") if workers.usable else _state("failed", 503)

    @router.get("/readyz", tags=["operation"], summary="Whether to send requests", responses={503: {"model": State}})
    async def readyz() -> JSONResponse:
        if shutdown.draining:
            return _state("draining", 503)
        return _state("ready") if workers.healthy else _state("failed", 503)

    @router.get("/metrics", tags=["operation"], summary="Metrics for Prometheus", response_class=Response)
    async def prometheus() -> Response:
        return Response(metrics.exposition(), media_type=metrics.content_type)

    return router


def _state(status: str, code: int = 200) -> JSONResponse:
    return JSONResponse({"status": status}, code)


def _page(name: str) -> Response:
    """Return ``pages/<name>.html``.

    Its Content-Security-Policy names the page's one style and one script by their hashes. No other script would run,
    however it got into the page, and nothing is loaded from other hosts.
    """
    html = (resources.files("paddle_resnet.service") / "pages" / f"{name}.html").read_text(encoding="utf-8")
    policy = (
        "default-src 'none'",
        f"script-src {_inline_hash('script', html)}",
        f"style-src {_inline_hash('style', html)}",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    headers = {"Content-Security-Policy": "; ".join(policy), "Cache-Control": "no-cache"}
    return Response(html, media_type="text/html; charset=utf-8", headers=headers)


def _inline_hash(tag: str, html: str) -> str:
    (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    digest = hashlib.sha256(inline.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
