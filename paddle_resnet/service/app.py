"""The application: everything of one process put together."""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from paddle_resnet import __version__
from paddle_resnet.service.body_limiter import Buffers
from paddle_resnet.service.errors import Refusal, refused
from paddle_resnet.service.hosts import Hosts
from paddle_resnet.service.inference_workers import Network
from paddle_resnet.service.logs import log
from paddle_resnet.service.metrics import Metrics
from paddle_resnet.service.middleware import Envelope, internal_error
from paddle_resnet.service.predict import Answering
from paddle_resnet.service.predict_fast_path import ShortWay, prediction
from paddle_resnet.service.routes import explanation_routes, information_routes, prediction_routes
from paddle_resnet.service.settings import Settings, load_predictor, pin_model
from paddle_resnet.service.shutdown import Lifetime

if TYPE_CHECKING:
    from paddle_resnet.inference import Predictor
    from paddle_resnet.service.explain import Explainer

SWITCH_SECONDS = 0.0005
"""How long a thread may keep Python's lock while others wait: the event loop must not wait 5 ms, as is usual, for a
thread that takes a large form apart or explains a picture."""
UNDOCUMENTED = ("/", "/docs", "/openapi.json")


def create_app(settings: Settings) -> Envelope:
    """Load the model and make the ASGI application that answers for it; the application closes both when it ends.

    Raises:
        UsageError, RunFailure: the model cannot be loaded.
    """
    predictor = load_predictor(settings)
    settings = pin_model(settings, predictor)
    network = Network(settings, predictor.config.input.image_size, len(predictor.classes))
    explainer = _explainer(predictor) if settings.explain else None  # meanwhile the network's processes start
    predictor.close()  # it still ranks; other processes decode and compute
    network.wait_until_ready()
    metrics, lifetime = Metrics(), Lifetime(settings.drain_seconds, worker=settings.workers > 1)
    buffers = Buffers(settings)
    answering = Answering(predictor, network, settings, metrics)
    predict = prediction(answering, buffers, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        usual = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.collect()
        gc.freeze()  # or each full collection walks through all of Paddle's modules, and everybody waits
        await network.open(answering.queue.start_batches, metrics.restarts.inc)
        lifetime.watch()
        log("ready", model=predictor.config.model, device=predictor.device, explain=explainer is not None)
        yield
        await answering.close()
        await network.close()
        gc.unfreeze()
        sys.setswitchinterval(usual)
        log("stopped")

    app = FastAPI(
        title="paddle_resnet",
        version=__version__,
        summary="An exported classifier behind HTTP.",
        docs_url=None,  # FastAPI's own load scripts from another host: see pages/docs.html
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat the Host header
        lifespan=lifespan,
        exception_handlers={
            Refusal: _refused,
            HTTPException: _http_error,
            RequestValidationError: _invalid,
            Exception: _fault,
        },
    )
    app.include_router(prediction_routes(predict))
    if explainer is not None:
        app.include_router(explanation_routes(answering, buffers, explainer))
    app.include_router(information_routes(predictor, network, settings, metrics, lifetime, explainer is not None))
    known = frozenset({*app.openapi()["paths"], *UNDOCUMENTED})
    hosts = Hosts(settings.allow_hosts, settings.allow_origins, settings.host)
    return Envelope(ShortWay(app, predict), metrics, lifetime, known, hosts)


def _explainer(predictor: Predictor) -> Explainer | None:
    from paddle_resnet.service.explain import Explainer  # brings what trains and measures along

    return Explainer.beside(predictor)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)
    return refused(request, error)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
    headers = dict(error.headers or {})
    message = "no such address; / has a page, /docs lists the others"
    if error.status_code == 405:
        headers["Allow"] = "GET, HEAD" if headers.get("Allow") == "GET" else headers.get("Allow", "")
        message = f"this address takes {headers['Allow']} only"
    answer = Refusal(error.status_code, code, message).response()
    answer.headers.update(headers)
    return answer


async def _fault(request: Request, error: Exception) -> JSONResponse:
    return internal_error()


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    place = ".".join(str(part) for part in error.errors()[0]["loc"][:2])
    return Refusal(422, "invalid_parameter", f"{place}: {error.errors()[0]['msg']}").response()
