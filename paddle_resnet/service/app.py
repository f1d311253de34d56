"""The application of one process: its parts put together, and its routes."""

from __future__ import annotations

import base64
import gc
import hashlib
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router

from paddle_resnet import __version__, runtime
from paddle_resnet.inference.inference_config import InferenceConfig, find_model
from paddle_resnet.service.inference_workers import InferenceWorkers
from paddle_resnet.service.logs import log
from paddle_resnet.service.metrics import Metrics
from paddle_resnet.service.middleware import HostPolicy, RequestMiddleware
from paddle_resnet.service.predict import InferencePipeline
from paddle_resnet.service.settings import CHECKPOINT, Settings, load_config
from paddle_resnet.service.shutdown import GracefulShutdown
from paddle_resnet.service.worker_process import FORMATS

if TYPE_CHECKING:
    from paddle_resnet.service.explain import Explainer

SWITCH_SECONDS = 0.0005
"""How long a thread may keep Python's lock while others wait. With the usual 5 ms the event loop would wait too long
for a thread that splits a large form or explains an image."""
PAGES = resources.files("paddle_resnet.service") / "pages"


def create_app(settings: Settings) -> RequestMiddleware:
    """Load the model and return the ASGI application, which closes it when the server stops.

    Raises:
        UsageError, RunFailure: the model cannot be loaded.
    """
    config = load_config(settings)
    settings = settings.model_copy(update={"digest": settings.digest or config.digest()})
    workers = InferenceWorkers(settings, config.input.image_size, len(config.classes))
    metrics, shutdown = Metrics(), GracefulShutdown(settings.drain_seconds, worker=settings.workers > 1)
    pipeline = InferencePipeline(config, workers, settings, metrics)
    with ExitStack() as on_failure:
        on_failure.callback(workers.kill)
        explainer = load_explainer(settings)  # meanwhile the workers start
        device = workers.wait_until_ready()
        on_failure.pop_all()
    explains = explainer is not None
    routes = [Route("/predict", pipeline.predict, methods=["POST"])]
    if explainer is not None:
        from paddle_resnet.service.explain import explain_endpoint

        routes.append(Route("/explain", explain_endpoint(pipeline, explainer), methods=["POST"]))
    routes += _information_routes(_about(config, settings, explains), workers, metrics, shutdown)

    def on_worker_replaced() -> None:
        metrics.restarts.inc()
        pipeline.batcher.start_batches()

    @asynccontextmanager
    async def lifespan(app: Router) -> AsyncIterator[None]:
        with _responsive_event_loop():
            await workers.connect(on_worker_replaced)
            shutdown.install()
            log("ready", model=config.model, device=device, explain=explains)
            yield
            await pipeline.close()
            await workers.close()
        log("stopped")

    # A redirect would repeat the Host header.
    router = Router(routes, redirect_slashes=False, lifespan=lifespan)
    hosts = HostPolicy(settings.allow_hosts, settings.allow_origins, settings.host)
    return RequestMiddleware(router, metrics, shutdown, frozenset(route.path for route in routes), hosts)


def load_explainer(settings: Settings) -> Explainer | None:
    """Load what explains; None without paddle's import where the run's checkpoint does not lie beside the model."""
    if not settings.explain or not (find_model(settings.model).resolve().parent / CHECKPOINT).is_file():
        return None
    runtime.import_paddle()
    from paddle_resnet.service.explain import Explainer

    return Explainer.load(settings)


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


def _about(config: InferenceConfig, settings: Settings, explains: bool) -> dict[str, Any]:
    """Describe the model and the limits, for `GET /model`."""
    return {
        "model": config.model,
        "classes": list(config.classes),
        "threshold": config.threshold,
        "image_size": config.input.image_size,
        "max_images": settings.max_images,
        "max_body": settings.max_body,
        "max_pixels": settings.max_pixels,
        "formats": list(FORMATS),
        "explain": explains,
    }


def _information_routes(
    about: dict[str, Any], workers: InferenceWorkers, metrics: Metrics, shutdown: GracefulShutdown
) -> list[Route]:
    """Return the pages, the descriptions, and the routes for operators."""
    interface = json.loads((PAGES / "openapi.json").read_text(encoding="utf-8"))
    interface["info"]["version"] = __version__
    if not about["explain"]:
        del interface["paths"]["/explain"]

    async def readyz(request: Request) -> Response:
        if shutdown.draining:
            return _state("draining", 503)
        return _state("ready") if workers.healthy else _state("failed", 503)

    async def healthz(request: Request) -> Response:
        return _state("ok") if workers.usable else _state("failed", 503)

    async def prometheus(request: Request) -> Response:
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", prometheus),
        _fixed("/", _page("index")),
        _fixed("/docs", _page("docs")),
        _fixed("/model", JSONResponse(about)),
        _fixed("/openapi.json", JSONResponse(interface)),
    ]


def _state(status: str, code: int = 200) -> Response:
    return JSONResponse({"status": status}, code)


def _fixed(path: str, response: Response) -> Route:
    async def respond(request: Request) -> Response:
        return response

    return Route(path, respond)


def _page(name: str) -> Response:
    """Return ``pages/<name>.html``.

    Its Content-Security-Policy names the page's one style and one script by their hashes. No other script would run,
    however it got into the page, and nothing is loaded from other hosts.
    """
    html = (PAGES / f"{name}.html").read_text(encoding="utf-8")
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
