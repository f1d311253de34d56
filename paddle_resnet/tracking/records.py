"""VisualDL's record files, and its `LogWriter` on top of a safe one.

VisualDL 2.5.3 creates a folder in the user's home when it is imported, and fails if it cannot (as for an unknown user
in a container), although only its server uses the folder. Import `LogWriter` from here.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddle_resnet.files import writable_home, write_errors

if TYPE_CHECKING:
    from visualdl import LogWriter
else:
    with writable_home(".visualdl"):
        from visualdl import LogWriter

__all__ = ["LogWriter"]


SECONDS_BETWEEN_FLUSHES = 10.0
STAGED = "staged"  # the name of an unfinished file, which VisualDL ignores


class RecordFile:
    """Appends records to a file in VisualDL's format: each a length (uint64, little-endian) and a protocol buffer.

    VisualDL's own writer appends from a thread, which ends when the disk is full; the training then hangs. Only whole
    records are written, because a server that has read part of one misreads all that follow.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._waiting = bytearray()
        self._flushed = time.monotonic()

    def get_filename(self) -> str:
        return str(self._path)

    def add_record(self, record: Any) -> None:
        """Append a record; it is written within seconds, or by the next `flush`."""
        self._waiting += self._framed(record.SerializeToString())
        if time.monotonic() - self._flushed > SECONDS_BETWEEN_FLUSHES:
            self.flush()

    def _framed(self, data: bytes) -> bytes:
        return struct.pack("<Q", len(data)) + data

    def flush(self) -> None:
        """Write all records that were added; raise `RunFailure` if the file cannot be written."""
        self._flushed = time.monotonic()
        with write_errors(self._path):
            while self._waiting:
                del self._waiting[: self._file.write(self._waiting)]

    def size(self) -> int:
        """Return the bytes of the file, all added records included."""
        self.flush()
        return self._path.stat().st_size

    def cut(self, size: int) -> bool:
        """Remove what was added beyond `size` bytes; return False if the file is shorter than that."""
        if self.size() < size:
            return False
        self._file.truncate(size)
        return True

    def close(self) -> None:
        try:
            self.flush()
        finally:
            self._file.close()


class RecordWriter(LogWriter):
    """VisualDL's `LogWriter` on a `RecordFile`."""

    def __init__(self, path: Path) -> None:
        self.file = RecordFile(path)
        super().__init__(str(path.parent))

    def _get_file_writer(self) -> RecordFile:
        # `LogWriter` adds its records to what this returns.
        self._file_writer = self._all_writers[self._logdir] = self.file
        return self.file


def open_records(folder: Path) -> RecordWriter:
    """Append to the record file in the folder, or begin one."""
    earlier = _files_of(folder)
    return RecordWriter(earlier[-1] if earlier else folder / _name(0))


def replace_records(folder: Path, write: Callable[[LogWriter], None]) -> None:
    """Let `write` fill a new file that replaces the folder's earlier one in VisualDL, whole or not at all.

    The earlier file is emptied instead of removed: a running server stops working when a file disappears.

    Raises:
        RunFailure: it cannot be written; the earlier file stays as it was.
    """
    staged, earlier = folder / STAGED, _files_of(folder)
    staged.unlink(missing_ok=True)
    try:
        with contextlib.closing(RecordWriter(staged)) as writer:
            write(writer)
        staged.rename(folder / _name(1 + max(map(_number, earlier), default=0)))
    finally:
        staged.unlink(missing_ok=True)
    for path in earlier:
        path.write_bytes(b"")


def _files_of(folder: Path) -> list[Path]:
    """Return VisualDL's files in a folder; it shows the last one by name."""
    return sorted(folder.glob("vdlrecords.*.log"))


def _name(least: int) -> str:
    """Return VisualDL's name of a file, which is the time, but at least `least`."""
    return f"vdlrecords.{max(least, int(time.time())):010d}.log"


def _number(path: Path) -> int:
    return int(path.name.split(".")[1])
