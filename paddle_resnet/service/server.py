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

from paddle_resnet.errors import PaddleResNetError, UsageError
from paddle_resnet.files import scratch_folder
from paddle_resnet.service.app import create_app
from paddle_resnet.service.logs import log, log_warnings_and_uncaught, logging_config
from paddle_resnet.service.metrics import SHARED_METRICS
from paddle_resnet.service.protocol import BoundedHttpProtocol
from paddle_resnet.service.settings import Settings, load_config
from paddle_resnet.service.shutdown import SIGNAL_BURST_SECONDS, end_at_once, end_with_parent
from paddle_resnet.system.portable import IS_POSIX

STOP_SECONDS = 5
"""Added to the longest time of a request: after both a stopping process drops what is left."""
RESTART_SECONDS = 10
"""Between two tries to start a worker process that cannot load its model."""


def serve(settings: Settings, log_level: str = "INFO") -> None:
    """Serve until SIGTERM or SIGINT, and return when the last accepted request is answered.

    Raises:
        UsageError: the address cannot be used, there is no model, or this system cannot have several workers.
        RunFailure: the model cannot be loaded.
    """
    if settings.workers > 1 and not IS_POSIX:
        raise UsageError("--workers: several need a system with SIGTERM, and Windows has none; use --streams")
    # All processes load this model or none, also those that start later.
    settings = settings.model_copy(update={"digest": load_config(settings).digest()})
    _check_address(settings)
    log_config = logging_config(log_level)
    logging.config.dictConfig(log_config)
    log_warnings_and_uncaught()
    options = {**uvicorn_options(settings), "log_config": log_config}
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{settings.port}/"
    log("starting", url=url, workers=settings.workers, max_batch=settings.max_batch)
    if settings.workers == 1:
        _serve_in_this_process(settings, options)
    else:
        _serve_in_workers(settings, options)


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    """Return uvicorn's address, limits and parts."""
    bounds = {"max_connections": settings.max_connections, "waiting": {}}
    return {
        "host": settings.host,
        "port": settings.port,
        "access_log": False,  # `RequestMiddleware` logs each request
        "http": type("Protocol", (BoundedHttpProtocol,), bounds),
        "ws": "none",
        "lifespan": "on",
        "proxy_headers": False,
        "server_header": False,
        "timeout_keep_alive": settings.keep_alive_timeout,
        "timeout_graceful_shutdown": int(settings.response_timeout + settings.body_timeout) + STOP_SECONDS,
    }


def _serve_in_this_process(settings: Settings, options: dict[str, Any]) -> None:
    app = create_app(settings)
    # uvicorn raises the signal again when it has stopped, and the default action would end the process there.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    uvicorn.run(app, **options)


def _serve_in_workers(settings: Settings, options: dict[str, Any]) -> None:
    settings.to_environment()
    # uvicorn replaces all workers on SIGHUP. A closed terminal sends it too, and here it ends the service.
    setattr(Multiprocess, "handle_hup", Multiprocess.handle_term)  # noqa: B010 (mypy refuses an assignment)
    setattr(Multiprocess, "join_all", _join_all)  # noqa: B010
    with scratch_folder() as folder:
        os.environ[SHARED_METRICS] = str(folder)
        options["http"] = BoundedHttpProtocol  # a class made at run time cannot be pickled for a worker
        uvicorn.run(
            "paddle_resnet.service.server:create_app_of_worker", factory=True, workers=settings.workers, **options
        )


def _join_all(supervisor: Multiprocess) -> None:
    """Wait for the workers, which have their SIGTERM. A second signal kills them, and ends this process."""
    time.sleep(SIGNAL_BURST_SECONDS)
    supervisor.signal_queue.clear()
    while any(worker.process.is_alive() for worker in supervisor.processes):
        if supervisor.signal_queue:
            for worker in supervisor.processes:
                worker.process.kill()
            end_at_once(supervisor.signal_queue[0])
        time.sleep(0.05)


def create_app_of_worker() -> ASGIApp:
    """Return the application of a worker process, with the settings that its parent left in the environment."""
    log_warnings_and_uncaught()
    end_with_parent()
    try:
        settings = Settings.from_environment()
        BoundedHttpProtocol.max_connections = settings.max_connections
        return create_app(settings)
    except PaddleResNetError as error:
        log("worker cannot start; trying again", logging.ERROR, reason=str(error))
        time.sleep(RESTART_SECONDS)  # the parent starts another one as soon as this one ends
        end_at_once(signal.SIGTERM)
        raise


def _check_address(settings: Settings) -> None:
    """Fail in one line where uvicorn would fail in many."""
    try:
        family, *_, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if IS_POSIX:  # elsewhere it allows to take the address of another program
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(
            f"{settings.host}:{settings.port}: cannot listen there ({reason}); choose another --host or --port"
        ) from None
