"""A folder of the user's own images with one folder for each class, already divided into splits or not."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paddle_resnet.config import DataConfig
from paddle_resnet.data.datasets.folder_split import FolderSplit, ImageFiles
from paddle_resnet.data.splits import hold_out
from paddle_resnet.errors import UsageError, did_you_mean, shown
from paddle_resnet.images import Indices
from paddle_resnet.images.find import EXTENSIONS, SkippedFile, find_image_files, has_image_suffix, is_folder

LAYOUT = "<root>/train/<class>/*.jpg with <root>/test/<class>/*.jpg (or val), or <root>/<class>/*.jpg"


@dataclass(frozen=True)
class _Found:
    """Image files, their classes, int64 ``[N]``, and skipped files beside them."""

    files: list[Path]
    labels: Indices
    skipped: list[SkippedFile]


def open_image_folder(
    root: Path, config: DataConfig, resize: int
) -> tuple[FolderSplit, FolderSplit, FolderSplit, tuple[str, ...]]:
    """Find the images of `root`; nothing is read yet.

    `root` holds ``train/<class>/`` with ``test/<class>/`` or ``val/<class>/`` (one of them alone is the test split; of
    both, val is the validation split), or class folders alone. What is missing is held out of the training images.
    Classes are the training folders in natural order.

    Returns:
        The training, validation and test splits, and the names of the classes.

    Raises:
        UsageError: no images, a folder of no class or whose name is not UTF-8, or, where strict, a folder that cannot
            be read; the line names it.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder; data.root is expected to hold {LAYOUT}")
    divided = _has_folders(root / "train")
    train_root = root / "train" if divided else root
    classes = _class_names(train_root)
    train = _find_labelled(train_root, classes)
    _check_every_class_has_images(train, train_root, classes)
    folders = _held_out_folders(root) if divided else {}
    held_out = {name: _find_labelled(folder, classes) for name, folder in folders.items()}
    for part in (train, *held_out.values()):
        lost = [each for each in part.skipped if each.may_hold_images]
        if lost and config.strict:
            raise UsageError(f"{lost[0].reason}{f' (and {len(lost) - 1} more)' * (len(lost) > 1)}")
    whole, *others = _open_files(root, [train, *held_out.values()], config, resize, config.strict)
    splits = {name: FolderSplit(images) for name, images in zip(held_out, others, strict=True)}
    shares = {"test": config.test_fraction, "validation": config.validation_fraction}
    shares = {name: fraction for name, fraction in shares.items() if name not in splits}
    _divide(train.labels, shares, config.split_seed)  # the same errors at once

    def held_out_of_train(name: str) -> FolderSplit:
        # Divide the readable images, which are known at the first access.
        return FolderSplit(whole, lambda labels: _divide(labels, shares, config.split_seed)[name])

    for name in ("train", *shares):
        splits[name] = held_out_of_train(name)
    return splits["train"], splits["validation"], splits["test"], classes


def reopen_image_folder(
    root: Path, config: DataConfig, resize: int, parts: Sequence[tuple[Sequence[str], Sequence[int]]]
) -> list[FolderSplit]:
    """Open splits from the names of their files relative to `root` and their labels; none may be unreadable."""
    found = [_Found([root / name for name in names], np.array(labels, dtype=np.int64), []) for names, labels in parts]
    return [FolderSplit(images) for images in _open_files(root, found, config, resize, strict=True)]


def image_names(root: Path) -> set[str]:
    """Return the names of all files in the class folders of `root`, relative to it, readable or not."""
    parts = [root / part for part in ("train", "test", "val")] if _has_folders(root / "train") else [root]
    folders = [Path(each) for top in parts if top.is_dir() for each in _visible(top) if is_folder(each)]
    return {
        path.relative_to(root).as_posix()
        for folder in folders
        for path in find_image_files(folder)
        if isinstance(path, Path)
    }


