"""uvicorn around the application: in this process, or in several that share the port."""

from __future__ import annotations

import logging.config
import os
import signal
import socket
import tempfile
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from paddle_resnet import runtime
from paddle_resnet.errors import UsageError
from paddle_resnet.service.guard import GuardedProtocol
from paddle_resnet.service.logs import capture, configuration, log
from paddle_resnet.service.settings import Settings

SHARED_METRICS = "PROMETHEUS_MULTIPROC_DIR"
"""Read by prometheus_client when it is imported: the folder in which processes add up."""
STOPPING_SECONDS = 5
"""Beyond the time that an answer may take: then a stopping process gives up what is left."""


def serve(settings: Settings, log_level: str = "INFO") -> None:
    """Serve until SIGTERM or SIGINT, and return when the last accepted request is answered.

    Raises:
        UsageError: the address cannot be taken, or there is no model.
        RunFailure: the model cannot be loaded.
    """
    _check_address(settings)
    lines = configuration(log_level)
    logging.config.dictConfig(lines)
    capture()
    options = {**uvicorn_options(settings), "log_config": lines}
    log("starting", url=address(settings), workers=settings.workers, max_batch=settings.max_batch)
    if settings.workers == 1:
        _serve_here(settings, options)
    else:
        _serve_in_workers(settings, options)


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    """The address, the bounds and the parts of uvicorn that are used."""
    return {
        "host": settings.host,
        "port": settings.port,
        "access_log": False,  # `envelope` writes a line for each request
        "http": type("Protocol", (GuardedProtocol,), {"max_connections": settings.max_connections, "waiting": {}}),
        "ws": "none",
        "lifespan": "on",
        "proxy_headers": False,
        "server_header": False,
        "timeout_keep_alive": settings.idle_seconds,
        "timeout_graceful_shutdown": int(settings.answer_seconds + settings.body_seconds) + STOPPING_SECONDS,
    }


def address(settings: Settings) -> str:
    """The URL of the page."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}/"


def _serve_here(settings: Settings, options: dict[str, Any]) -> None:
    from paddle_resnet.service.app import create_app

    app = create_app(settings)
    # uvicorn raises the signal again when it has drained, and the default action would end the process there.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    uvicorn.run(app, **options)


def _serve_in_workers(settings: Settings, options: dict[str, Any]) -> None:
    from paddle_resnet.service import predictors

    # A worker that cannot load the model would be started again and again.
    predictors.load(settings).close()
    settings.put_into_environment()
    with tempfile.TemporaryDirectory(prefix="paddle-resnet-metrics-") as folder:
        os.environ[SHARED_METRICS] = folder
        uvicorn.run(
            "paddle_resnet.service.serving:create_app_of_worker", factory=True, workers=settings.workers, **options
        )


def create_app_of_worker() -> ASGIApp:
    """Make the application in a worker process, of the settings that its parent has left in the environment."""
    capture()
    runtime.import_paddle()  # its chatter is no JSON
    from paddle_resnet.service.app import create_app

    return create_app(Settings.from_environment())


def _check_address(settings: Settings) -> None:
    """Fail in one line where uvicorn would in many."""
    try:
        family, *_, where = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(
            f"{settings.host}:{settings.port}: cannot listen there ({reason}); choose another --host or --port"
        ) from None
