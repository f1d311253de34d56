"""Ctrl-C ends a run between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from paddle.callbacks import Callback


class StopBetweenSteps(Callback):
    """Within its `with` block, a first Ctrl-C waits for the end of the step; a second one acts at once.

    In the middle of a backward pass a KeyboardInterrupt would come out as an error of Paddle's, with a page of stack.
    """

    def __init__(self) -> None:
        super().__init__()
        self._asked = False

    def __enter__(self) -> StopBetweenSteps:
        # Python lets only the main thread handle signals; elsewhere Ctrl-C is the caller's affair.
        self._handles = threading.current_thread() is threading.main_thread()
        if self._handles:
            self._earlier = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._handles:
            signal.signal(signal.SIGINT, self._earlier)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        signal.signal(signal.SIGINT, self._earlier)

    def _stop_if_asked(self, step: int, logs: dict[str, Any] | None = None) -> None:
        if self._asked:
            raise KeyboardInterrupt

    on_train_batch_end = _stop_if_asked
    on_eval_batch_end = _stop_if_asked
