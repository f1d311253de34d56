"""Files and folders that are written whole or not at all, and locks on folders.

A file is written to a temporary file in the same folder, synced, and renamed. The temporary of a killed process is not
locked any more, so the next process that writes there removes it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from paddle_resnet.errors import PaddleResNetError, RunFailure, UsageError
from paddle_resnet.paths import require_name_for_folder, require_portable_name
from paddle_resnet.system.portable import READ, is_own_file, lock_path, replace

Result = TypeVar("Result")
LONGEST_NAME, LONGEST_SUFFIX = 255, 12
LEAST_FREE = 1 << 16  # a disk with fewer free bytes counts as full
_RANDOM = "[a-z0-9_]{8}"  # what `tempfile` puts into names


def link_target(path: Path) -> Path:
    """Return the file that `path` leads to, through all links; a link that leads to itself is a RunFailure."""
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise RunFailure(f"{path}: cannot be written (the link leads to itself; remove it)")
    return target


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`. Links are followed.

    If the file cannot be written, raise a RunFailure, and an earlier file at `path` is unchanged. Names are checked by
    `require_portable_name`.
    """
    path = _replaceable(path)
    # The inner `_writing` checks the free space while the temporary still takes it.
    with _writing(path), _temporary_beside(path, folder=False) as temporary, _writing(path):
        write(temporary)
        temporary.chmod(0o666 & ~_umask())
        move_into_place(temporary, path)


def _replaceable(path: Path) -> Path:
    """Return the file that `write_atomically` replaces, through all links; a folder or a device is a RunFailure."""
    if path.is_symlink():
        path = link_target(path)
    if path.exists() and not path.is_file():
        reason = os.strerror(errno.EISDIR) if path.is_dir() else "a pipe or a device cannot be replaced; name a file"
        raise RunFailure(f"{path}: cannot be written ({reason})")
    return path


def move_into_place(temporary: Path, path: Path) -> None:
    """Rename a complete file to `path`, in the same folder, so that a power cut leaves this file or the earlier one."""
    _sync(temporary)
    replace(temporary, path)
    _sync(path.parent)


@contextlib.contextmanager
def write_errors(name: Path | str) -> Iterator[None]:
    """Turn an OSError of the block into a RunFailure: ``<name>: cannot be written (No space left on device)``."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        if isinstance(error, FileExistsError | NotADirectoryError):
            in_the_way = (each for each in (*Path(name).parents, Path(name)) if os.path.lexists(each))
            reason = next((f"{each} is no folder" for each in in_the_way if not each.is_dir()), reason)
        raise RunFailure(f"{name}: cannot be written ({reason})") from error


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """`write_errors`, where a library in C++ may report a full disk by an exception of its own, or not at all."""
    try:
        with write_errors(path):
            yield
    except MemoryError:
        raise
    except Exception:
        if path.parent.is_dir():
            require_space(path)
        raise


def require_space(path: Path, needed: int = LEAST_FREE) -> None:
    """Raise a RunFailure if the disk of `path`, whose parent exists, is full, or has fewer bytes than will be `needed`.

    By default `path` is written already, by a library that says nothing of a file cut short.
    """
    free = shutil.disk_usage(path.parent).free
    if free < LEAST_FREE:
        raise RunFailure(f"{path}: cannot be written ({os.strerror(errno.ENOSPC)})")
    if free < needed:
        raise RunFailure(
            f"{path}: needs at least {needed / 1e6:.0f} MB, and its disk has {free / 1e6:.0f} MB left; free some "
            "space, or write elsewhere"
        )


@contextlib.contextmanager
def _temporary_beside(path: Path, *, folder: bool) -> Iterator[Path]:
    """Make a temporary beside `path`, see `_temporary`. Errors within the block name `path` in its place."""
    require_portable_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= LONGEST_SUFFIX else ""
    with _temporary(path.parent, f".{shortened_name(path.name, more=40)}.tmp-", suffix, folder=folder) as temporary:
        try:
            yield temporary
        except PaddleResNetError as error:
            error.args = (str(error).replace(str(temporary), str(path)), *error.args[1:])
            raise


def shortened_name(name: str, more: int) -> str:
    """Return the beginning of a name to which `more` bytes can be added: file systems allow names of 255 bytes."""
    while len(os.fsencode(name)) > LONGEST_NAME - more:
        name = name[:-1]
    return name


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a temporary folder, removed at the end; remove those that killed processes left."""
    with _temporary(Path(tempfile.gettempdir()), "paddle_resnet-", folder=True) as path, _writing(path):
        yield path


