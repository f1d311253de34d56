"""A folder of one's own pictures: a folder a class, already divided or to be divided by ratio."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from paddle_resnet.config import DataConfig
from paddle_resnet.data.datasets.folder_split import FolderPart, FolderSplit
from paddle_resnet.data.splits import Split, hold_out
from paddle_resnet.errors import UsageError, did_you_mean, shown
from paddle_resnet.images import Indices
from paddle_resnet.images.find import EXTENSIONS, PassedOver, is_folder, is_picture, pictures_below

LAYOUT = "<root>/train/<class>/*.jpg with <root>/test/<class>/*.jpg (or val), or <root>/<class>/*.jpg"


@dataclass(frozen=True)
class _Labelled:
    """Picture files, the class of each, int64 ``[N]``, and what else lies there."""

    files: list[Path]
    labels: Indices
    passed_over: list[PassedOver]


def open_image_folder(root: Path, config: DataConfig, resize: int) -> tuple[Split, Split, Split, tuple[str, ...]]:
    """Find the pictures of ``root``; nothing is read yet.

    ``train/<class>/`` with ``test/<class>/`` or ``val/<class>/`` (a single one is the test split; of both,
    val is the validation split), or class folders alone, which are divided by ratio. Classes are train's folders in
    natural order.

    Returns:
        The training, validation and test splits, and the names of the classes.

    Raises:
        UsageError: no pictures, a folder of no class or whose name is not UTF-8, or, where strict, a folder that cannot
            be read; the line names it.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder; data.root is expected to hold {LAYOUT}")
    divided = _has_folders(root / "train")
    train_root = root / "train" if divided else root
    classes = _class_names(train_root)
    train = _labelled(train_root, classes)
    _check_every_class_has_pictures(train, train_root, classes)
    test_root, validation_root = _held_out_folders(root) if divided else (None, None)
    parts = [train, *(_labelled(folder, classes) for folder in (test_root, validation_root) if folder is not None)]
    decoded_bytes = sum(len(part.files) for part in parts) * resize * resize * 3
    in_memory = decoded_bytes <= config.memory_mb * 1_000_000

    def make(part: _Labelled) -> FolderSplit:
        lost = [each for each in part.passed_over if each.is_lost]
        if lost and config.strict:
            raise UsageError(f"{lost[0].reason}{f' (and {len(lost) - 1} more)' * (len(lost) > 1)}")
        return FolderSplit(
            root, part.files, part.labels, resize, config.workers, in_memory, config.strict, part.passed_over
        )

    whole, *apart = [make(part) for part in parts]
    # Drawn from the pictures that can be read, which is known once something is asked of any part.
    fractions = (
        config.test_fraction if test_root is None else None,
        config.validation_fraction if validation_root is None else None,
    )
    divide = partial(_divide, fractions=fractions, seed=config.split_seed)
    divide(train.labels)
    first, test, validation = (FolderPart(whole, partial(_part, divide, number)) for number in range(3))
    return (
        first,
        validation if validation_root is None else apart.pop(),
        test if test_root is None else apart.pop(),
        classes,
    )


def reopen_image_folder(
    root: Path, config: DataConfig, resize: int, parts: Sequence[tuple[Sequence[str], Sequence[int]]]
) -> list[FolderSplit]:
    """Open splits by the names of their files relative to ``root`` and their labels; none may be unreadable."""
    in_memory = sum(len(names) for names, _ in parts) * resize * resize * 3 <= config.memory_mb * 1_000_000
    return [
        FolderSplit(
            root,
            [root / name for name in names],
            np.array(labels, dtype=np.int64),
            resize,
            config.workers,
            in_memory,
            strict=True,
        )
        for names, labels in parts
    ]


