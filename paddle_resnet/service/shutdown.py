"""From ready to drained: when it is told to end, a service first says that it is not ready, then stops."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from multiprocessing import connection, parent_process
from types import FrameType

from paddle_resnet.service.logs import log

TOGETHER_SECONDS = 0.5
"""Signals within them are one: a closed terminal and a service manager send several."""


class Lifetime:
    """Whether the service still wants requests; it stands before the server's own handling of signals.

    Args:
        drain_seconds: between the signal and the end of the port.
        worker: a process among others, whose parent hands SIGTERM on: what a terminal sends to all is the parent's.
    """

    def __init__(self, drain_seconds: float, *, worker: bool = False) -> None:
        self._drain_seconds = drain_seconds
        self._worker = worker
        self.draining = False

    def watch(self) -> None:
        """Take SIGTERM, SIGINT and SIGHUP (on the event loop, in the main thread; elsewhere nobody sends them).

        For `drain_seconds` requests are still answered, each connection closed behind its answer, and /readyz is 503,
        so that who balances loads sends no more. Then the server's own handler, which was there before, ends it; a
        second signal, later than `TOGETHER_SECONDS`, ends the process at once. SIGHUP that is ignored (nohup) stays so.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        stop = signal.getsignal(signal.SIGTERM)
        began = 0.0

        def take(received: int, frame: FrameType | None) -> None:
            nonlocal began
            if not self.draining:
                self.draining, began = True, time.monotonic()
                loop.call_soon_threadsafe(drain, received)
            elif time.monotonic() - began > TOGETHER_SECONDS:
                loop.call_soon_threadsafe(end_at_once, received)

        def drain(received: int) -> None:
            log("draining", seconds=self._drain_seconds, signal=signal.Signals(received).name)
            # The server knows no SIGHUP.
            known = signal.SIGTERM if received == signal.SIGHUP else received
            if callable(stop):
                loop.call_later(self._drain_seconds, stop, known, None)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if self._worker and number != signal.SIGTERM:
                signal.signal(number, signal.SIG_IGN)
            elif signal.getsignal(number) != signal.SIG_IGN or number == signal.SIGTERM:
                signal.signal(number, take)


def end_at_once(number: int) -> None:
    """End this process by a signal, and nothing else; its network's processes see that and end too."""
    log("ended at once", logging.WARNING, signal=signal.Signals(number).name)
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(signal.Signals(number))


def end_with_parent() -> None:
    """Have SIGTERM sent to this worker when its parent is gone, which could not hand one on any more."""
    parent = parent_process()
    if parent is None:
        return

    def wait() -> None:
        connection.wait([parent.sentinel])
        signal.raise_signal(signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="parent").start()
