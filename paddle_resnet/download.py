"""Fetching one official file: resumed where it broke off, checked, and in place only when it is whole."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.files import md5_of

Report = Callable[[int, int], None]

TIMEOUT_SECONDS = 10.0
BLOCK_BYTES = 1 << 18


class _TransferError(Exception):
    """The transfer could not start or broke off; the text says why."""


def fetch(url: str, destination: Path, md5: str | None = None, report: Report | None = None) -> None:
    """Download `url` to `destination`, by way of ``<destination>.part``; an earlier part is continued.

    Args:
        url: the http(s) address.
        destination: the file to make; its folder is created.
        md5: the file's MD5 as 32 hex digits, or None to take it as it comes.
        report: called with (bytes so far, bytes in all; 0 where the server does not say).

    Raises:
        UsageError: no connection, no such file, or another MD5; the line says what to download and where to put it.
        RunFailure: the file cannot be written.
    """
    absent = not destination.exists()
    with _one_at_a_time(destination.parent):
        if absent and destination.exists():  # another process has just fetched it
            return
        _fetch(url, destination, md5, report)


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other process downloads to `folder`: two would write one part. A folder that stays empty goes."""
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise RunFailure(f"{folder}: cannot be written ({error.strerror or error})") from error
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
        if is_new:
            with contextlib.suppress(OSError):  # it holds something
                folder.rmdir()


def _fetch(url: str, destination: Path, md5: str | None, report: Report | None) -> None:
    part = destination.with_name(destination.name + ".part")
    resumed = _size(part) > 0
    _transfer_whole(url, destination, part, report)
    if md5 is not None and (found := md5_of(part)) != md5:
        part.unlink()
        if resumed:
            # The earlier part may have been of another edition of the file: once more, from its start.
            return _fetch(url, destination, md5, report)
        raise UsageError(
            f"{url}: the download's MD5 is {found}, expected {md5}: damaged on its way or replaced at its source; "
            f"try again, or put the right file at {destination}"
        )
    try:
        part.replace(destination)
    except OSError as error:
        raise RunFailure(f"{destination}: cannot be written ({error.strerror or error})") from error
    return None


def _transfer_whole(url: str, destination: Path, part: Path, report: Report | None) -> None:
    """Transfer until the part is whole; a connection that breaks is taken up again while it makes progress."""
    while True:
        before = _size(part)
        try:
            return _transfer(url, part, report)
        except _TransferError as broken:
            if _size(part) > before:
                continue
            raise UsageError(
                f"{destination.name}: cannot be downloaded from {url} ({broken}); "
                f"download that file on another machine or later, and put it at {destination}"
            ) from broken


def _transfer(url: str, part: Path, report: Report | None) -> None:
    """One connection: append to `part` what is missing; raise `_TransferError` unless it is whole afterwards."""
    start = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            if response.status != http.client.PARTIAL_CONTENT:
                start = 0  # the server sends the whole file again
            length = response.headers.get("Content-Length")
            total = start + int(length) if length else 0
            done = _append(response, part, start, total, report)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return _end_at(part, error.headers.get("Content-Range", ""), url, report)
        raise _TransferError(f"HTTP {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _TransferError(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _TransferError(str(error) or type(error).__name__) from error
    if done < total:
        raise _TransferError(f"the connection closed after {done:,} of {total:,} bytes")
    return None


def _append(response: http.client.HTTPResponse, part: Path, start: int, total: int, report: Report | None) -> int:
    """Write the response's body behind the first `start` bytes of `part`; return the size then."""
    done = start
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        file = part.open("r+b" if start else "wb")
    except OSError as error:
        raise RunFailure(f"{part}: cannot be written ({error.strerror or error})") from error
    with file:
        file.seek(start)
        while block := response.read(BLOCK_BYTES):
            try:
                file.write(block)
                file.flush()
            except OSError as error:
                raise RunFailure(f"{part}: cannot be written ({error.strerror or error})") from error
            done += len(block)
            if report is not None:
                report(done, total)
    return done


def _end_at(part: Path, content_range: str, url: str, report: Report | None) -> None:
    """The server has nothing beyond `part`: it is whole already, or it is of another file and starts anew."""
    if content_range != f"bytes */{_size(part)}":
        part.unlink()
        _transfer(url, part, report)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
