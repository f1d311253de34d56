"""From files with their labels to three splits, the same way for folders, lists and names of files."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from paddle_resnet.config import DataConfig
from paddle_resnet.console import logger
from paddle_resnet.data.datasets import image_folder
from paddle_resnet.data.datasets.file_split import MAX_EXAMINED, FileSplit, ImageFiles
from paddle_resnet.data.datasets.found_files import FoundFiles, class_name, natural_sort_key, some_of, split_of
from paddle_resnet.data.datasets.image_list import find_image_list, name_classes
from paddle_resnet.data.datasets.image_shards import find_image_shards
from paddle_resnet.data.splits import hold_out, within_limit
from paddle_resnet.errors import UsageError, counted, did_you_mean, shown
from paddle_resnet.images import Indices
from paddle_resnet.images.find import SkippedFile

USUAL_LENGTH = 4 / 3  # the longer side of a photograph, in units of the shorter one
FILE_SOURCES = ("image_folder", "image_list", "image_names", "image_shards")


def files_root(config: DataConfig) -> Path:
    """Return the folder that the files' names are relative to."""
    root = config.root or (config.train_list.parent if config.train_list is not None else None)
    assert root is not None  # checked by DataConfig
    return root


def find_files(config: DataConfig) -> FoundFiles:
    """Find the files of a source, those within ``data.limit``, and the class of each, without reading an image.

    Raises:
        UsageError: there are none, or their layout is not the source's; the line says what was expected.
    """
    root = files_root(config)
    if config.source == "image_list":
        found = find_image_list(root, config)
    elif config.source == "image_shards":
        found = find_image_shards(root, config)
    elif config.source == "image_folder":
        found = image_folder.find_image_folder(root)
    else:
        assert config.pattern is not None  # checked by DataConfig
        found = image_folder.find_image_names(root, re.compile(config.pattern))
    if config.limit is not None:
        found.classes = class_names(found)
        for part in found.parts.values():
            some = within_limit(part.labels, config.limit)
            part.names, part.labels = ([each[index] for index in some] for each in (part.names, part.labels))
    return found


def class_names(found: FoundFiles) -> tuple[str, ...]:
    """Return the names of the classes in order."""
    return found.classes or tuple(sorted(set(found.parts["train"].labels), key=natural_sort_key))


def open_files(config: DataConfig, resize: int) -> tuple[FileSplit, FileSplit, FileSplit, tuple[str, ...]]:
    """Find the files of a source and divide them; nothing is read yet.

    What the source does not divide itself is held out of the training images by ratio. If it has a validation but no
    test split, the validation images are the test split too.

    Returns:
        The training, validation and test splits, and the names of the classes.

    Raises:
        UsageError: as `find_files`; fewer than two classes, an unknown class or a name that is not UTF-8 text; or,
            where strict, an image that would be left out.
    """
    found = find_files(config)
    classes = class_names(found)
    _check_classes(found, classes)
    lost = [each.reason for part in found.parts.values() for each in part.skipped if each.may_hold_images]
    if config.strict and lost:
        raise UsageError(f"{lost[0]}{f' (and {len(lost) - 1} more)' * (len(lost) > 1)}")
    number = {name: label for label, name in enumerate(classes)}
    labels = [np.array([number[label] for label in part.labels], dtype=np.int64) for part in found.parts.values()]
    entries = [(part.names, own, part.skipped) for part, own in zip(found.parts.values(), labels, strict=True)]
    tables = dict(zip(found.parts, _tables(found.root, entries, config, resize), strict=True))
    splits: dict[str, FileSplit] = {split: FileSplit(table) for split, table in tables.items() if split != "train"}
    _log_division(found)
    if "validation" in splits:
        splits.setdefault("test", splits["validation"])
    shares = {"test": config.test_fraction, "validation": config.validation_fraction}
    shares = {split: fraction for split, fraction in shares.items() if split not in splits}
    _divide(labels[0], shares, config.split_seed)  # the same errors at once

    @functools.cache
    def divided() -> dict[str, Indices]:
        # The readable images, which are known at the first access.
        return _divide(tables["train"].labels(), shares, config.split_seed)

    def of_train(split: str) -> FileSplit:
        return FileSplit(tables["train"], lambda _: divided()[split])

    for split in ("train", *shares):
        splits[split] = of_train(split)
    return splits["train"], splits["validation"], splits["test"], classes


def reopen_files(
    root: Path, config: DataConfig, resize: int, parts: Sequence[tuple[Sequence[str], Sequence[int]]], examined: bool
) -> list[FileSplit]:
    """Open splits from the names of their files relative to `root` and their labels.

    Splits of the same files are one split. If the files were `examined` before training, none may be unreadable.
    """
    distinct = [part for number, part in enumerate(parts) if part not in parts[:number]]
    entries = [(names, np.array(labels, dtype=np.int64), ()) for names, labels in distinct]
    config = config.model_copy(update={"strict": config.strict or examined})
    opened = [FileSplit(table) for table in _tables(root, entries, config, resize)]
    return [opened[distinct.index(part)] for part in parts]


