"""Standard streams that never fail in a tool's face: closed ones, ones without a reader, full ones, other encodings."""

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
    """Standard output or error, which may be lost: its reader has gone, its disk is full, its terminal was closed."""

    lost: OSError | None = None

    def __init__(self, descriptor: int, *, goes_on: bool) -> None:
        """Write to the descriptor.

        Args:
            descriptor: 1 or 2.
            goes_on: once it is lost, take what is written and leave it out; otherwise its first loss raises an OSError.
        """
        super().__init__(descriptor, "w", closefd=False)
        self.goes_on = goes_on

    def write(self, data: Any) -> int:
        """Write as much of the data as goes."""
        if self.lost is not None:
            return len(data)
        try:
            while (written := super().write(data)) is None:  # a stream that does not block is full
                select.select([], [self.fileno()], [])
            return written
        except OSError as error:
            self._lose(error)
            if not self.goes_on:
                raise
            return len(data)

    def _lose(self, error: OSError) -> None:
        self.lost = error
        error.filename = "standard output" if self.fileno() == OUTPUT else "standard error"
        # For what compiled code writes.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)
        if self.fileno() == OUTPUT and self.goes_on:
            # Not the stream that is being written to, which the console's log lines would enter again.
            sys.stdout = Path(os.devnull).open("w", encoding="utf-8", errors="replace")  # noqa: SIM115
            logging.getLogger("paddle_resnet").warning(
                "standard output is lost (%s): this goes on without it", error.strerror or error
            )


_output: StandardStream | None = None


def prepare(*, goes_on: bool) -> None:
    """Make the standard streams fit: what is closed is /dev/null, and what cannot be encoded is escaped.

    Args:
        goes_on: work goes on when standard output is lost.
    """
    for descriptor in (0, OUTPUT, ERROR):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    global _output
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout, _output = _fit(sys.stdout, OUTPUT, goes_on)
    sys.stderr, _ = _fit(sys.stderr, ERROR, True)


def output_loss() -> OSError | None:
    """How standard output was lost; None while it can be written."""
    return _output.lost if _output is not None else None


def go_on_without_output() -> None:
    """From now on, let the loss of standard output end nothing."""
    if _output is not None:
        _output.goes_on = True


def _fit(stream: TextIO | None, descriptor: int, goes_on: bool) -> tuple[TextIO, StandardStream | None]:
    if stream is not None and not _is(stream, descriptor):  # a caller has put another in its place
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        return stream, None
    if stream is not None:
        stream.flush()
    raw = StandardStream(descriptor, goes_on=goes_on)
    encoding = stream.encoding if stream is not None else "utf-8"
    lines = descriptor == ERROR or raw.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=lines), raw


def _is(stream: TextIO, descriptor: int) -> bool:
    try:
        return stream.fileno() == descriptor
    except OSError:
        return False
