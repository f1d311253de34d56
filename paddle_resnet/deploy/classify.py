"""Many picture files classified: folders walked, decoded and answered batch by batch, unreadable ones reported."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from paddle_resnet import runtime
from paddle_resnet.data import EXTENSIONS
from paddle_resnet.deploy.predictor import Prediction, Predictor
from paddle_resnet.errors import UsageError


@dataclass(frozen=True)
class Unreadable:
    """A file or folder that gave no picture, and why, in a line that names it."""

    path: Path
    reason: str


def find_pictures(paths: Iterable[str | Path]) -> Iterator[Path | Unreadable]:
    """Name the picture files: files as they are given, folders walked to their depth in the order of names.

    In a folder what counts is the file's suffix; hidden files are passed over. A folder without any picture
    is `Unreadable`.
    """
    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        empty = True
        for picture in _walk(path):
            empty = False
            yield picture
        if empty:
            yield Unreadable(path, f"{path}: no pictures in this folder; expected {', '.join(EXTENSIONS)}")


def classify_files(
    predictor: Predictor, paths: Iterable[str | Path], top_k: int = 5
) -> Iterator[Prediction | Unreadable]:
    """Answer for each picture of `paths` (files and folders), in order; memory is bounded by the predictor's batch."""
    pictures = find_pictures(paths)
    with ThreadPoolExecutor(runtime.physical_cores()) as workers:
        while batch := list(islice(pictures, predictor.batch_size)):
            decoded = list(workers.map(lambda picture: _decode(predictor, picture), batch))
            names = [
                str(picture) for picture, pixels in zip(batch, decoded, strict=True) if isinstance(pixels, np.ndarray)
            ]
            readable = [pixels for pixels in decoded if isinstance(pixels, np.ndarray)]
            predictions = iter(predictor.rank(predictor.scores(np.stack(readable)), names, top_k) if readable else ())
            for pixels in decoded:
                yield pixels if isinstance(pixels, Unreadable) else next(predictions)


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS:
                yield Path(parent, name)


def _decode(predictor: Predictor, picture: Path | Unreadable) -> np.ndarray | Unreadable:
    if isinstance(picture, Unreadable):
        return picture
    try:
        return predictor.decode(picture)
    except UsageError as error:
        return Unreadable(picture, str(error))
