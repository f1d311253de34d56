"""Official files: downloaded once, resumed where a download broke off, checked, and renamed when they are whole."""

from __future__ import annotations

import contextlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddle_resnet.errors import UsageError
from paddle_resnet.files import folder_lock, md5_of, move_into_place, sha256_of, write_errors

ProgressFn = Callable[[int, int], None]  # called with (bytes so far, bytes in all; 0 where the server does not say)
TIMEOUT_SECONDS = 10.0
BLOCK_BYTES = 1 << 18
LARGEST_BYTES = 4 << 30  # the largest official file has 0.3 GB; an endless body must not fill the disk
MOST_CONNECTIONS = 100
SLOW_SECONDS, SLOW_BYTES = 120.0, 1 << 17
"""A download that gets fewer bytes in so many seconds ends; its part is kept, and the next download continues it."""


@dataclass(frozen=True)
class OfficialFile:
    """A file as its authors published it, and its checksum if they published one."""

    url: str
    md5: str | None = None
    sha256: str | None = None  # its first digits

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


class _TransferError(Exception):
    """The transfer could not start or broke off; the text says why."""


class _GaveUpError(_TransferError):
    """Another connection would not help."""


class _Pace:
    """Raises `_GaveUpError` when a download is too slow, over all of its connections."""

    def __init__(self) -> None:
        self._since, self._bytes = time.monotonic(), 0

    def advance(self, count: int) -> None:
        self._bytes += count
        if (now := time.monotonic()) - self._since < SLOW_SECONDS:
            return
        if self._bytes < SLOW_BYTES:
            raise _GaveUpError(f"only {self._bytes:,} bytes came in {now - self._since:.0f} s; they are kept")
        self._since, self._bytes = now, 0


class _WebRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to http(s) only: urllib would go to ftp too."""

    max_redirections = 5

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith(("http://", "https://")):
            raise _GaveUpError(f"it redirects to {newurl[:200]!r}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(
    url: str,
    destination: Path,
    md5: str | None = None,
    progress: ProgressFn | None = None,
    *,
    sha256: str | None = None,
) -> None:
    """Download `url` to ``<destination>.part``, then rename that; an earlier part is continued.

    Without MD5 and SHA-256, of which the first hex digits are enough, the file is taken unchecked.

    Raises:
        UsageError: no connection, no such file, or another checksum; the line says what to do.
        RunFailure: the file cannot be written.
    """
    absent = not destination.exists()
    with _one_at_a_time(destination.parent):
        if absent and destination.exists():  # another process has just fetched it
            return
        _fetch(url, destination, md5, sha256, progress)


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other process downloads to `folder`: two would write one part. Remove a new folder left empty."""
    is_new = not folder.exists()
    with contextlib.ExitStack() as lock:
        with write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock.enter_context(folder_lock(folder, wait=True))
        try:
            yield
        finally:
            if is_new:
                with contextlib.suppress(OSError):  # it holds something
                    folder.rmdir()


def fetch_if_missing(file: OfficialFile, folder: Path, verify: bool, progress: ProgressFn | None = None) -> Path:
    """Return the path of `file` in `folder`; download it there if it is missing.

    Raises:
        UsageError: something else is there, no network, or `verify` and the MD5 is not the official one.
        RunFailure: the folder cannot be written to.
    """
    path = folder / file.name
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(f"{folder}: is no folder; expected the one of {file.name}")
    if not path.is_file():
        if os.path.lexists(path):
            raise UsageError(f"{path}: is no regular file, or a link to none; remove it to download the file there")
        fetch(file.url, path, file.md5 if verify else None, progress)
    elif verify:
        check_md5(path, file.md5)
    return path


def check_md5(path: Path, official: str | None) -> None:
    """Raise `UsageError` for a file that cannot be read or has another MD5 than the official one."""
    try:
        difference = checksum_difference(path, official, None)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error
    if difference:
        raise UsageError(
            f"{path}: {difference}: cut short, damaged or another edition; "
            "delete it to download it again, or accept it with -o data.verify=false"
        )