@contextlib.contextmanager
def _temporary(parent: Path, prefix: str, suffix: str = "", *, folder: bool) -> Iterator[Path]:
    """Make a file or folder in `parent`, removed at the end; remove those that killed processes left.

    It is locked as long as this process lives, which distinguishes it from what a killed process left.
    """
    _remove_abandoned(parent, rf"{re.escape(prefix)}{_RANDOM}({re.escape(suffix)})?")
    while True:
        if folder:
            name = tempfile.mkdtemp(prefix=prefix, dir=parent)
        else:
            descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=parent)
            os.close(descriptor)  # Windows cannot rename an open file
        with lock_path(Path(name)) as locked:
            # Until it is locked, another process may take it for abandoned and remove it.
            if locked is False or not os.path.lexists(name):
                continue
            try:
                yield Path(name)
            finally:
                _remove(Path(name))
            return


def _remove_abandoned(folder: Path, pattern: str) -> None:
    """Remove this user's own files and folders of these names in `folder` that no process has locked."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in [each for each in entries if re.fullmatch(pattern, each.name)]:
            if not is_own_file(entry.stat(follow_symlinks=False)):
                continue
            with lock_path(Path(entry.path)) as locked:
                if locked:
                    _remove(Path(entry.path))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; raise OSError for any other, as a FIFO or a device may never end."""
    descriptor = os.open(path, READ)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def md5_of(path: Path) -> str:
    """Return the file's MD5 as 32 hex digits (to detect damaged downloads, not for security)."""
    return _digest(path, hashlib.md5(usedforsecurity=False))


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256 as 64 hex digits."""
    return _digest(path, hashlib.sha256())


def _digest(path: Path, digest: hashlib._Hash) -> str:
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    try:
        # Windows syncs only files that are open for writing, and no folder.
        descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        # Some file systems cannot do that for folders. Of a file it means that the file is not written.
        if not path.is_dir():
            raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def require_writable(folder: Path) -> None:
    """Make `folder`; before minutes of work, raise a RunFailure or UsageError if no files can be written there."""
    require_name_for_folder(folder)
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _temporary(folder, ".trial.", folder=False):
            pass


def require_writable_file(path: Path) -> None:
    """Before minutes of work, raise a RunFailure or UsageError if `write_atomically` cannot write `path`."""
    path = _replaceable(path)
    with write_errors(path), _temporary_beside(path, folder=False):
        pass


@contextlib.contextmanager
def writable_home(needed: str) -> Iterator[None]:
    """Within the block, let HOME be a folder in which the folder `needed` can be made, a temporary one if need be."""
    earlier = {name: value for name, value in os.environ.items() if name == "HOME"}
    with contextlib.ExitStack() as stack:
        try:
            (Path("~").expanduser() / needed).mkdir(parents=True, exist_ok=True)
        except (OSError, RuntimeError):
            os.environ["HOME"] = stack.enter_context(tempfile.TemporaryDirectory())
            stack.callback(os.environ.update, earlier)
            stack.callback(os.environ.pop, "HOME")
        yield


def write_folder(path: Path, write: Callable[[Path], Result]) -> Result:
    """Let `write` fill a temporary folder beside `path`, then rename it to `path`; return what `write` does.

    A folder cannot be renamed over another one, so the earlier one is first renamed to ``.<name>.old``.
    `recover_folder` renames it back if the process dies between the two.

    If the folder cannot be written, raise a RunFailure, and an earlier folder at `path` is unchanged. Names are checked
    by `require_name_for_folder`.
    """
    require_name_for_folder(path)
    with _writing(path), _temporary_beside(path, folder=True) as temporary, _writing(path):
        try:
            result = write(temporary)
            temporary.chmod(0o777 & ~_umask())
            for written in (*temporary.rglob("*"), temporary):
                if not written.is_symlink():
                    _sync(written)
            recover_folder(path)
            if path.exists():
                shutil.rmtree(_earlier(path), ignore_errors=True)
                replace(path, _earlier(path))
            replace(temporary, path)
            _sync(path.parent)
        finally:  # one folder stays: the new one, or the earlier one
            recover_folder(path)
            if path.exists():
                shutil.rmtree(_earlier(path), ignore_errors=True)
    return result


def recover_folder(path: Path) -> None:
    """Rename the earlier folder back if `write_folder` was interrupted between its two renames."""
    if not path.exists() and _earlier(path).exists():
        replace(_earlier(path), path)


def _earlier(path: Path) -> Path:
    return path.with_name(f".{shortened_name(path.name, more=5)}.old")


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed `write_atomically` or `write_folder` left in a locked folder; recover folders first."""
    for path in list(folder.glob(".*")):
        if earlier := re.fullmatch(r"\.(.+)\.old", path.name):
            recover_folder(folder / earlier[1])
            shutil.rmtree(path, ignore_errors=True)
        elif re.fullmatch(rf"\..+\.tmp-{_RANDOM}(\.\w+)?", path.name):
            _remove(path)


@contextlib.contextmanager
def folder_lock(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock a folder, or a file, in the block; where another process has it, `wait` or raise a UsageError."""
    with lock_path(Path(os.path.realpath(folder)), wait=wait) as locked:
        if locked is False:
            raise UsageError(f"{folder}: another process is at work there; wait for it, or end it")
        yield
