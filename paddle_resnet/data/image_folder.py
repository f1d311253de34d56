"""A folder of one's own pictures: a folder a class, already divided or to be divided by ratio."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from paddle_resnet.config import DataConfig
from paddle_resnet.data.folder_split import FolderSplit
from paddle_resnet.data.splits import Indices, hold_out
from paddle_resnet.data.walk import EXTENSIONS, pictures_below
from paddle_resnet.errors import UsageError, did_you_mean

LAYOUT = "<root>/train/<class>/*.jpg with <root>/test/<class>/*.jpg (or val), or <root>/<class>/*.jpg"

Labelled = tuple[list[Path], Indices]


def open_image_folder(
    root: Path, config: DataConfig, resize: int
) -> tuple[FolderSplit, FolderSplit, FolderSplit, tuple[str, ...]]:
    """Find the pictures of ``root``; nothing is read yet.

    ``train/<class>/`` with ``test/<class>/`` or ``val/<class>/`` (a single one is the test split; of both,
    val is the validation split), or class folders alone, which are divided by ratio. Classes are train's folders in
    natural order.

    Returns:
        The training, validation and test splits, and the names of the classes.

    Raises:
        UsageError: no pictures, or a folder of no class; the line names it and the layout.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder; data.root is expected to hold {LAYOUT}")
    divided = _has_folders(root / "train")
    train_root = root / "train" if divided else root
    classes = _class_names(train_root)
    train = _labelled(train_root, classes)
    _check_every_class_has_pictures(train, train_root, classes)
    test_root, validation_root = _held_out_folders(root) if divided else (None, None)
    if test_root is not None:
        test = _labelled(test_root, classes)
    else:
        train, test = _divide(train, config.test_fraction, config.split_seed)
    if validation_root is not None:
        validation = _labelled(validation_root, classes)
    else:
        train, validation = _divide(train, config.validation_fraction, config.split_seed)

    parts = (train, validation, test)
    decoded_bytes = sum(len(files) for files, _ in parts) * resize * resize * 3
    in_memory = decoded_bytes <= config.memory_mb * 1_000_000
    first, second, third = (
        FolderSplit(root, files, labels, resize, config.workers, in_memory, config.strict) for files, labels in parts
    )
    return first, second, third, classes


def _held_out_folders(root: Path) -> tuple[Path | None, Path | None]:
    """The folders of (test, validation) beside ``train``; each None where pictures must be held out of train."""
    test, validation = root / "test", root / "val"
    if _has_folders(test):
        return test, validation if _has_folders(validation) else None
    return (validation if _has_folders(validation) else None), None


def _class_names(folder: Path) -> tuple[str, ...]:
    names = sorted((entry.name for entry in _visible(folder) if entry.is_dir()), key=natural_order)
    if not names:
        raise UsageError(f"{folder}: holds no class folders; expected {LAYOUT}")
    if len(names) == 1:
        raise UsageError(f'{folder}: holds one class folder only, "{names[0]}"; expected two or more: {LAYOUT}')
    return tuple(names)


def _labelled(folder: Path, classes: tuple[str, ...]) -> Labelled:
    """All pictures below the class folders of `folder`, in order of class and path."""
    for entry in _visible(folder):
        if entry.is_dir() and entry.name not in classes:
            raise UsageError(
                f'{entry.path}: "{entry.name}" is no class of the training folder{did_you_mean(entry.name, classes)}; '
                "rename or remove it, or add pictures of that class to train"
            )
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(pictures_below(folder / name))
        files += found
        labels += [label] * len(found)
    if not files:
        raise UsageError(f"{folder}: no pictures found ({' '.join(EXTENSIONS)}); expected {LAYOUT}")
    return files, np.array(labels, dtype=np.int64)


def _check_every_class_has_pictures(train: Labelled, folder: Path, classes: tuple[str, ...]) -> None:
    counts = np.bincount(train[1], minlength=len(classes))
    for name, count in zip(classes, counts, strict=True):
        if count == 0:
            raise UsageError(
                f"{folder / name}: no pictures found ({' '.join(EXTENSIONS)}); add some, or remove the folder"
            )


def _divide(part: Labelled, fraction: float, seed: int) -> tuple[Labelled, Labelled]:
    files, labels = part
    kept, held = hold_out(labels, fraction, seed)
    return ([files[index] for index in kept], labels[kept]), ([files[index] for index in held], labels[held])


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which ``class10`` follows ``class9``."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def _has_folders(folder: Path) -> bool:
    return folder.is_dir() and any(entry.is_dir() for entry in _visible(folder))


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read ({error.strerror or error})") from error
