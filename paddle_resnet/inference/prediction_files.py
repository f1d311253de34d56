"""Predictions written as CSV, JSON and JSON lines while they come, so that a folder of any size takes little memory.

A file appears under its name when its block has ended well; until then an earlier one is left as it was. What was
answered before Ctrl-C is kept beside it, as ``<name>.part``. Of a link, the file that it leads to is written so. A pipe
or a device is written to as the predictions come, and so is standard output, which ``-`` stands for.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

from paddle_resnet.errors import RunFailure, UsageError, shown
from paddle_resnet.files import csv_line, link_target
from paddle_resnet.inference.prediction_columns import Column
from paddle_resnet.inference.predictor import Prediction

STANDARD_OUTPUT = Path("-")


class PredictionFile(Protocol):
    """A file that takes predictions one by one."""

    def add(self, prediction: Prediction) -> None:
        """Write one."""
        ...


@contextmanager
def open_csv(path: Path, columns: Sequence[Column]) -> Iterator[PredictionFile]:
    """Open a CSV with a header and a row for each prediction.

    Raises:
        RunFailure: it cannot be written.
    """
    with _aside(path) as file:
        yield _CsvAnswers(file, columns)


@contextmanager
def open_json(path: Path, top_k: int) -> Iterator[PredictionFile]:
    """Open a JSON list of ``{"file": ..., "top": [{"class": ..., "probability": ...}, ...]}``, the best `top_k`.

    Raises:
        RunFailure: it cannot be written.
    """
    with _aside(path) as file:
        answers = _JsonAnswers(file, top_k)
        yield answers
        answers.end()


@contextmanager
def open_json_lines(path: Path, top_k: int) -> Iterator[PredictionFile]:
    """Open a file of such objects, one on each line, which a program can read without holding all of them.

    Raises:
        RunFailure: it cannot be written.
    """
    with _aside(path) as file:
        yield _JsonLines(file, top_k)


def partial_path(path: Path) -> Path:
    """Where the answers for the file `path`, or the file to which it links, stand until they are complete."""
    path = link_target(path)
    return path.with_name(f"{path.name}.part")


def own_stream(path: Path) -> int | None:
    """Return which open descriptor of this process `path` is, as ``-`` and ``/dev/stdout`` are 1; None: none."""
    if path == STANDARD_OUTPUT:
        return 1
    numbers = [1, 2]
    if str(path.parent) in ("/dev/fd", "/proc/self/fd") and path.name.isdecimal():
        numbers.insert(0, int(path.name[:6]))
    for number in numbers:
        with contextlib.suppress(OSError, ValueError):
            if os.path.samestat(os.fstat(number), path.stat()):
                return number
    return None


def check_distinct(paths: Sequence[Path]) -> set[tuple[int, int]]:
    """Check that no two answer files are the same; return device and inode of those that are files already.

    Raises:
        UsageError: two are, also by way of links or as standard output.
    """
    taken: set[object] = set()
    files = set()
    for path in paths:
        stream = own_stream(path)
        places: set[object] = {stream} if stream else {os.path.realpath(path), str(partial_path(path))}
        with contextlib.suppress(OSError, ValueError):
            if not stream:
                places.add(file_id(path))
                if path.is_file():
                    files.add(file_id(path))
        if places & taken:
            raise UsageError(
                f"{shown(str(path), 240)}: two outputs would be written there; give each a file of its own"
            )
        taken |= places
    return files


def file_id(path: Path) -> tuple[int, int]:
    """Device and inode of a file, which all its names share."""
    status = path.stat()
    return status.st_dev, status.st_ino


class _CsvAnswers:
    def __init__(self, file: _Output, columns: Sequence[Column]) -> None:
        self._file = file
        self._columns = columns
        self._file.write(csv_line(column.title for column in columns))

    def add(self, prediction: Prediction) -> None:
        self._file.write(csv_line(column.cell(prediction) for column in self._columns))


class _JsonAnswers:
    def __init__(self, file: _Output, top_k: int) -> None:
        self._file = file
        self._top_k = top_k
        self._before = "[\n"

    def add(self, prediction: Prediction) -> None:
        self._file.write(self._before + _as_json(prediction, self._top_k))
        self._before = ",\n"

    def end(self) -> None:
        self._file.write("[]\n" if self._before == "[\n" else "\n]\n")


class _JsonLines:
    def __init__(self, file: _Output, top_k: int) -> None:
        self._file = file
        self._top_k = top_k

    def add(self, prediction: Prediction) -> None:
        self._file.write(_as_json(prediction, self._top_k) + "\n")


def _as_json(prediction: Prediction, top_k: int) -> str:
    best: list[dict[str, Any]] = [
        {"class": label, "probability": round(probability, 6)} for label, probability in prediction.top[:top_k]
    ]
    # A name that is no text in UTF-8 is escaped, as other bytes are no JSON.
    escaped = any("\ud800" <= letter <= "\udfff" for letter in prediction.name)
    return json.dumps({"file": prediction.name, "top": best}, ensure_ascii=escaped)


@contextmanager
def _aside(path: Path) -> Iterator[_Output]:
    """Open where the answers for `path` go: a pipe, a device or a stream, else a file that is renamed at the end.

    A failure leaves an earlier file alone.
    """
    name = "standard output" if path == STANDARD_OUTPUT else shown(str(path), 240)
    with _failures(name):
        stream = own_stream(path)
        straight = stream is not None or (path.exists() and not path.is_file() and not path.is_dir())
        part = None if straight else partial_path(path)
        file = _open_straight(path, stream) if part is None else _open_part(path, part)
    output = _Output(file, name)
    try:
        yield output
        with _failures(name):
            file.flush()
            if part is not None:
                os.fsync(file.fileno())
            file.close()
            if part is not None:
                part.replace(link_target(path))
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            file.close()
        raise
    except BaseException:
        with contextlib.suppress(OSError):
            file.close()
        if part is not None:
            part.unlink(missing_ok=True)
        raise


class _Output:
    """A file whose failures name it."""

    def __init__(self, file: TextIO, name: str) -> None:
        self._file = file
        self._name = name

    def write(self, text: str) -> None:
        with _failures(self._name):
            self._file.write(text)


class _Unclosed(io.TextIOWrapper):
    """Text for bytes that stay open."""

    def close(self) -> None:
        with contextlib.suppress(ValueError):
            self.detach()


@contextmanager
def _failures(name: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise RunFailure(f"{name}: its reader has gone before the last answer; the rest is lost") from None
    except (OSError, ValueError) as error:
        raise RunFailure(f"{name}: cannot be written ({getattr(error, 'strerror', None) or error})") from error


# Names of files are bytes: those that are not UTF-8 are written back as they were.
def _open_part(path: Path, part: Path) -> TextIO:
    if path.is_dir():
        raise IsADirectoryError(0, "it is a folder")
    part.parent.mkdir(parents=True, exist_ok=True)
    # Neither through a link of that name nor into a pipe, which would wait for a reader.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
    return os.fdopen(os.open(part, flags, 0o666), "w", encoding="utf-8", errors="surrogateescape", newline="")


def _open_straight(path: Path, stream: int | None) -> TextIO:
    """Open a pipe or a device, or the stream again, so that each row is there at once and nothing else is closed."""
    if stream is None:
        target = os.open(path, os.O_WRONLY)
    elif stream == 1:
        if sys.stdout is None:
            raise OSError(0, "it is closed")
        sys.stdout.flush()
        try:
            target = os.dup(sys.stdout.fileno())
        except OSError:  # a stream in memory
            return _Unclosed(sys.stdout.buffer, encoding="utf-8", errors="surrogateescape", newline="")
    else:
        target = os.dup(stream)
    return os.fdopen(target, "w", buffering=1, encoding="utf-8", errors="surrogateescape", newline="")
