"""From ready to drained: on SIGTERM and SIGINT a service first says that it is not ready, then stops."""

from __future__ import annotations

import asyncio
import signal
import threading
from types import FrameType

from paddle_resnet.service.logs import log


class Lifetime:
    """Whether the service still wants requests; it stands before the server's own handling of signals."""

    def __init__(self, drain_seconds: float) -> None:
        self._drain_seconds = drain_seconds
        self.draining = False

    def watch(self) -> None:
        """Take SIGTERM and SIGINT (on the event loop, in the main thread; elsewhere nobody sends them).

        For `drain_seconds` requests are still answered, each connection closed behind its answer, and /readyz is 503,
        so that who balances loads sends no more. Then the server's own handler, which was there before, ends it; a
        second signal does so at once.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._watch(number, loop)

    def _watch(self, number: signal.Signals, loop: asyncio.AbstractEventLoop) -> None:
        stop = signal.getsignal(number)

        def drain(received: int, frame: FrameType | None) -> None:
            if not callable(stop):
                return
            if self.draining:
                stop(received, frame)
                return
            self.draining = True
            loop.call_soon_threadsafe(begin, received)

        def begin(received: int) -> None:
            log("draining", seconds=self._drain_seconds)
            if callable(stop):
                loop.call_later(self._drain_seconds, stop, received, None)

        signal.signal(number, drain)