def checksum_difference(path: Path, md5: str | None, sha256: str | None) -> str | None:
    """Return how the file differs from what `fetch` was told of it, in words; None: it does not."""
    if md5 is not None and (found := md5_of(path)) != md5:
        return f"MD5 is {found}, expected {md5}"
    if sha256 is not None and not (found := sha256_of(path)).startswith(sha256):
        return f"SHA-256 is {found}, expected one that begins with {sha256}"
    return None


def _fetch(url: str, destination: Path, md5: str | None, sha256: str | None, progress: ProgressFn | None) -> None:
    part = destination.with_name(destination.name + ".part")
    resumed = _size(part) > 0
    _transfer_whole(url, destination, part, progress)
    if difference := checksum_difference(part, md5, sha256):
        part.unlink()
        if resumed:
            # The earlier part may have been of another edition of the file: once more, from its start.
            return _fetch(url, destination, md5, sha256, progress)
        raise UsageError(
            f"{url}: the download's {difference}: damaged on its way or replaced at its source; "
            f"try again, or put the right file at {destination}"
        )
    with write_errors(destination):
        move_into_place(part, destination)
    return None


def _transfer_whole(url: str, destination: Path, part: Path, progress: ProgressFn | None) -> None:
    """Transfer until the part is whole; reconnect after a broken connection that made progress."""
    pace = _Pace()
    for connection in range(1, MOST_CONNECTIONS + 1):
        before = _size(part)
        try:
            return _transfer(url, part, progress, pace)
        except _TransferError as broken:
            goes_on = _size(part) > before and connection < MOST_CONNECTIONS
            if goes_on and not isinstance(broken, _GaveUpError):
                continue
            reason = " ".join(str(broken).split())[:300]
            raise UsageError(
                f"{destination.name}: cannot be downloaded from {url} ({reason}); "
                f"download that file on another machine or later, and put it at {destination}"
            ) from broken
    return None


def _transfer(url: str, part: Path, progress: ProgressFn | None, pace: _Pace) -> None:
    """Append to `part` what is missing, by one connection; raise `_TransferError` unless it is whole afterwards."""
    start = _size(part)
    try:
        request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
        with urllib.request.build_opener(_WebRedirects).open(request, timeout=TIMEOUT_SECONDS) as response:
            if response.status != http.client.PARTIAL_CONTENT:
                start = 0  # the server sends the whole file again
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise _GaveUpError("it sends another range than requested")
            total = start + _length(response)
            done = _append(response, part, start, total, progress, pace)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            if error.headers.get("Content-Range", "") == f"bytes */{start}":
                return None  # the part is whole
            part.unlink()  # it is of another file
            return _transfer(url, part, progress, pace)
        raise _TransferError(f"HTTP {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _TransferError(str(error.reason)) from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: malformed addresses and numbers
        raise _TransferError(str(error) or type(error).__name__) from error
    if done < total:
        raise _TransferError(f"the connection closed after {done:,} of {total:,} bytes")
    return None


def _length(response: http.client.HTTPResponse) -> int:
    """Return how many bytes the server says it sends; 0 where it does not say."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise _GaveUpError(f"it sends {encoding[:40]!r}-encoded content, which was not requested")
    text = response.headers.get("Content-Length")
    if text is None or response.chunked:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise _GaveUpError(f"its Content-Length is {text[:40]!r}")
    return int(text)


def _append(
    response: http.client.HTTPResponse, part: Path, start: int, total: int, progress: ProgressFn | None, pace: _Pace
) -> int:
    """Write the response's body after the first `start` bytes of `part`; return the new size."""
    done = start
    if total > LARGEST_BYTES:
        raise _GaveUpError(f"it has {total:,} bytes, expected at most {LARGEST_BYTES:,}")
    with write_errors(part):
        part.parent.mkdir(parents=True, exist_ok=True)
        file = part.open("r+b" if start else "wb")
    with file:
        file.seek(start)
        while block := response.read1(BLOCK_BYTES):  # `read` would wait for a whole block
            with write_errors(part):
                file.write(block)
                file.flush()
            done += len(block)
            if done > LARGEST_BYTES:
                file.truncate(0)
                raise _GaveUpError(f"it sends more than {LARGEST_BYTES:,} bytes")
            pace.advance(len(block))
            if progress is not None:
                progress(done, total)
    return done


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
