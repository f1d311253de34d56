"""Graceful shutdown: on a signal the service reports that it is not ready, then stops."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from multiprocessing import connection, parent_process
from types import FrameType

from paddle_resnet.errors import SIGNAL_WORDS
from paddle_resnet.service.logs import log

SIGNAL_BURST_SECONDS = 0.5
"""Signals within this time count as one: a closed terminal and a service manager send several."""


class GracefulShutdown:
    """Wraps the server's own handling of signals.

    Args:
        drain_seconds: between the signal and the close of the port.
        worker: a worker process. Its parent sends it SIGTERM, so it ignores what a terminal sends to all processes.
    """

    def __init__(self, drain_seconds: float, *, worker: bool = False) -> None:
        self._drain_seconds = drain_seconds
        self._worker = worker
        self.draining = False

    def install(self) -> None:
        """Handle SIGTERM, SIGINT and SIGHUP. Call it on the event loop; outside the main thread it does nothing.

        For `drain_seconds` requests are still served, each connection closes after its response, and /readyz is 503,
        so that a load balancer sends no more. Then the server's own handler stops it. A second signal, later than
        `SIGNAL_BURST_SECONDS`, ends the process at once. An ignored SIGHUP (nohup) stays ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        stop = signal.getsignal(signal.SIGTERM)
        began = 0.0

        def handle(received: int, frame: FrameType | None) -> None:
            nonlocal began
            if not self.draining:
                self.draining, began = True, time.monotonic()
                loop.call_soon_threadsafe(drain, received)
            elif time.monotonic() - began > SIGNAL_BURST_SECONDS:
                loop.call_soon_threadsafe(end_at_once, received)

        def drain(received: int) -> None:
            log("draining", seconds=self._drain_seconds, signal=signal.Signals(received).name)
            # uvicorn knows no other.
            known = received if received in (signal.SIGINT, signal.SIGTERM) else signal.SIGTERM
            if callable(stop):
                loop.call_later(self._drain_seconds, stop, known, None)

        for number in SIGNAL_WORDS:
            if self._worker and number != signal.SIGTERM:
                signal.signal(number, signal.SIG_IGN)
            elif signal.getsignal(number) != signal.SIG_IGN or number == signal.SIGTERM:
                signal.signal(number, handle)


def end_at_once(number: int) -> None:
    """End this process by a signal. Its inference workers notice and end too."""
    log("ended at once", logging.WARNING, signal=signal.Signals(number).name)
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(signal.Signals(number))


def end_with_parent() -> None:
    """Send this worker SIGTERM when its parent is gone."""
    parent = parent_process()
    if parent is None:
        return

    def wait() -> None:
        connection.wait([parent.sentinel])
        signal.raise_signal(signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="parent").start()
