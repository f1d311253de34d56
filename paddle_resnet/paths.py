"""Where files may lie: the home folder, names that every system can have, and paths as Paddle opens them."""

from __future__ import annotations

import os
from pathlib import Path

from paddle_resnet.errors import UsageError, shown
from paddle_resnet.system.portable import IS_POSIX, LONGEST_WINDOWS_PATH, allows_long_paths, name_problem, short_path

LONGEST_IN_FOLDER = 80  # characters that the longest path within a run or an exported model adds to its folder's


def home_folder() -> Path:
    """Return the home folder, in which downloads are kept; raise `UsageError` if this user has none."""
    try:
        return Path.home()
    except RuntimeError:
        raise UsageError("this user has no home folder, where downloads are kept: set HOME to a folder") from None


def paddle_cache(folder: str) -> Path:
    """Return a folder of Paddle's own cache, which paddle.vision shares; errors as of `home_folder`."""
    return home_folder() / ".cache" / "paddle" / folder


def expand_home(path: str | os.PathLike[str]) -> Path:
    """Return a path with its ``~`` or ``~user`` as the home folder.

    Raises:
        UsageError: no such home folder is known, the path holds a zero byte, or is something else.
    """
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"expected the path of a file or folder, got {shown(path)}")
    if "\0" in str(path):
        raise UsageError(f"{shown(repr(str(path)))} is no path, as it holds a zero byte")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"the home folder of {shown(str(path))} is not known; write the path in full") from None


def require_portable_name(path: Path) -> None:
    """Check that every system can have a file or folder that is to be made, so that results can be copied to Windows.

    Raises:
        UsageError: Windows cannot have a name of its path. On other systems, what exists already may have any name.
    """
    whole = path.absolute()
    for part in (whole, *whole.parents):
        if (problem := name_problem(part.name)) and not (IS_POSIX and os.path.lexists(part)):
            raise UsageError(f"{path}: {problem}; choose another name")


def require_name_for_folder(path: Path) -> None:
    """Check that every system can have a folder, and this system files in it.

    Raises:
        UsageError: see `require_portable_name`; it exists and is no folder; or Windows has no paths as long as those of
            files in it.
    """
    require_portable_name(path)
    if os.path.lexists(path) and not os.path.isdir(path):  # noqa: PTH112 (False where it cannot be told)
        raise UsageError(f"{path}: exists and is no folder; choose another name")
    longest = len(str(path.absolute())) + LONGEST_IN_FOLDER
    if not IS_POSIX and longest > LONGEST_WINDOWS_PATH and not allows_long_paths():
        raise UsageError(
            f"{path}: files in it would have paths of {longest} characters, and Windows allows {LONGEST_WINDOWS_PATH}; "
            "choose a folder nearer to the drive, or allow long paths in Windows"
        )


def path_for_paddle(path: Path) -> str:
    """Return a path, whose folder exists, as Paddle's compiled code opens it.

    It takes UTF-8. On Windows it passes these bytes on as if they were of the code page, so that it needs ASCII.

    Raises:
        UsageError: it cannot open this path.
    """
    text = str(path) if IS_POSIX or str(path).isascii() else str(short_path(path.parent) / path.name)
    if text.isascii() or (IS_POSIX and text == text.encode(errors="ignore").decode()):
        return text
    raise UsageError(f"{path}: Paddle cannot open a path with such characters; take a folder whose path is plain ASCII")
