"""Predictions written as CSV and JSON while they come, so that a folder of any size takes little memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TextIO

from paddle_resnet.deploy.predictor import Prediction
from paddle_resnet.errors import RunFailure


class AnswerFile(Protocol):
    """A file that takes predictions one by one."""

    def add(self, prediction: Prediction) -> None:
        """Write one."""
        ...


@contextmanager
def csv_answers(path: Path, top_k: int) -> Iterator[AnswerFile]:
    """Open a CSV of the columns file, class, probability, class_2, probability_2 ... up to `top_k`.

    The file appears under its name when the block has ended well; until then an earlier one is left as it was.

    Raises:
        RunFailure: it cannot be written.
    """
    with _aside(path) as file:
        yield _CsvAnswers(file, top_k)


@contextmanager
def json_answers(path: Path) -> Iterator[AnswerFile]:
    """Open a JSON list of ``{"file": ..., "top": [{"class": ..., "probability": ...}, ...]}``.

    The file appears under its name when the block has ended well; until then an earlier one is left as it was.

    Raises:
        RunFailure: it cannot be written.
    """
    with _aside(path) as file:
        answers = _JsonAnswers(file)
        yield answers
        answers.end()


class _CsvAnswers:
    def __init__(self, file: TextIO, top_k: int) -> None:
        self._writer = csv.writer(file, lineterminator="\n")
        further = [f"{column}_{rank}" for rank in range(2, top_k + 1) for column in ("class", "probability")]
        self._writer.writerow(["file", "class", "probability", *further])

    def add(self, prediction: Prediction) -> None:
        cells = [cell for label, probability in prediction.top for cell in (label, f"{probability:.6f}")]
        self._writer.writerow([prediction.name, *cells])


class _JsonAnswers:
    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._before = "[\n"

    def add(self, prediction: Prediction) -> None:
        top = [{"class": label, "probability": round(probability, 6)} for label, probability in prediction.top]
        self._file.write(self._before + json.dumps({"file": prediction.name, "top": top}, ensure_ascii=False))
        self._before = ",\n"

    def end(self) -> None:
        self._file.write("[]\n" if self._before == "[\n" else "\n]\n")


@contextmanager
def _aside(path: Path) -> Iterator[TextIO]:
    """Open a file beside `path` for writing and rename it to `path` at the end; a failure leaves `path` alone."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        # Names of files are bytes: those that are not UTF-8 are written back as they were.
        file = temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="")
    except OSError as error:
        raise RunFailure(f"{path}: cannot be written ({error.strerror or error})") from error
    try:
        with file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
