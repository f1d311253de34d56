"""SIGINT, SIGTERM and SIGHUP end a run between two steps, and save it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from paddle.callbacks import Callback

from paddle_resnet import distributed, signals
from paddle_resnet.errors import Stopped


class StopBetweenSteps(Callback):
    """Within its `with` block, a first signal waits for the end of the step; a second one acts at once.

    In the middle of a backward pass a KeyboardInterrupt would come out as an error of Paddle's, with a page of stack.
    Of several processes, all end after the same step, whichever was asked.
    """

    def __init__(self, save: Callable[[], None]) -> None:
        """Call `save` before ending."""
        super().__init__()
        self._save = save
        self._deferral = ExitStack()

    def __enter__(self) -> StopBetweenSteps:
        self._deferral.enter_context(signals.deferred())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._deferral.close()

    def stop_if_asked(self, step: int = 0, logs: dict[str, Any] | None = None) -> None:
        """Save and end if a signal has come.

        Raises:
            Stopped: it has.
        """
        asked = int(distributed.all_reduce_max(signals.received()))
        if asked:
            self._save()
            raise Stopped(asked)

    on_train_batch_end = stop_if_asked
    on_eval_batch_end = stop_if_asked
