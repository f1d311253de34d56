"""The application of one process: its parts put together, and its routes."""

from __future__ import annotations

import asyncio
import atexit
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from paddle_resnet import __version__
from paddle_resnet.errors import PaddleResNetError
from paddle_resnet.service.inference_workers import InferenceWorkers
from paddle_resnet.service.middleware import HostPolicy, RequestMiddleware, read_token
from paddle_resnet.service.open_inference import open_inference_routes
from paddle_resnet.service.predict import InferencePipeline, ServedModel
from paddle_resnet.service.settings import Settings
from paddle_resnet.service.shutdown import GracefulShutdown
from paddle_resnet.service.telemetry import Metrics, log

PAGES = Path(__file__).parent / "pages"


def create_app(
    settings: Settings, expected_hash: str | None = None, workers: InferenceWorkers | None = None
) -> ASGIApp:
    """Load the model and return the ASGI application, which closes it when the server stops.

    `workers` take the place of those that it starts otherwise.

    Raises:
        UsageError, RunFailure: the model cannot be loaded, or is another one than that of `expected_hash`.
    """
    token, metrics = read_token(settings.token_file), Metrics()
    pipeline = InferencePipeline(ServedModel(settings, metrics, expected_hash, workers))
    # They block signals, and Python would wait for them at an end without the lifespan's.
    atexit.register(lambda: pipeline.model.workers.kill())
    pipeline.model.workers.wait_until_ready()
    reloads: set[asyncio.Task[None]] = set()

    async def reload() -> None:
        try:
            requests.token = read_token(settings.token_file)
        except PaddleResNetError as error:
            log("the earlier token stays in use", reason=str(error))
        await pipeline.reload()

    def start_reload() -> None:
        reloads.add(task := asyncio.get_running_loop().create_task(reload()))
        task.add_done_callback(reloads.discard)

    shutdown = GracefulShutdown(settings.drain_seconds, start_reload)

    @asynccontextmanager
    async def lifespan(app: Router) -> AsyncIterator[None]:
        pipeline.model.connect()
        shutdown.install()
        log("ready", **{name: pipeline.model.about()[name] for name in ("model", "run", "version", "explain")})
        yield
        for task in reloads:
            task.cancel()
        await pipeline.close()
        log("stopped")

    # A redirect would repeat the Host header.
    router = Router(_routes(pipeline, metrics, shutdown), redirect_slashes=False, lifespan=lifespan)
    hosts = HostPolicy(settings.allow_hosts, settings.allow_origins, settings.host)
    requests = RequestMiddleware(router, metrics, shutdown, hosts, token)
    if not settings.allow_origins:
        return requests
    return CORSMiddleware(
        requests,
        allow_origins=settings.allow_origins,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=("Authorization", "X-Request-ID", "Inference-Header-Content-Length"),
        expose_headers=("Retry-After", "X-Request-ID", "Inference-Header-Content-Length"),
    )


def _routes(pipeline: InferencePipeline, metrics: Metrics, shutdown: GracefulShutdown) -> list[BaseRoute]:
    interface = json.loads((PAGES / "openapi.json").read_text(encoding="utf-8"))
    interface["info"]["version"] = __version__

    def is_ready() -> bool:
        return pipeline.model.workers.usable and not shutdown.draining

    async def readyz(request: Request) -> Response:
        state = "draining" if shutdown.draining else "ready" if is_ready() else "failed"
        return JSONResponse({"status": state}, 200 if is_ready() else 503)

    async def healthz(request: Request) -> Response:
        usable = pipeline.model.workers.usable
        return JSONResponse({"status": "ok" if usable else "failed"}, 200 if usable else 503)

    async def prometheus(request: Request) -> Response:
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    async def model(request: Request) -> Response:
        return JSONResponse(pipeline.model.about())

    return [
        Route("/predict", pipeline.predict, methods=["POST"]),
        Route("/explain", pipeline.explain, methods=["POST"]),
        *open_inference_routes(pipeline, is_ready),
        Route("/model", model),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", prometheus),
        Route("/openapi.json", lambda request: JSONResponse(interface)),
        Route("/", lambda request: FileResponse(PAGES / "index.html")),
        Route("/docs", lambda request: FileResponse(PAGES / "docs.html")),
        Mount("/static", StaticFiles(directory=PAGES)),
    ]
