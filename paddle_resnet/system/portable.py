"""What differs between Linux, macOS and Windows, in one place: flags of `os.open`, names, locks, files.

Each difference is found by what this Python has, not by its platform's name.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import locale
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

O_NONBLOCK: int = getattr(os, "O_NONBLOCK", 0)
O_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
O_BINARY: int = getattr(os, "O_BINARY", 0)  # without it Windows changes line ends, and ends a file at the first byte 26
READ: int = os.O_RDONLY | O_BINARY | O_NONBLOCK | getattr(os, "O_NOCTTY", 0)
"""Open a file whatever it holds, and wait for no pipe or terminal."""
IS_POSIX = hasattr(os, "fork")
RESERVED_NAMES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"}
RESERVED_NAMES |= {f"{device}{number}" for device in ("COM", "LPT") for number in "0123456789\u00b9\u00b2\u00b3"}
"""Names of devices in every folder of Windows, with any suffix."""
FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')  # characters of no name on Windows, or on no system
LONGEST_NAME = 50  # characters of a name that is made of a text; each may take 4 of the 255 bytes that a name may have
LONGEST_WINDOWS_PATH = 259
LONG_PATHS_KEY = r"SYSTEM\CurrentControlSet\Control\FileSystem"

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
    while True:
        descriptor = os.open(path, READ | O_NOFOLLOW)
        try:
            locked = _flock(descriptor, wait)
            if locked is False or not _is_replaced(path, descriptor):
                yield locked
                return
        finally:
            os.close(descriptor)


def _is_replaced(path: Path, descriptor: int) -> bool:
    """Return whether another file or folder was renamed to `path` since this one was opened there."""
    with contextlib.suppress(FileNotFoundError):
        return not os.path.samestat(path.lstat(), os.fstat(descriptor))
    return False


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
            if IS_POSIX or attempt == REPLACE_ATTEMPTS - 1:
                raise
            time.sleep(REPLACE_PAUSE)


def name_problem(name: str) -> str:
    """Return why Windows cannot have a file or folder of this name; an empty text if it can."""
    if name in ("", ".", ".."):  # parts of paths
        return ""
    if _is_reserved(name):
        return f"{name} is the name of a device on Windows"
    if found := FORBIDDEN.search(name):
        return f"{name} has a {found[0]!r}, which names on Windows cannot have"
    return f"{name} ends with a dot or a space, which Windows drops" if name.endswith((".", " ")) else ""


def portable_name(text: str) -> str:
    """Return a name that every system can have, for a text such as a class, of which it has the beginning."""
    name = re.sub(r"^\.+|[. ]+$", "_", FORBIDDEN.sub("_", text)[:LONGEST_NAME]) or "_"
    return re.sub(r"^[^.]*", r"\g<0>_", name) if _is_reserved(name) else name


def _is_reserved(name: str) -> bool:
    return name.partition(".")[0].rstrip().upper() in RESERVED_NAMES


def decode_name(name: bytes) -> str:
    """Return the name of a file as another program has written it: on Windows in UTF-8, or else in its code page."""
    if IS_POSIX:
        return os.fsdecode(name)
    with contextlib.suppress(UnicodeDecodeError):
        return name.decode("utf-8")
    return name.decode(locale.getpreferredencoding(False), "replace")


def short_path(folder: Path) -> Path:
    """Return a folder's path by the short names (``PHOTOS~1``) that Windows keeps; without such, the path itself."""
    kernel: Any = ctypes.WinDLL("kernel32") if hasattr(ctypes, "WinDLL") else None
    length = kernel.GetShortPathNameW(str(folder), None, 0) if kernel else 0
    buffer = ctypes.create_unicode_buffer(length)
    return Path(buffer.value) if length and kernel.GetShortPathNameW(str(folder), buffer, length) else folder


def allows_long_paths() -> bool:
    """Return whether paths may be longer than `LONGEST_WINDOWS_PATH`: on Windows that is a setting of the system."""
    if importlib.util.find_spec("winreg") is None:
        return True
    winreg: Any = importlib.import_module("winreg")
    with contextlib.suppress(OSError), winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, LONG_PATHS_KEY) as key:
        return bool(winreg.QueryValueEx(key, "LongPathsEnabled")[0])
    return False


def is_own_file(status: os.stat_result) -> bool:
    """Return whether a file belongs to the user of this process; Windows' files do not say."""
    getuid = getattr(os, "getuid", None)
    return getuid is None or status.st_uid == getuid()
