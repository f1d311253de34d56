"""SIGINT, SIGTERM and SIGHUP: the first one ends the work by `errors.Stopped`, at once or where the work can end.

A signal that the process was started to ignore (SIGHUP under nohup) stays ignored.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from paddle_resnet import distributed
from paddle_resnet.errors import SIGNAL_WORDS, Stopped

SIGNALS = tuple(SIGNAL_WORDS)
Handler = Callable[[int, FrameType | None], None]

_received = 0
_deferrals = 0
_in_command = False


def received() -> int:
    """Return the number of the first signal that came within `stoppable` or `deferred`; 0 if none came."""
    return _received


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Within the block, a command, the first signal raises `Stopped` in the main thread; later ones are ignored.

    Code in C may turn `Stopped` into another exception or swallow it: check `received` at the end.
    """
    global _received, _in_command
    _received = 0
    with handled(_record):
        _in_command = True
        try:
            yield
        finally:
            _in_command = False


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within the block, only record the first signal: the caller checks `received` and raises `Stopped`.

    Outside of `stoppable`, a second signal acts as it did before the block. `paddle.distributed.launch` sends SIGTERM
    three times within a second: in its processes further signals are ignored.
    """
    global _received, _deferrals
    if not _in_command and not _deferrals:
        _received = 0
    with contextlib.ExitStack() as handlers:
        if not _in_command:
            handlers.enter_context(handled(_record))
        _deferrals += 1
        try:
            yield
        finally:
            _deferrals -= 1
            if _received and distributed.launched().world_size > 1:
                handlers.pop_all()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay a signal to the end of the block, a backward pass: Paddle would turn the exception into its own.

    Raises:
        Stopped: a signal came within the block.
    """
    with deferred():
        yield
    if _received and not _deferrals:
        raise Stopped(_received)


@contextlib.contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Within the block, `handler` handles the signals; in threads other than the main one, nothing changes."""
    earlier = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                earlier[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in earlier.items():
            signal.signal(number, before)


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Block signals until the end of the block, and for ever in processes that are started within it.

    A terminal sends its signals to all processes of a program, but the main process alone ends the others. Windows
    cannot block signals: processes that are started there call `ignore_in_worker`.
    """
    here: Any = signal
    if not hasattr(here, "pthread_sigmask"):
        yield
        return
    before = here.pthread_sigmask(here.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        here.pthread_sigmask(here.SIG_SETMASK, before)


def ignore_in_worker() -> None:
    """Ignore signals in this worker process, on a system where `blocked` could not block them for it."""
    if not hasattr(signal, "pthread_sigmask"):
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def restore_handlers() -> None:
    """Restore Python's handlers after the import of paddle, whose own handler in C prints pages of text."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)


def _record(number: int, frame: FrameType | None) -> None:
    global _received
    if not _received:
        _received = number
        if not _deferrals:
            raise Stopped(number)
    elif not _in_command and distributed.launched().world_size == 1:
        raise Stopped(number)
