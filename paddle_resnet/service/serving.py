"""uvicorn around the application: in this process, or in several that share the port."""

from __future__ import annotations

import logging.config
import os
import signal
import socket
import time
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.supervisors import Multiprocess

from paddle_resnet import runtime
from paddle_resnet.errors import PaddleResNetError, UsageError
from paddle_resnet.files import scratch_folder
from paddle_resnet.service.logs import capture, configuration, log
from paddle_resnet.service.protocol import GuardedProtocol
from paddle_resnet.service.settings import Settings
from paddle_resnet.service.shutdown import TOGETHER_SECONDS, end_at_once, end_with_parent

SHARED_METRICS = "PROMETHEUS_MULTIPROC_DIR"
"""Read by prometheus_client when it is imported: the folder in which processes add up."""
STOPPING_SECONDS = 5
"""Beyond the time that an answer may take: then a stopping process gives up what is left."""
RESTART_SECONDS = 10
"""Between two tries to start a worker that cannot load its model."""


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
    from paddle_resnet.service.settings import load_predictor, pin_model

    predictor = load_predictor(settings)
    predictor.close()
    pin_model(settings, predictor).put_into_environment()
    # To uvicorn SIGHUP means that all workers are replaced; a closed terminal sends it, and here it ends the service.
    setattr(Multiprocess, "handle_hup", Multiprocess.handle_term)  # noqa: B010 (not a type's method to a checker)
    setattr(Multiprocess, "join_all", _join_all)  # noqa: B010
    with scratch_folder() as folder:
        os.environ[SHARED_METRICS] = str(folder)
        options["http"] = GuardedProtocol  # a class made for the occasion cannot be sent to a worker
        uvicorn.run(
            "paddle_resnet.service.serving:create_app_of_worker", factory=True, workers=settings.workers, **options
        )


def _join_all(supervisor: Multiprocess) -> None:
    """Wait for the workers, which have got their SIGTERM; a second signal ends them and all at once."""
    time.sleep(TOGETHER_SECONDS)
    supervisor.signal_queue.clear()
    while any(worker.process.is_alive() for worker in supervisor.processes):
        if supervisor.signal_queue:
            for worker in supervisor.processes:
                worker.process.kill()
            end_at_once(supervisor.signal_queue[0])
        time.sleep(0.05)


def create_app_of_worker() -> ASGIApp:
    """Make the application in a worker process, of the settings that its parent has left in the environment."""
    capture()
    end_with_parent()
    runtime.import_paddle()  # its chatter is no JSON
    from paddle_resnet.service.app import create_app

    try:
        settings = Settings.from_environment()
        GuardedProtocol.max_connections = settings.max_connections
        return create_app(settings)
    except PaddleResNetError as error:
        log("a worker cannot start; it is tried again", logging.ERROR, reason=str(error))
        time.sleep(RESTART_SECONDS)  # its parent starts another as soon as it ends
        end_at_once(signal.SIGTERM)
        raise


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
