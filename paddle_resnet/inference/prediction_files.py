"""Predictions written as CSV, JSON, JSON lines or Parquet batch by batch, so that any number takes little memory.

A file gets its name when it is complete; until then an earlier file stays as it was, and the predictions are in
``<name>.part``, which one process at a time writes, and which Ctrl-C leaves there. Where the name is a link, this
applies to the file that it leads to. Pipes, devices and standard output (``-``) are written to directly.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path, PurePath
from typing import Any, NamedTuple, TextIO

from paddle_resnet.errors import RunFailure, UsageError, did_you_mean, shown
from paddle_resnet.files import link_target, move_into_place, shortened_name
from paddle_resnet.inference.predictor import Prediction
from paddle_resnet.paths import require_portable_name
from paddle_resnet.system.portable import IS_POSIX, O_BINARY, O_NOFOLLOW, O_NONBLOCK, lock_path
from paddle_resnet.text_files import csv_line

STANDARD_OUTPUT = Path("-")
LONGEST_NAME = 240
ROW_GROUP = 50_000  # rows of a Parquet file that are written at once
PROBABILITY_OF = "probability:"
TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
"""File names are bytes, and those that are not UTF-8 are written as they are."""

PredictionWriter = Callable[[Iterable[Prediction]], None]


class Column(NamedTuple):
    """A column of a CSV: its title, and the text that it holds for a prediction."""

    title: str
    cell: Callable[[Prediction], str]
    needs_every_class: bool = False  # whether the prediction must rank all classes, not only the best


def _label(rank: int, prediction: Prediction) -> str:
    return prediction.top[rank].label


def _probability(rank: int, prediction: Prediction) -> str:
    return f"{prediction.top[rank].probability:.6f}"


def _probability_of(label: str, prediction: Prediction) -> str:
    return f"{dict(prediction.top)[label]:.6f}"


CONTENTS: dict[str, Callable[[Prediction], str]] = {  # what a column can hold, besides the probability of a given class
    "path": lambda prediction: prediction.name,
    "name": lambda prediction: PurePath(prediction.name).name,
    "stem": lambda prediction: PurePath(prediction.name).stem,
    "class": lambda prediction: prediction.label,
    "probability": partial(_probability, 0),
}


def ranked_columns(top_k: int) -> list[Column]:
    """Return the columns file, class, probability, class_2, probability_2 ... up to `top_k`."""
    columns = [Column("file", CONTENTS["path"])]
    for rank in range(top_k):
        suffix = f"_{rank + 1}" if rank else ""
        columns.append(Column(f"class{suffix}", partial(_label, rank) if rank else CONTENTS["class"]))
        columns.append(Column(f"probability{suffix}", partial(_probability, rank)))
    return columns


def parse_columns(text: str, classes: Sequence[str]) -> list[Column]:
    """Parse ``title=content,title=content``, such as ``id=stem,label=probability:dog``.

    Contents are path (as the picture was found), name, stem (the name without its suffix), class and probability (of
    the best class), and ``probability:CLASS``. An unknown content or class is a UsageError.
    """
    columns = []
    try:
        parts = next(csv.reader([text]), [])
    except csv.Error:
        raise UsageError("--columns: expected title=content, title=content ... in one line, with no line end") from None
    for part in parts:
        title, equals, content = part.partition("=")
        if not equals or not title:
            raise UsageError(f'--columns: "{part}" is no column; expected title=content, such as id=stem')
        if content.startswith(PROBABILITY_OF):
            label = content.removeprefix(PROBABILITY_OF)
            if label not in classes:
                raise UsageError(
                    f'--columns: the model knows no class "{label}"{did_you_mean(label, classes)}; '
                    f"its classes are {', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}"
                )
            columns.append(Column(title, partial(_probability_of, label), needs_every_class=True))
        elif content in CONTENTS:
            columns.append(Column(title, CONTENTS[content]))
        else:
            expected = f"expected {', '.join(CONTENTS)} or {PROBABILITY_OF}CLASS"
            raise UsageError(f'--columns: "{content}" is no content{did_you_mean(content, CONTENTS)}; {expected}')
    if not columns:
        raise UsageError("--columns: expected title=content, title=content ..., such as id=stem,label=class")
    return columns


def open_csv(path: Path, columns: Sequence[Column]) -> AbstractContextManager[PredictionWriter]:
    """Open a CSV with a header and a row for each prediction; raise a RunFailure if it cannot be written."""
    header = csv_line(column.title for column in columns)
    return _open_lines(path, lambda prediction: csv_line(column.cell(prediction) for column in columns), header)


def open_json_lines(path: Path, top_k: int) -> AbstractContextManager[PredictionWriter]:
    """Open a file with an object of `open_json` on each line; errors as of `open_csv`."""
    return _open_lines(path, lambda prediction: _to_json(prediction, top_k) + "\n")


@contextmanager
def _open_lines(path: Path, line: Callable[[Prediction], str], header: str = "") -> Iterator[PredictionWriter]:
    with _open_output(path) as write_text:

        def write(predictions: Iterable[Prediction]) -> None:
            for prediction in predictions:
                write_text(line(prediction))

        write_text(header)
        yield write


@contextmanager
def open_json(path: Path, top_k: int) -> Iterator[PredictionWriter]:
    """Open a JSON list of ``{"file": ..., "top": [{"class": ..., "probability": ...}, ...]}``, the best `top_k`.

    Where there is a threshold, ``"class"`` is the best class, or `UNKNOWN`. Errors are those of `open_csv`.
    """
    with _open_output(path) as write_text:
        separator = "[\n"

        def write(predictions: Iterable[Prediction]) -> None:
            nonlocal separator
            for prediction in predictions:
                write_text(separator + _to_json(prediction, top_k))
                separator = ",\n"

        yield write
        write_text("[]\n" if separator == "[\n" else "\n]\n")


@contextmanager
def open_parquet(path: Path, top_k: int) -> Iterator[PredictionWriter]:
    """Open a Parquet file with the columns of `ranked_columns`, probabilities as float32.

    What is not UTF-8 in a name is escaped, as Parquet cannot hold its bytes. Raise a UsageError if pyarrow is not
    installed or `path` is standard output, and a RunFailure if it cannot be written.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetWriter
    except ImportError:
        raise UsageError("--parquet: needs pyarrow; pip install pyarrow, or write --csv") from None
    if own_stream(path) is not None:
        raise UsageError(f"--parquet {path}: expected the name of a file, as Parquet is no text")
    columns, cells = ranked_columns(top_k), list[list[str]]()
    numbers = [column.title.startswith("probability") for column in columns]
    types = [pyarrow.float32() if number else pyarrow.string() for number in numbers]
    schema = pyarrow.schema(zip([column.title for column in columns], types, strict=True))

    def in_utf_8(text: str) -> str:
        return os.fsencode(text).decode("utf-8", "backslashreplace")

    def write(predictions: Iterable[Prediction], *, least: int = ROW_GROUP) -> None:
        cells.extend([column.cell(prediction) for column in columns] for prediction in predictions)
        if len(cells) >= least:
            arrays = [
                pyarrow.array([*map(float if number else in_utf_8, column)], kind)
                for column, number, kind in zip(zip(*cells, strict=True), numbers, types, strict=True)
            ]
            cells.clear()
            with _failures_named(str(path)):
                parquet.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))

    with _open_output(path, binary=True) as file:
        parquet = ParquetWriter(file, schema)
        try:
            yield write
        finally:
            write([], least=1)
            with _failures_named(str(path)):
                parquet.close()


