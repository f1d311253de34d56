"""Ctrl-C and SIGTERM end a run between two steps, and save it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from paddle.callbacks import Callback

from paddle_resnet import processes
from paddle_resnet.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopBetweenSteps(Callback):
    """Within its `with` block, a first Ctrl-C or SIGTERM waits for the end of the step; a second one acts at once.

    In the middle of a backward pass a KeyboardInterrupt would come out as an error of Paddle's, with a page of stack.

    Of several processes, all end after the same step, whichever was asked. `paddle.distributed.launch` sends each of
    its own SIGTERM three times within a second, and SIGKILL after 30 s: there, further signals change nothing.
    """

    def __init__(self, save: Callable[[], None]) -> None:
        """Call `save` before ending."""
        super().__init__()
        self._save = save
        self._asked = 0

    def __enter__(self) -> StopBetweenSteps:
        # Python lets only the main thread handle signals; elsewhere they are the caller's affair.
        handles = threading.current_thread() is threading.main_thread()
        self._earlier = {number: signal.signal(number, self._note) for number in SIGNALS} if handles else {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not (self._asked and processes.count() > 1):
            self._restore()

    def stop_if_asked(self, step: int = 0, logs: dict[str, Any] | None = None) -> None:
        """Save and end if a signal has come.

        Raises:
            Stopped: it has.
        """
        asked = int(processes.largest(self._asked))
        if asked:
            self._save()
            raise Stopped(asked)

    on_train_batch_end = stop_if_asked
    on_eval_batch_end = stop_if_asked

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = number
        if processes.count() == 1:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
