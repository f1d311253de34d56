"""Predictions written as CSV, JSON and JSON lines while they come, so that a folder of any size takes little memory.

A file appears under its name when its block has ended well; until then an earlier one is left as it was. What was
answered before Ctrl-C is kept beside it, as ``<name>.part``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

from paddle_resnet.deploy.answer_columns import Column
from paddle_resnet.deploy.predictor import Prediction
from paddle_resnet.errors import RunFailure


class AnswerFile(Protocol):
    """A file that takes predictions one by one."""

    def add(self, prediction: Prediction) -> None:
        """Write one."""
        ...


@contextmanager
def csv_answers(path: Path, columns: Sequence[Column]) -> Iterator[AnswerFile]:
    """Open a CSV with a header and a row for each prediction.

    Raises:
        RunFailure: it cannot be written.
    """
    with _aside(path) as file:
        yield _CsvAnswers(file, columns)


@contextmanager
def json_answers(path: Path, top_k: int) -> Iterator[AnswerFile]:
    """Open a JSON list of ``{"file": ..., "top": [{"class": ..., "probability": ...}, ...]}``, the best `top_k`.

    Raises:
        RunFailure: it cannot be written.
    """
    with _aside(path) as file:
        answers = _JsonAnswers(file, top_k)
        yield answers
        answers.end()


@contextmanager
def json_lines_answers(path: Path, top_k: int) -> Iterator[AnswerFile]:
    """Open a file of such objects, one on each line, which a program can read without holding all of them.

    Raises:
        RunFailure: it cannot be written.
    """
    with _aside(path) as file:
        yield _JsonLines(file, top_k)


def part_of(path: Path) -> Path:
    """Where the answers for `path` stand until they are complete."""
    return path.with_name(f"{path.name}.part")


class _CsvAnswers:
    def __init__(self, file: TextIO, columns: Sequence[Column]) -> None:
        self._writer = csv.writer(file, lineterminator="\n")
        self._columns = columns
        self._writer.writerow([column.title for column in columns])

    def add(self, prediction: Prediction) -> None:
        self._writer.writerow([column.cell(prediction) for column in self._columns])


class _JsonAnswers:
    def __init__(self, file: TextIO, top_k: int) -> None:
        self._file = file
        self._top_k = top_k
        self._before = "[\n"

    def add(self, prediction: Prediction) -> None:
        self._file.write(self._before + _as_json(prediction, self._top_k))
        self._before = ",\n"

    def end(self) -> None:
        self._file.write("[]\n" if self._before == "[\n" else "\n]\n")


class _JsonLines:
    def __init__(self, file: TextIO, top_k: int) -> None:
        self._file = file
        self._top_k = top_k

    def add(self, prediction: Prediction) -> None:
        self._file.write(_as_json(prediction, self._top_k) + "\n")


def _as_json(prediction: Prediction, top_k: int) -> str:
    best: list[dict[str, Any]] = [
        {"class": label, "probability": round(probability, 6)} for label, probability in prediction.top[:top_k]
    ]
    return json.dumps({"file": prediction.name, "top": best}, ensure_ascii=False)


@contextmanager
def _aside(path: Path) -> Iterator[TextIO]:
    """Open ``<name>.part`` for writing and rename it to `path` at the end; a failure leaves `path` alone."""
    part = part_of(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        # Names of files are bytes: those that are not UTF-8 are written back as they were.
        file = part.open("w", encoding="utf-8", errors="surrogateescape", newline="")
    except OSError as error:
        raise RunFailure(f"{path}: cannot be written ({error.strerror or error})") from error
    try:
        with file:
            yield file
        part.replace(path)
    except KeyboardInterrupt:
        raise
    except BaseException:
        part.unlink(missing_ok=True)
        raise
