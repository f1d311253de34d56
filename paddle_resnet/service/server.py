"""uvicorn around the application: in this process, or in several that share the port."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.supervisors import Multiprocess

from paddle_resnet.errors import PaddleResNetError, UsageError
from paddle_resnet.files import scratch_folder
from paddle_resnet.inference.inference_config import InferenceConfig
from paddle_resnet.service.app import create_app
from paddle_resnet.service.middleware import read_token
from paddle_resnet.service.protocol import BoundedHttpProtocol
from paddle_resnet.service.settings import Settings
from paddle_resnet.service.shutdown import SIGHUP, has_terminal
from paddle_resnet.service.telemetry import SHARED_METRICS, configure_logging, log
from paddle_resnet.system.portable import IS_POSIX

STOP_SECONDS = 5
"""Added to the longest time of a request: after both a stopping process drops what is left."""
RESTART_SECONDS = 10
"""Between two tries to start a worker process that cannot load its model."""
SWITCH_SECONDS = 0.0005
"""How long a thread may keep Python's lock while others wait. With the usual 5 ms the event loop would wait too long
for a thread that splits a large form."""


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, and return when the last accepted request is answered.

    Raises:
        UsageError: the address or the token cannot be used, there is no model, or several workers are not possible.
        RunFailure: the model cannot be loaded.
    """
    if settings.workers > 1 and not IS_POSIX:
        raise UsageError("--workers: several need a system with SIGTERM, and Windows has none; use --streams")
    InferenceConfig.load(settings.model)
    read_token(settings.token_file)
    with _bind(settings) as listener:
        signal.set_wakeup_fd(-1)  # a command's: its second signal ends the process, and here the first may be a reload
        configure_logging(settings.log_level)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        url = f"http://{host}:{settings.port}/"
        log("starting", url=url, workers=settings.workers, max_batch=settings.max_batch)
        sys.setswitchinterval(SWITCH_SECONDS)
        if settings.workers == 1:
            config = uvicorn.Config(create_app(settings), **uvicorn_options(settings))
            # uvicorn raises them again when it has stopped, and their default action would end the process there.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            uvicorn.Server(config).run([listener])
        else:
            with scratch_folder() as folder:
                os.environ[SHARED_METRICS] = str(folder)
                _Workers(settings, listener).run()


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    """Return uvicorn's limits and parts."""
    return {
        "log_config": None,
        "access_log": False,  # `RequestMiddleware` logs each request
        "http": partial(BoundedHttpProtocol, max_connections=settings.max_connections),
        "ws": "none",
        "lifespan": "on",
        "proxy_headers": False,
        "server_header": False,
        "timeout_keep_alive": settings.keep_alive_timeout,
        "timeout_graceful_shutdown": int(settings.response_timeout + settings.body_timeout) + STOP_SECONDS,
    }


class _Workers(Multiprocess):
    """uvicorn's worker processes. On SIGHUP each reloads its model: uvicorn would replace the processes."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings, self._terminal = settings, has_terminal()
        options = uvicorn_options(settings)
        super().__init__(uvicorn.Config(self._factory(), factory=True, workers=settings.workers, **options), [listener])

    def handle_hup(self) -> None:
        if has_terminal() != self._terminal:
            self.handle_term()  # the terminal was closed
            return
        with suppress(UsageError):  # the processes log it
            self.config.app = self._factory()
        for process in self.processes:
            if process.pid is not None:
                os.kill(process.pid, SIGHUP)

    def _factory(self) -> Callable[[], ASGIApp]:
        """Return what makes the application of a process: one that starts later loads the same model or none."""
        digest = InferenceConfig.load(self._settings.model).digest()
        return partial(_create_worker_app, self._settings, digest)


def _create_worker_app(settings: Settings, expected_hash: str) -> ASGIApp:
    configure_logging(settings.log_level)
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        return create_app(settings, expected_hash)
    except PaddleResNetError as error:
        log("worker cannot start; trying again", logging.ERROR, reason=str(error))
        time.sleep(RESTART_SECONDS)  # the parent starts another one as soon as this one ends
        os.kill(os.getpid(), signal.SIGTERM)
        raise


def _bind(settings: Settings) -> socket.socket:
    """Return a socket with the address, so that a wrong one is told before the model is loaded.

    It does not listen yet: a connection is refused until the service is ready.
    """
    try:
        family, *_, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        if IS_POSIX:  # elsewhere it allows to take the address of another program
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(
            f"{settings.host}:{settings.port}: cannot listen there ({reason}); choose another --host or --port"
        ) from None
    listener.set_inheritable(True)
    return listener
