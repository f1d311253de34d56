"""uvicorn around the application: the address, the limits, and what signals do."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from functools import partial
from typing import Any

import uvicorn

from paddle_resnet.errors import UsageError
from paddle_resnet.service.app import Application
from paddle_resnet.service.protocol import BoundedHttpProtocol
from paddle_resnet.service.settings import Settings
from paddle_resnet.service.telemetry import configure_logging, log
from paddle_resnet.system.portable import IS_POSIX

STOP_SECONDS = 5  # added to the longest time of a request: after both the process drops what is left
SWITCH_SECONDS = 0.0005
"""How long a thread may keep Python's lock while others wait. With the usual 5 ms the event loop would wait too long
for a thread that splits a large form."""
TICK_SECONDS = 0.1  # between two calls of `uvicorn.Server.on_tick`
SIGHUP: Any = getattr(signal, "SIGHUP", None)  # None on Windows


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, and return when the last accepted request is answered.

    Raise a UsageError if the address or the token cannot be used or there is no model, and a RunFailure if the model
    cannot be loaded.
    """
    with _bind(settings) as listener:
        signal.set_wakeup_fd(-1)  # a command's: its second signal ends the process, and here the first may be a reload
        configure_logging(settings.log_level)
        sys.setswitchinterval(SWITCH_SECONDS)
        server = DrainingServer(Application(settings), settings)
        # uvicorn raises them again when it has stopped, and their default action would end the process there.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        server.run([listener])


class DrainingServer(uvicorn.Server):
    """Serves on for a while after the signal to stop, and reloads the model on SIGHUP."""

    def __init__(self, application: Application, settings: Settings) -> None:
        self.application, self._settings = application, settings
        longest = settings.response_timeout + settings.body_timeout
        config = uvicorn.Config(
            application,
            log_config=None,
            access_log=False,  # the application logs each request
            http=partial(BoundedHttpProtocol, max_connections=settings.max_connections),  # type: ignore[arg-type]
            ws="none",
            lifespan="on",
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=settings.keep_alive_timeout,
            timeout_graceful_shutdown=int(longest) + STOP_SECONDS,
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Handle SIGHUP, unless it is ignored, as by nohup."""
        await super().startup(sockets)
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        log("ready", url=f"http://{host}:{self._settings.port}/")
        if SIGHUP is None:
            log("this platform has no SIGHUP: restart the service to load another model")
        elif signal.getsignal(SIGHUP) != signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(SIGHUP, self.hang_up, has_terminal())

    def hang_up(self, had_terminal: bool) -> None:
        """Reload the model; but stop where the terminal was closed."""
        if has_terminal() == had_terminal:
            self.application.reload()
        else:
            self.should_exit = True

    async def main_loop(self) -> None:
        """Run until the first signal, and then for `drain_seconds` more.

        Requests are served meanwhile, each connection closes after its response, and /readyz is 503, so that a load
        balancer sends no more. A second SIGINT ends the process without its requests.
        """
        await super().main_loop()
        self.application.draining = True
        log("draining", seconds=self._settings.drain_seconds)
        for tick in range(round(self._settings.drain_seconds / TICK_SECONDS)):
            if not self.force_exit:
                await self.on_tick(tick)
                await asyncio.sleep(TICK_SECONDS)


def has_terminal() -> bool:
    """Return whether standard error is a terminal. It is none any more when the terminal was closed."""
    return os.isatty(2)


def _bind(settings: Settings) -> socket.socket:
    """Return a socket with the address, bound before the model is loaded; it does not listen yet, and refuses."""
    try:
        family, *_, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        if IS_POSIX:  # elsewhere it allows to take the address of another program
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, UnicodeError) as error:  # UnicodeError: a part of the name is empty or too long
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"{settings.host}:{settings.port}: cannot listen there ({reason}); choose another --host or --port"
        ) from None
    return listener
