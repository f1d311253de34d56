"""SIGINT, SIGTERM and SIGHUP: the first one ends the work by `errors.Stopped`, at once or where the work allows it.

A signal that the process was started to ignore (SIGHUP under nohup) stays ignored.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from paddle_resnet import distributed
from paddle_resnet.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Handler = Callable[[int, FrameType | None], None]

_asked = 0
_deferrals = 0
_has_tool = False


def asked() -> int:
    """The number of the first signal that came within `stoppable` or `deferred`; 0 before that."""
    return _asked


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """For a whole tool: within the block the first signal raises `Stopped` in the main thread, later ones nothing.

    Code in C may turn that into another exception, or swallow it: ask `asked` at the end.
    """
    global _asked, _has_tool
    _asked = 0
    with handled(_note):
        _has_tool = True
        try:
            yield
        finally:
            _has_tool = False


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within the block the first signal is only noted, as `asked` tells; the caller ends its work by `Stopped`.

    In a program without `stoppable`, a second one acts as it did before the block. `paddle.distributed.launch` sends
    SIGTERM three times within a second: in its processes further ones change nothing.
    """
    global _asked, _deferrals
    if not _has_tool and not _deferrals:
        _asked = 0
    with contextlib.ExitStack() as handlers:
        if not _has_tool:
            handlers.enter_context(handled(_note))
        _deferrals += 1
        try:
            yield
        finally:
            _deferrals -= 1
            if _asked and distributed.launched().world_size > 1:
                handlers.pop_all()


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """For a backward pass, in which an exception comes out as an error of Paddle's: a signal raises at the end.

    Raises:
        Stopped: a signal came within the block.
    """
    with deferred():
        yield
    if _asked and not _deferrals:
        raise Stopped(_asked)


@contextlib.contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Within the block, `handler` takes the signals; in a thread other than the main one they are the caller's."""
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
    """Let signals wait for the end of the block; processes that are started within it never see any.

    A terminal sends its signals to all processes of a program, of which one tells the others when to end.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def take_back() -> None:
    """Handle signals as Python knows it again: paddle's import puts its own handler, which prints pages, into C."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)


def _note(number: int, frame: FrameType | None) -> None:
    global _asked
    if not _asked:
        _asked = number
        if not _deferrals:
            raise Stopped(number)
    elif not _has_tool and distributed.launched().world_size == 1:
        raise Stopped(number)