def picture_names(root: Path) -> set[str]:
    """The pictures in class folders of ``root`` now, relative to it, whether they can be read or not."""
    divided = [root / part for part in ("train", "test", "val")] if _has_folders(root / "train") else [root]
    folders = [Path(each) for top in divided if top.is_dir() for each in _visible(top) if is_folder(each)]
    return {
        path.relative_to(root).as_posix()
        for folder in folders
        for path in pictures_below(folder)
        if isinstance(path, Path)
    }


def _held_out_folders(root: Path) -> tuple[Path | None, Path | None]:
    """The folders of (test, validation) beside ``train``; each None where pictures must be held out of train."""
    test, validation = root / "test", root / "val"
    if _has_folders(test):
        return test, validation if _has_folders(validation) else None
    return (validation if _has_folders(validation) else None), None


def _class_names(folder: Path) -> tuple[str, ...]:
    names = sorted((entry.name for entry in _visible(folder) if is_folder(entry)), key=natural_order)
    for name in names:
        if not name.isprintable():  # other bytes than UTF-8 could not be written to a checkpoint
            raise UsageError(f"{folder}: the class folder {shown(name)} has a name that is no text in UTF-8; rename it")
    if not names:
        raise UsageError(f"{folder}: holds no class folders; expected {LAYOUT}")
    if len(names) == 1:
        raise UsageError(f'{folder}: holds one class folder only, "{names[0]}"; expected two or more: {LAYOUT}')
    return tuple(names)


def _labelled(folder: Path, classes: tuple[str, ...]) -> _Labelled:
    """All pictures below the class folders of `folder`, in order of class and path."""
    passed_over: list[PassedOver] = []
    for entry in _visible(folder):
        if is_folder(entry) and entry.name not in classes:
            raise UsageError(
                f'{entry.path}: "{entry.name}" is no class of the training folder{did_you_mean(entry.name, classes)}; '
                "rename or remove it, or add pictures of that class to train"
            )
        if not is_folder(entry) and is_picture(entry.name):
            passed_over.append(PassedOver(Path(entry), f"{shown(entry.path, 300)}: lies in no class folder; move it"))
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        below = list(pictures_below(folder / name))
        found = sorted(each for each in below if isinstance(each, Path))
        passed_over += [each for each in below if isinstance(each, PassedOver)]
        files += found
        labels += [label] * len(found)
    if not files:
        raise _no_pictures(folder, passed_over, f"expected {LAYOUT}")
    return _Labelled(files, np.array(labels, dtype=np.int64), passed_over)


def _check_every_class_has_pictures(train: _Labelled, folder: Path, classes: tuple[str, ...]) -> None:
    counts = np.bincount(train.labels, minlength=len(classes))
    for name, count in zip(classes, counts, strict=True):
        if count == 0:
            below = [each for each in train.passed_over if each.path.is_relative_to(folder / name)]
            raise _no_pictures(folder / name, below, "add some, or remove the folder")


def _no_pictures(folder: Path, passed_over: list[PassedOver], advice: str) -> UsageError:
    why = f"; {passed_over[0].reason}" if passed_over else ""
    return UsageError(f"{folder}: no pictures found ({' '.join(EXTENSIONS)}); {advice}{why}")


def _divide(
    labels: Indices, fractions: tuple[float | None, float | None], seed: int
) -> tuple[Indices, Indices, Indices]:
    """Positions for training, test and validation; of these two none where the fraction is None."""
    kept, parts = np.arange(len(labels)), []
    for fraction in fractions:
        if fraction is None:
            parts.append(kept[:0])
            continue
        rest, held = hold_out(labels[kept], fraction, seed)
        parts.append(kept[held])
        kept = kept[rest]
    return kept, *parts  # type: ignore[return-value]


def _part(divide: partial[tuple[Indices, Indices, Indices]], number: int, labels: Indices) -> Indices:
    return divide(labels)[number]


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which ``class10`` follows ``class9``."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def _has_folders(folder: Path) -> bool:
    return folder.is_dir() and any(is_folder(entry) for entry in _visible(folder))


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read ({error.strerror or error})") from error