def partial_path(path: Path) -> Path:
    """Return the file that holds the predictions for `path` until they are complete."""
    path = link_target(path)
    return path.with_name(f"{shortened_name(path.name, more=11)}.part")  # and 6 bytes more for `lock_path` on Windows


def own_stream(path: Path) -> int | None:
    """Return the open descriptor of this process that `path` names, as ``-`` and ``/dev/stdout`` name 1, or None."""
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
    """Return the `file_id` of existing outputs; two that are the same, also by links or stdout, are a UsageError."""
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
                f"{shown(str(path), LONGEST_NAME)}: two outputs would be written there; give each a file of its own"
            )
        taken |= places
    return files


def file_id(path: Path) -> tuple[int, int]:
    """Return a file's device and inode, the same for all its names."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _to_json(prediction: Prediction, top_k: int) -> str:
    best = [{"class": label, "probability": round(probability, 6)} for label, probability in prediction.top[:top_k]]
    # A name that is not UTF-8 is escaped, as JSON cannot hold its bytes.
    escape = any("\ud800" <= letter <= "\udfff" for letter in prediction.name)
    decided = {"class": prediction.label} if prediction.threshold else {}
    return json.dumps({"file": prediction.name, **decided, "top": best}, ensure_ascii=escape)


@contextmanager
def _open_output(path: Path, *, binary: bool = False) -> Iterator[Any]:
    """Open what `path` names; yield what writes text to it, or the `binary` file. A failure leaves an earlier file."""
    name = "standard output" if path == STANDARD_OUTPUT else shown(str(path), LONGEST_NAME)
    with contextlib.ExitStack() as locked:
        with _failures_named(name):
            stream = own_stream(path)
            direct = stream is not None or (path.exists() and not path.is_file() and not path.is_dir())
            part = None if direct else partial_path(path)
            file = _open_direct(path, stream) if part is None else locked.enter_context(_open_part(path, part))

        def write(text: str) -> None:
            with _failures_named(name):
                file.write(text)

        try:
            yield file.buffer if binary else write
            with _failures_named(name):
                file.flush()
                file.close()
                if part is not None:
                    move_into_place(part, link_target(path))
        except BaseException as error:
            with contextlib.suppress(OSError):
                file.close()
            if part is not None and not isinstance(error, KeyboardInterrupt):
                part.unlink(missing_ok=True)
            raise


@contextmanager
def _failures_named(name: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise RunFailure(f"{name}: its reader has gone before the last prediction; the rest is lost") from None
    except (OSError, ValueError) as error:
        raise RunFailure(f"{name}: cannot be written ({getattr(error, 'strerror', None) or error})") from error


@contextmanager
def _open_part(path: Path, part: Path) -> Iterator[TextIO]:
    """Open the file that becomes `path`, locked in the block; it is a UsageError if another process writes it."""
    if path.is_dir():
        raise IsADirectoryError(0, "it is a folder")
    require_portable_name(path)
    part.parent.mkdir(parents=True, exist_ok=True)
    # Neither through a link of that name nor into a pipe, which would wait for a reader.
    without_following = O_NOFOLLOW | O_NONBLOCK
    target = os.open(part, os.O_WRONLY | os.O_CREAT | O_BINARY | without_following, 0o666)
    with os.fdopen(target, "w", **TEXT) as file, lock_path(part) as locked:
        # Before it was locked, the process that wrote it may have renamed it; Windows renames no open file.
        if locked is False or (IS_POSIX and not os.path.samestat(os.fstat(target), part.lstat())):
            raise UsageError(
                f"{shown(str(path), LONGEST_NAME)}: another process is writing it; wait for it, or name another file"
            )
        file.truncate()
        yield file


def _open_direct(path: Path, stream: int | None) -> TextIO:
    """Open a pipe or a device, or a stream of this process a second time, with every row written at once."""
    if stream is None:
        target = os.open(path, os.O_WRONLY | O_BINARY)
    elif stream == 1:
        if sys.stdout is None:
            raise OSError(0, "it is closed")
        sys.stdout.flush()
        try:
            target = os.dup(sys.stdout.fileno())
        except OSError:  # a stream in memory
            return _Unclosed(sys.stdout.buffer, **TEXT)
    else:
        target = os.dup(stream)
    return os.fdopen(target, "w", buffering=1, **TEXT)


class _Unclosed(io.TextIOWrapper):
    """Text on a stream of bytes that stays open."""

    def close(self) -> None:
        with contextlib.suppress(ValueError):
            self.detach()
