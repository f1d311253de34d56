"""Standard streams that survive being closed, losing their reader, a full disk, and any encoding."""

from __future__ import annotations

import io
import logging
import os
import select
import sys
from pathlib import Path
from typing import Any, TextIO

OUTPUT, ERROR = 1, 2


class StandardStream(io.FileIO):
    """Standard output or error, which may be lost: its reader ends, its disk is full, its terminal is closed."""

    lost: OSError | None = None

    def __init__(self, descriptor: int, *, may_be_lost: bool) -> None:
        """Write to descriptor 1 or 2. If it `may_be_lost`, output is dropped then; otherwise it raises an OSError."""
        super().__init__(descriptor, "w", closefd=False)
        self.may_be_lost = may_be_lost

    def write(self, data: Any) -> int:
        if self.lost is not None:
            return len(data)
        try:
            while (written := super().write(data)) is None:  # a stream that does not block is full
                select.select([], [self.fileno()], [])
            return written
        except OSError as error:
            self._lose(error)
            if not self.may_be_lost:
                raise
            return len(data)

    def _lose(self, error: OSError) -> None:
        self.lost = error
        error.filename = "standard output" if self.fileno() == OUTPUT else "standard error"
        # Compiled code writes to the descriptor.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)
        if self.fileno() == OUTPUT and self.may_be_lost:
            # The log line below must not enter the stream that is being written to.
            sys.stdout = Path(os.devnull).open("w", encoding="utf-8", errors="replace")  # noqa: SIM115
            logging.getLogger("paddle_resnet").warning(
                "standard output is lost (%s): continuing without it", error.strerror or error
            )


_output: StandardStream | None = None


def prepare(*, output_may_be_lost: bool) -> None:
    """Replace closed standard streams by /dev/null, and let all of them escape what they cannot encode.

    Where `output_may_be_lost`, the work continues when standard output is lost; otherwise writing to it raises an
    OSError.
    """
    for descriptor in (0, OUTPUT, ERROR):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    global _output
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout, _output = _wrap(sys.stdout, OUTPUT, output_may_be_lost)
    sys.stderr, _ = _wrap(sys.stderr, ERROR, True)


def output_loss() -> OSError | None:
    """Return how standard output was lost; None while it can be written."""
    return _output.lost if _output is not None else None


def set_output_may_be_lost(may_be_lost: bool) -> None:
    """From now on, continue the work when standard output is lost, or raise an OSError, as in `prepare`."""
    if _output is not None:
        _output.may_be_lost = may_be_lost


def _wrap(stream: TextIO | None, descriptor: int, may_be_lost: bool) -> tuple[TextIO, StandardStream | None]:
    # A caller has replaced it; or it is a console of Windows, which takes any character from Python but not as bytes.
    if stream is not None and (not _writes_to(stream, descriptor) or _is_windows_console(stream)):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        return stream, None
    if stream is not None:
        stream.flush()
    raw = StandardStream(descriptor, may_be_lost=may_be_lost)
    encoding = stream.encoding if stream is not None else "utf-8"
    lines = descriptor == ERROR or raw.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=lines), raw


def _is_windows_console(stream: TextIO) -> bool:
    return type(getattr(getattr(stream, "buffer", None), "raw", None)).__name__ == "_WindowsConsoleIO"


def _writes_to(stream: TextIO, descriptor: int) -> bool:
    try:
        return stream.fileno() == descriptor
    except OSError:
        return False