def _open_files(root: Path, parts: Sequence[_Found], config: DataConfig, resize: int, strict: bool) -> list[ImageFiles]:
    """Keep the decoded images in memory if those of all parts fit."""
    count = sum(len(part.files) for part in parts)
    in_memory = count * resize * resize * 3 <= config.memory_mb * 1_000_000
    return [
        ImageFiles(root, part.files, part.labels, resize, config.workers, in_memory, strict, part.skipped)
        for part in parts
    ]


def _held_out_folders(root: Path) -> dict[str, Path]:
    """Return the folders beside ``train`` by split."""
    test, validation = root / "test", root / "val"
    if not _has_folders(test):
        return {"test": validation} if _has_folders(validation) else {}
    return {"test": test, "validation": validation} if _has_folders(validation) else {"test": test}


def _class_names(folder: Path) -> tuple[str, ...]:
    names = sorted((entry.name for entry in _visible(folder) if is_folder(entry)), key=natural_sort_key)
    for name in names:
        if not name.isprintable():  # a checkpoint cannot hold bytes that are not UTF-8
            raise UsageError(f"{folder}: the class folder {shown(name)} has a name that is not UTF-8 text; rename it")
    if not names:
        raise UsageError(f"{folder}: holds no class folders; expected {LAYOUT}")
    if len(names) == 1:
        raise UsageError(f'{folder}: holds one class folder only, "{names[0]}"; expected two or more: {LAYOUT}')
    return tuple(names)


def _find_labelled(folder: Path, classes: tuple[str, ...]) -> _Found:
    """Return all images below the class folders of `folder`, in order of class and path."""
    skipped: list[SkippedFile] = []
    for entry in _visible(folder):
        if is_folder(entry) and entry.name not in classes:
            raise UsageError(
                f'{entry.path}: "{entry.name}" is no class of the training folder{did_you_mean(entry.name, classes)}; '
                "rename or remove it, or add images of that class to train"
            )
        if not is_folder(entry) and has_image_suffix(entry.name):
            skipped.append(SkippedFile(Path(entry), f"{shown(entry.path, 300)}: is in no class folder; move it"))
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        below = list(find_image_files(folder / name))
        found = sorted(each for each in below if isinstance(each, Path))
        skipped += [each for each in below if isinstance(each, SkippedFile)]
        files += found
        labels += [label] * len(found)
    if not files:
        raise _no_images(folder, skipped, f"expected {LAYOUT}")
    return _Found(files, np.array(labels, dtype=np.int64), skipped)


def _check_every_class_has_images(train: _Found, folder: Path, classes: tuple[str, ...]) -> None:
    counts = np.bincount(train.labels, minlength=len(classes))
    for name, count in zip(classes, counts, strict=True):
        if count == 0:
            below = [each for each in train.skipped if each.path.is_relative_to(folder / name)]
            raise _no_images(folder / name, below, "add some, or remove the folder")


def _no_images(folder: Path, skipped: list[SkippedFile], advice: str) -> UsageError:
    why = f"; {skipped[0].reason}" if skipped else ""
    return UsageError(f"{folder}: no images found ({' '.join(EXTENSIONS)}); {advice}{why}")


def _divide(labels: Indices, shares: Mapping[str, float], seed: int) -> dict[str, Indices]:
    """Hold out each share in turn of what is left; return the positions of ``"train"`` and of each share."""
    kept, parts = np.arange(len(labels)), {}
    for name, fraction in shares.items():
        rest, held = hold_out(labels[kept], fraction, seed)
        parts[name] = kept[held]
        kept = kept[rest]
    return {"train": kept, **parts}


def natural_sort_key(name: str) -> list[tuple[int, int, str]]:
    """Return the sort key under which ``class10`` follows ``class9``."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def _has_folders(folder: Path) -> bool:
    return folder.is_dir() and any(is_folder(entry) for entry in _visible(folder))


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read ({error.strerror or error})") from error
