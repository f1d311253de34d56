"""What signals do: on SIGTERM and SIGINT the service says that it is not ready, then stops; on SIGHUP it reloads."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from paddle_resnet.errors import SIGNAL_WORDS
from paddle_resnet.service.telemetry import log

SIGHUP: Any = getattr(signal, "SIGHUP", None)
"""None on Windows."""


class GracefulShutdown:
    """Wraps the server's own handling of signals, which closes the port at once.

    `drain_seconds` lie between the signal and the close of the port; `reload` is called on the event loop by SIGHUP.
    """

    def __init__(self, drain_seconds: float, reload: Callable[[], object]) -> None:
        self._drain_seconds = drain_seconds
        self._reload = reload
        self.draining = False

    def install(self) -> None:
        """Handle SIGTERM, SIGINT and SIGHUP. Call it on the event loop; outside the main thread it does nothing.

        For `drain_seconds` requests are still served, each connection closes after its response, and /readyz is 503,
        so that a load balancer sends no more. Then the server's own handler stops it. A second signal does that at
        once, and a third one ends the process without its requests. An ignored SIGHUP (nohup) stays ignored, and that
        of a closed terminal stops the service.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        stop, terminal = signal.getsignal(signal.SIGTERM), has_terminal()
        assert callable(stop)  # the server's

        def handle(received: int, frame: FrameType | None) -> None:
            if received == SIGHUP and has_terminal() == terminal:
                loop.call_soon_threadsafe(self._reload)
            elif self.draining:
                loop.call_soon_threadsafe(stop, signal.SIGINT, None)
            else:
                self.draining = True
                loop.call_soon_threadsafe(drain, received)

        def drain(received: int) -> None:
            log("draining", seconds=self._drain_seconds, signal=signal.Signals(received).name)
            loop.call_later(self._drain_seconds, stop, signal.SIGTERM, None)

        for number in SIGNAL_WORDS:
            if signal.getsignal(number) != signal.SIG_IGN or number == signal.SIGTERM:
                signal.signal(number, handle)
        if SIGHUP is None:
            log("this platform has no SIGHUP: restart the service to load another model")


def has_terminal() -> bool:
    """Return whether standard error is a terminal. It is none any more when the terminal was closed."""
    return os.isatty(2)
