"""The application of a service: what each request passes first and last, and the routes."""

from __future__ import annotations

import asyncio
import atexit
import logging
import random
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Match, Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

from paddle_resnet import __version__
from paddle_resnet.errors import PaddleResNetError
from paddle_resnet.service.access import HostPolicy, check_token, read_token
from paddle_resnet.service.errors import ServiceError
from paddle_resnet.service.inference_workers import InferenceWorkers
from paddle_resnet.service.open_inference import open_inference_routes
from paddle_resnet.service.predict import InferencePipeline, ServedModel
from paddle_resnet.service.settings import Settings
from paddle_resnet.service.telemetry import Metrics, log

PAGES = Path(__file__).parent / "pages"
VALID_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
COMMON_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    # The pages load their own scripts and styles, and nothing from other hosts. No script inside a page runs.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
HEALTH_ROUTES = {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"}
PROBE_ROUTES = {*HEALTH_ROUTES, "/metrics"}  # requested every few seconds: logged only where the status is not 200
OPEN_ROUTES = {*HEALTH_ROUTES, "/", "/docs", "/openapi.json"}  # they need no token, and say nothing about the model


class Application:
    """An ASGI application, which loads the model when it is made, and closes it when the server stops.

    Every exception becomes an error response here. No fault of the service leaves it but as a 500 that says nothing
    about the cause. What answers a request adds to its log line by ``state["log_fields"]``.

    The model has `expected_hash`, or None for that of the folder now. `workers` are in the place of those that it
    starts otherwise. Raise a UsageError or RunFailure if the model cannot be loaded, or is another one.
    """

    def __init__(
        self, settings: Settings, expected_hash: str | None = None, workers: InferenceWorkers | None = None
    ) -> None:
        self._settings = settings
        self.draining = False  # /readyz is 503, and each connection closes after its response
        self.token = read_token(settings.token_file)  # that requests need; None: none
        self.metrics = Metrics()
        self._hosts = HostPolicy(settings.allow_hosts, settings.allow_origins, settings.host)
        self._pipeline = InferencePipeline(ServedModel(settings, self.metrics, expected_hash, workers))
        # They block signals, and Python would wait for them at an end without the lifespan's.
        atexit.register(lambda: self._pipeline.model.workers.kill())
        self._pipeline.model.workers.wait_until_ready()
        self._reloads: set[asyncio.Task[None]] = set()
        # A redirect would repeat the Host header.
        routes = [_LoggedRoute(each) for each in self._routes()]
        self._router = Router(routes, redirect_slashes=False, lifespan=self._lifespan)
        self._with_cors = CORSMiddleware(
            self._respond,
            allow_origins=settings.allow_origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=("Authorization", "X-Request-ID", "Inference-Header-Content-Length"),
            expose_headers=("Retry-After", "X-Request-ID", "Inference-Header-Content-Length"),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._with_cors(scope, receive, send)
        else:
            await self._router(scope, receive, send)

    @asynccontextmanager
    async def _lifespan(self, app: Router) -> AsyncIterator[None]:
        self._pipeline.model.connect()
        about = self._pipeline.model.about()
        log("loaded", **{name: about[name] for name in ("model", "run", "version", "explain")})
        yield
        for reload in self._reloads:
            reload.cancel()
        await self._pipeline.close()
        log("stopped")

    def reload(self) -> None:
        """Begin to load the token and the model anew. What cannot be loaded stays."""
        self._reloads.add(task := asyncio.get_running_loop().create_task(self._load_anew()))
        task.add_done_callback(self._reloads.discard)

    async def _load_anew(self) -> None:
        try:
            self.token = read_token(self._settings.token_file)
        except PaddleResNetError as error:
            log("the earlier token stays in use", logging.ERROR, reason=str(error))
        await self._pipeline.reload()

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id", "")
        if not VALID_REQUEST_ID.fullmatch(request_id):
            request_id = f"{random.getrandbits(128):032x}"
        # Addresses that a client makes up stay one route: each would be a new time series.
        fields: dict[str, Any] = {"request_id": request_id, "method": scope["method"], "route": "other", "status": 0}
        scope.setdefault("state", {})["log_fields"] = fields

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                fields["status"] = message["status"]
                added = MutableHeaders(raw=message["headers"])
                added.update({"x-request-id": request_id, **COMMON_HEADERS})
                if self.draining:
                    added["connection"] = "close"
            await send(message)

        try:
            self._hosts.check(headers, scope["http_version"])
            if self.token is not None and scope["path"] not in OPEN_ROUTES and not scope["path"].startswith("/static/"):
                check_token(headers, self.token)
            scope["app"] = self  # or the router would respond to 404 and 405 itself
            # Starlette would answer a range that is none without JSON.
            scope["headers"] = [header for header in scope["headers"] if header[0] != b"range"]
            await self._router(scope, receive, send_with_headers)
        except Exception as exception:
            error = _error_of(exception, request_id)
            fields["code"] = error.code
            self.metrics.errors.labels(error.code).inc()
            if not fields["status"]:
                await error.response(scope["path"])(scope, receive, send_with_headers)
        finally:
            fields["ms"] = round(1000 * (time.perf_counter() - started), 2)
            self.metrics.requests.labels(fields["route"], str(fields["status"])).inc()
            self.metrics.seconds.labels(fields["route"]).observe(fields["ms"] / 1000)
            if fields["status"] != 200 or fields["route"] not in PROBE_ROUTES:
                log("request", **fields)

    def _is_ready(self) -> bool:
        return self._pipeline.model.workers.usable and not self.draining

    def _routes(self) -> list[Route | Mount]:
        pipeline = self._pipeline
        interface = yaml.safe_load((PAGES / "openapi.yaml").read_text(encoding="utf-8"))
        interface["info"]["version"] = __version__

        async def readyz(request: Request) -> Response:
            ready = self._is_ready()
            state = "draining" if self.draining else "ready" if ready else "failed"
            return JSONResponse({"status": state}, 200 if ready else 503)

        async def healthz(request: Request) -> Response:
            usable = pipeline.model.workers.usable
            return JSONResponse({"status": "ok" if usable else "failed"}, 200 if usable else 503)

        async def prometheus(request: Request) -> Response:
            return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

        async def model(request: Request) -> Response:
            return JSONResponse(pipeline.model.about())

        return [
            Route("/predict", pipeline.predict, methods=["POST"]),
            Route("/explain", pipeline.explain, methods=["POST"]),
            *open_inference_routes(pipeline, self._is_ready),
            Route("/model", model),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", prometheus),
            Route("/openapi.json", lambda request: JSONResponse(interface)),
            Route("/", lambda request: FileResponse(PAGES / "index.html")),
            Route("/docs", lambda request: FileResponse(PAGES / "docs.html")),
            Mount("/static", StaticFiles(directory=PAGES)),
        ]


class _LoggedRoute(BaseRoute):
    """A route that writes its path into the log line of each request that it matches."""

    def __init__(self, route: Route | Mount) -> None:
        self._route = route

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return self._route.matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["log_fields"]["route"] = self._route.path
        await self._route.handle(scope, receive, send)


def _error_of(exception: Exception, request_id: str) -> ServiceError:
    """Return what the client is told of an exception."""
    if isinstance(exception, ServiceError):
        return exception
    if isinstance(exception, HTTPException) and exception.status_code == 405:
        allowed = ", ".join(sorted((exception.headers or {})["Allow"].split(", ")))
        message = f"this address takes {allowed} only"
        return ServiceError(405, "method_not_allowed", message, headers={"Allow": allowed})
    if isinstance(exception, HTTPException):
        return ServiceError(404, "not_found", "no such address; / is a page, /docs lists the others")
    log("internal error", logging.ERROR, exception, request_id=request_id)
    return ServiceError(500, "internal", "the service failed; its log says why")
