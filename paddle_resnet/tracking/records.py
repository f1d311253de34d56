"""VisualDL's writer, imported where its package can be.

VisualDL 2.5.3 makes a folder in the user's home when it is imported, and fails where that cannot be written (a
container's unknown user, say), though only its server uses the folder.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddle_resnet.files import write_errors


@contextlib.contextmanager
def _writable_home() -> Iterator[None]:
    """Within the block, let HOME be a folder that can be written."""
    earlier = os.environ.get("HOME")
    try:
        (Path("~").expanduser() / ".visualdl").mkdir(exist_ok=True)
    except (OSError, RuntimeError):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["HOME"] = folder
            try:
                yield
            finally:
                if earlier is None:
                    del os.environ["HOME"]
                else:
                    os.environ["HOME"] = earlier
    else:
        yield


if TYPE_CHECKING:
    from visualdl import LogWriter
else:
    with _writable_home():
        from visualdl import LogWriter

__all__ = ["LogWriter"]


SECONDS_BETWEEN_FLUSHES = 10.0
STAGED = "staged"
"""The name of a file in the making, which VisualDL passes over."""


class RecordFile:
    """Appends records to a file in VisualDL's format: each a length (uint64, little-endian) and a protocol buffer.

    VisualDL's own writer appends from a thread, which a full disk ends; the training then waits for it for ever.
    Whole records are written: a server that has read a part of one misunderstands all that follows.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._waiting = bytearray()
        self._flushed = time.monotonic()

    def get_filename(self) -> str:
        """The file, as `LogWriter` asks for it."""
        return str(self._path)

    def add_record(self, record: Any) -> None:
        """Append a record; it is in the file within seconds, or at the next `flush`.

        Raises:
            RunFailure: the file cannot be written.
        """
        data = record.SerializeToString()
        self._waiting += struct.pack("<Q", len(data)) + data
        if time.monotonic() - self._flushed > SECONDS_BETWEEN_FLUSHES:
            self.flush()

    def flush(self) -> None:
        """Bring everything into the file.

        Raises:
            RunFailure: the file cannot be written.
        """
        self._flushed = time.monotonic()
        with write_errors(self._path):
            while self._waiting:
                del self._waiting[: self._file.write(self._waiting)]

    def size(self) -> int:
        """Bytes of the file, everything added so far included."""
        self.flush()
        return self._path.stat().st_size

    def cut(self, size: int) -> bool:
        """Forget what was added after the file had `size` bytes; return whether it still has as many."""
        if self.size() < size:
            return False
        self._file.truncate(size)
        return True

    def close(self) -> None:
        """Write what is still held in memory, and close.

        Raises:
            RunFailure: the file cannot be written.
        """
        try:
            self.flush()
        finally:
            self._file.close()


class RecordWriter(LogWriter):
    """VisualDL's `LogWriter` on a `RecordFile`."""

    def __init__(self, path: Path) -> None:
        """Append to the file at `path`."""
        self.file = RecordFile(path)
        super().__init__(str(path.parent))

    def _get_file_writer(self) -> RecordFile:
        """Where `LogWriter`'s methods put their records."""
        self._file_writer = self._all_writers[self._logdir] = self.file
        return self.file


def open_records(folder: Path) -> RecordWriter:
    """Go on with the file that is in the folder already, or begin one."""
    earlier = _files_of(folder)
    return RecordWriter(earlier[-1] if earlier else folder / _name(0))


def replace_records(folder: Path, write: Callable[[LogWriter], None]) -> None:
    """Let `write` fill a new file that VisualDL shows in the place of the folder's earlier one, whole or not at all.

    The earlier one is emptied and not removed: a running server has it open, and answers nothing any more once a file
    is gone.

    Raises:
        RunFailure: it cannot be written; the earlier one is left as it was.
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
    """VisualDL's files of a folder; it shows the last one, by name."""
    return sorted(folder.glob("vdlrecords.*.log"))


def _name(least: int) -> str:
    """Name a file as VisualDL does, by the time, but by `least` at least."""
    return f"vdlrecords.{max(least, int(time.time())):010d}.log"


def _number(path: Path) -> int:
    return int(path.name.split(".")[1])