def open_labelled(path: Path, config: DataConfig, resize: int, classes: Sequence[str]) -> FileSplit:
    """Open pictures of known classes, all or some of them.

    Args:
        path: a folder of class folders (or, with the source image_names, of files whose names match its pattern), or a
            list of paths, relative to the list's folder or absolute, with names or numbers of classes.
        config: of the data that a network was trained on.
        resize: pixels of the shorter side.
        classes: in the order of the labels.

    Raises:
        UsageError: there is no picture, one that cannot be read where strict, or a class is unknown.
    """
    if not path.exists():
        raise UsageError(f"{shown(str(path), 300)}: no such folder or list of pictures")
    root = path if path.is_dir() else Path(path.anchor)
    if not path.is_dir():
        lists = {"train_list": path, "validation_list": None, "test_list": None, "class_names": None}
        found = find_image_list(root, config.model_copy(update=lists))
        part = found.parts["train"]
        if found.classes is None:
            name_classes([part], dict(enumerate(classes)), "the run")
    elif config.source == "image_names" and config.pattern is not None:
        part = image_folder.files_with_class(root, root, re.compile(config.pattern))
    else:
        part = image_folder.files_in_classes(root, root)
    number = {class_name(name): label for label, name in enumerate(classes)}
    part.labels = list(map(class_name, part.labels))
    for label in dict.fromkeys(part.labels):
        if label not in number:
            advice = f"; did you mean {path / label}?" if split_of(label) else did_you_mean(label, classes)
            raise UsageError(
                f'{shown(str(path), 300)}: "{shown(label)}" is none of the {len(classes)} classes of the run{advice}'
            )
    labels = np.array([number[label] for label in part.labels], dtype=np.int64)
    config = config.model_copy(update={"source": "image_folder"})
    return FileSplit(_tables(root, [(part.names, labels, part.skipped)], config, resize)[0])


def _tables(
    root: Path, entries: Sequence[tuple[Sequence[str], Indices, Sequence[SkippedFile]]], config: DataConfig, resize: int
) -> list[ImageFiles]:
    """Make a table of each split; keep the decoded images in memory if those of all splits fit."""
    count = sum(len(names) for names, _, _ in entries)
    in_memory = count * resize * resize * 3 * USUAL_LENGTH <= config.memory_mb * 1_000_000
    examine, in_shards = config.check or count <= MAX_EXAMINED, config.source == "image_shards"
    options = resize, config.worker_count, in_memory, config.strict, examine
    return [ImageFiles(root, names, labels, *options, skipped, in_shards) for names, labels, skipped in entries]


def _check_classes(found: FoundFiles, classes: tuple[str, ...]) -> None:
    train = found.parts["train"]
    known = set(classes)
    for name in classes:
        if not name.isprintable():  # a checkpoint cannot hold bytes that are not UTF-8
            raise UsageError(f"{train.where}: the class {shown(name)} is not printable UTF-8 text; rename it")
    if len(classes) < 2 or not train.names:
        reason = f"; {train.skipped[0].reason}" if train.skipped else ""
        why = f'one class only, "{shown(classes[0])}"' if train.names else "no image with a class"
        raise UsageError(f"{train.where}: holds {why}; expected two classes or more{reason}")
    for part in found.parts.values():
        for label in dict.fromkeys(part.labels):
            if label not in known:
                first = shown(str(found.root / part.names[part.labels.index(label)]), 300)
                raise UsageError(
                    f'{first}: "{shown(label)}" is no class of the training images{did_you_mean(label, classes)}; '
                    "rename or remove it, or add images of that class to train"
                )


def _log_division(found: FoundFiles) -> None:
    """Say which splits are held out or missing, and what is not used."""
    if found.unused:
        logger.info("%s: not used: %s", found.root, some_of(found.unused))
    for part in found.parts.values():
        if part.repeated:
            logger.info("%s: %s named twice, used once", part.where, counted(part.repeated, "file"))
    if "validation" in found.parts and "test" not in found.parts:
        logger.warning(
            "warning: %s: there is no test split: the test is measured on the validation images, which also choose the "
            "best epoch; for both, add a test split, or name this one test: validation is then held out of train",
            found.root,
        )


def _divide(labels: Indices, shares: Mapping[str, float], seed: int) -> dict[str, Indices]:
    """Hold out each share in turn of what is left; return the positions of ``"train"`` and of each share."""
    kept: Indices = np.arange(len(labels))
    parts: dict[str, Indices] = {}
    for name, fraction in shares.items():
        rest, held = hold_out(labels[kept], fraction, seed)
        parts[name] = kept[held]
        kept = kept[rest]
    return {"train": kept, **parts}
