"""Predictions as files beside the pictures: copies sorted by class, drawings, and the features of all."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from paddle_resnet.errors import UsageError, shown
from paddle_resnet.files import require_writable_file, shortened_name, write_atomically, write_errors
from paddle_resnet.images.image_file import read_file
from paddle_resnet.inference.prediction_files import PredictionWriter
from paddle_resnet.inference.predictor import UNKNOWN, Prediction
from paddle_resnet.paths import require_name_for_folder
from paddle_resnet.system.portable import portable_name, replace

JPEG_QUALITY = 92
DIGITS = 12  # of the SHA-256 of a file's content, in the name of one that another file had first


def folder_names(classes: Sequence[str]) -> dict[str, str]:
    """Return a portable name of a folder or file for each class and `UNKNOWN`; those alike in it get a ``_``."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for label in dict.fromkeys((*classes, UNKNOWN)):
        name = portable_name(label)
        while name.casefold() in taken:
            name += "_"
        taken.add(name.casefold())
        names[label] = name
    return names


def sort_pictures(folder: Path, classes: Sequence[str]) -> PredictionWriter:
    """Return what copies each picture into ``folder/<class>/``, see `_put`; the originals stay."""
    require_name_for_folder(folder)
    names = folder_names(classes)

    def write(predictions: Iterable[Prediction]) -> None:
        for prediction in predictions:
            source = Path(prediction.name)
            try:
                data = read_file(source)
            except OSError as error:
                raise UsageError(f"{shown(prediction.name, 300)}: cannot be read again ({error.strerror})") from error
            _put(folder / names[prediction.label] / source.name, data)

    return write


def draw_pictures(folder: Path, draw: Callable[[Prediction], Image.Image]) -> PredictionWriter:
    """Return what writes a drawing of each picture to ``folder/<name>.jpg``, see `_put`."""
    require_name_for_folder(folder)

    def write(predictions: Iterable[Prediction]) -> None:
        for prediction in predictions:
            file = io.BytesIO()
            draw(prediction).save(file, "JPEG", quality=JPEG_QUALITY)
            _put(folder / f"{Path(prediction.name).stem}.jpg", file.getvalue())

    return write


@contextmanager
def open_embeddings(path: Path, features: Callable[[list[Prediction]], np.ndarray]) -> Iterator[PredictionWriter]:
    """Collect ``features`` (float32 ``[N, F]``), ``names`` and predicted ``classes``, and write them as ``.npz``.

    That it can be written is checked at the beginning, see `require_writable_file`.
    """
    require_writable_file(path)
    parts: list[np.ndarray] = []
    pictures: list[Prediction] = []

    def write(predictions: Iterable[Prediction]) -> None:
        if batch := list(predictions):
            parts.append(features(batch))
            pictures.extend(batch)

    yield write
    if pictures:
        names, classes = [each.name for each in pictures], [each.label for each in pictures]

        def save(temporary: Path) -> None:
            with temporary.open("wb") as file:  # a name without .npz stays as it is
                np.savez(file, features=np.concatenate(parts), names=np.array(names), classes=np.array(classes))

        write_atomically(path, save)


def _put(path: Path, data: bytes) -> None:
    """Write a new file, ``1.jpg``, or ``1_<checksum>.jpg`` if another file has that name; the same one is kept."""
    with write_errors(shown(str(path), 300)):
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path):
            if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
                return
            ending = f"_{hashlib.sha256(data).hexdigest()[:DIGITS]}{path.suffix}"
            path = path.with_name(shortened_name(path.stem, more=len(os.fsencode(ending))) + ending)
            if os.path.lexists(path):
                return
        part = path.parent / f".{os.getpid()}.part"
        try:
            part.write_bytes(data)
            replace(part, path)
        finally:
            part.unlink(missing_ok=True)
