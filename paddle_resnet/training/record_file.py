"""A VisualDL file that a resumed run goes on with."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any

from visualdl import LogWriter

from paddle_resnet.errors import RunFailure

SECONDS_BETWEEN_FLUSHES = 10.0


class RecordFile:
    """Appends records to a file in VisualDL's format: each a length (uint64, little-endian) and a protocol buffer.

    VisualDL's own writer appends from a thread, which a full disk ends; the training then waits for it for ever.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
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
        try:
            self._file.write(struct.pack("<Q", len(data)) + data)
        except OSError as error:
            raise self._failure(error) from error
        if time.monotonic() - self._flushed > SECONDS_BETWEEN_FLUSHES:
            self.flush()

    def flush(self) -> None:
        """Bring everything into the file.

        Raises:
            RunFailure: the file cannot be written.
        """
        self._flushed = time.monotonic()
        try:
            self._file.flush()
        except OSError as error:
            raise self._failure(error) from error

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
            self._file.close()
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> RunFailure:
        return RunFailure(f"{self._path}: cannot be written ({error.strerror or error})")


class ResumableWriter(LogWriter):
    """VisualDL's `LogWriter` on a `RecordFile`: the one that is in the folder already, or a new one."""

    def __init__(self, folder: Path) -> None:
        """Open the folder's file."""
        # VisualDL shows the last file of a folder, by name.
        earlier = sorted(folder.glob("vdlrecords.*.log"))
        self.file = RecordFile(earlier[-1] if earlier else folder / f"vdlrecords.{int(time.time()):010d}.log")
        super().__init__(str(folder))

    def _get_file_writer(self) -> RecordFile:
        """Where `LogWriter`'s methods put their records."""
        self._file_writer = self._all_writers[self._logdir] = self.file
        return self.file
