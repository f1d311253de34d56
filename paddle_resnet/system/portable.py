"""What differs between Linux, macOS and Windows, in one place: flags of `os.open`, locks, replaced files.

Each difference is found by what this Python has, not by its platform's name.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

O_NONBLOCK: int = getattr(os, "O_NONBLOCK", 0)
O_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
O_NOCTTY: int = getattr(os, "O_NOCTTY", 0)

_fcntl: Any = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None

REPLACE_ATTEMPTS, REPLACE_PAUSE = 20, 0.1


@contextlib.contextmanager
def lock_path(path: Path, *, wait: bool = False) -> Iterator[bool | None]:
    """Lock a file or folder until the end of the block, or of this process. Links are not followed.

    Yields:
        True; False: another process has locked it (unless `wait`); None: this file system has no locks.
    """
    if _fcntl is None:
        from filelock import FileLock, Timeout  # Windows can lock a file beside it; that file is removed at the end

        lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()
        return
    descriptor = os.open(path, os.O_RDONLY | O_NONBLOCK | O_NOFOLLOW)
    try:
        yield _flock(descriptor, wait)
    finally:
        os.close(descriptor)


def _flock(descriptor: int, wait: bool) -> bool | None:
    try:
        _fcntl.flock(descriptor, _fcntl.LOCK_EX if wait else _fcntl.LOCK_EX | _fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def replace(source: Path, target: Path) -> None:
    """Rename a file or folder; Windows refuses that while a program reads it, so wait for such a reader.

    Raises:
        OSError: it cannot be renamed, or a reader has not closed it within two seconds.
    """
    for attempt in range(REPLACE_ATTEMPTS):
        try:
            source.replace(target)
            return
        except PermissionError:
            if os.name != "nt" or attempt == REPLACE_ATTEMPTS - 1:
                raise
            time.sleep(REPLACE_PAUSE)


@contextlib.contextmanager
def blocked_signals(signals: Iterable[int]) -> Iterator[None]:
    """Block signals until the end of the block, and in processes that are started within it; Windows has no way to."""
    here: Any = signal
    if not hasattr(here, "pthread_sigmask"):
        yield
        return
    before = here.pthread_sigmask(here.SIG_BLOCK, signals)
    try:
        yield
    finally:
        here.pthread_sigmask(here.SIG_SETMASK, before)


def is_own_file(status: os.stat_result) -> bool:
    """Return whether a file belongs to the user of this process; Windows' files do not say."""
    getuid = getattr(os, "getuid", None)
    return getuid is None or status.st_uid == getuid()
