"""Folders of the user's own images: a folder for each class, or the class in each file's name."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from paddle_resnet.console import logger
from paddle_resnet.data.datasets.found_files import (
    FoundFiles,
    LabelledFiles,
    by_split,
    class_name,
    is_list,
    natural_sort_key,
    some_of,
    split_of,
    visible,
)
from paddle_resnet.errors import UsageError, counted, printable, shown
from paddle_resnet.images.find import EXTENSIONS, SkippedFile, find_image_files, has_image_suffix, is_folder

LAYOUT = "<root>/train/<class>/*.jpg with <root>/test/<class>/*.jpg (or val), or <root>/<class>/*.jpg"


def find_image_folder(root: Path) -> FoundFiles:
    """Find images as ``<root>/<split>/<class>/*`` or ``<root>/<class>/*``.

    Classes are the folders of the training split in natural order.

    Raises:
        UsageError: no folder, no class folders, one without training images, or one whose name is not UTF-8 text.
    """
    folders = _folders(root, LAYOUT)
    flat = [name for name in folders if split_of(name) and not _has_folders(root / name)]
    splits = by_split(root, [name for name in folders if split_of(name) and name not in flat])
    if folders and not splits and len(flat) == len(folders):
        raise _no_class_folders(root / by_split(root, flat)["train"], root)
    if not splits and len(flat) > 1:  # one alone may be a class: train, of trains
        logger.warning("warning: %s: %s hold no class folders and are taken for classes", root, some_of(flat))
    splits = {split: _undoubled(root, name) for split, name in splits.items()}
    train = root / splits.get("train", "")
    folders_of_classes = _class_folders(train)
    parts = {split: files_in_classes(root, root / name) for split, name in (splits or {"train": ""}).items()}
    trained = set(parts["train"].labels)
    for name in folders_of_classes:
        if class_name(name) not in trained:
            below = [each for each in parts["train"].skipped if each.path.is_relative_to(train / name)]
            raise _no_images(train / name, below, "add some, or remove the folder")
    beside = _beside(root, splits.values()) if splits else []
    unused = [f"{name} (no class folders in it)" if name in flat else name for name in beside]
    classes = tuple(dict.fromkeys(map(class_name, folders_of_classes)))
    return FoundFiles(root, parts, classes, unused)


def find_image_names(root: Path, pattern: re.Pattern[str]) -> FoundFiles:
    """Find images whose own names tell the class: the group ``class`` of `pattern`, which may match anywhere in a name.

    They lie at any depth of ``<root>/<split>/``, or of `root`. Classes are those of the training split, in natural
    order. A folder named for another split in which no name matches is not used.

    Raises:
        UsageError: no folder, or no training image whose name matches.
    """
    folders = _folders(root, f"images whose names match {pattern.pattern}")
    splits = by_split(root, filter(split_of, folders))
    if not splits:
        return FoundFiles(root, {"train": files_with_class(root, root, pattern)})
    parts = {split: files_with_class(root, root / name, pattern) for split, name in splits.items()}
    unused = _beside(root, splits.values())
    for split, name in splits.items():
        if not parts[split].names and split != "train":
            unused.insert(0, f"{name} (no name in it matches data.pattern)")
            del parts[split]
    return FoundFiles(root, parts, None, unused)


def _folders(root: Path, layout: str) -> list[str]:
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder; data.root is expected to hold {layout}")
    return [entry.name for entry in visible(root) if is_folder(entry)]


def _beside(root: Path, used: Iterable[str]) -> list[str]:
    used = {name.partition("/")[0] for name in used}
    return [entry.name for entry in visible(root) if entry.name not in used]


def _undoubled(root: Path, name: str) -> str:
    """Return the split ``train/train`` for ``train`` if that folder alone is in it, as some archives unpack."""
    inside = [entry for entry in visible(root / name) if is_folder(entry)]
    doubled = len(inside) == 1 and inside[0].name == name and _has_folders(root / name / name)
    return f"{name}/{name}" if doubled else name


def _has_folders(folder: Path) -> bool:
    return any(is_folder(entry) for entry in visible(folder))


def _class_folders(folder: Path) -> tuple[str, ...]:
    names = sorted((entry.name for entry in visible(folder) if is_folder(entry)), key=natural_sort_key)
    for name in names:
        if not name.isprintable():  # a checkpoint cannot hold bytes that are not UTF-8
            raise UsageError(
                f"{folder}: the class folder {shown(name)} has a name that is not printable UTF-8 text; rename it"
            )
    if not names:
        raise UsageError(f"{folder}: holds no class folders; expected {LAYOUT}{_other_source(folder)}")
    if len(names) > 1 and all(split_of(name) and _has_folders(folder / name) for name in names):
        hint = f"did you mean data.root={printable(str(folder))}?"
        raise UsageError(f"{folder}: holds splits ({', '.join(names)}), no classes; expected {LAYOUT}; {hint}")
    if len(names) == 1:
        inner = folder / names[0]
        hint = f"; did you mean data.root={printable(str(inner))}?" if _has_folders(inner) else _other_source(folder)
        if split_of(names[0]) and not hint:
            raise _no_class_folders(inner, folder)
        raise UsageError(f'{folder}: holds one class folder only, "{names[0]}"; expected two or more: {LAYOUT}{hint}')
    return tuple(names)


def _no_class_folders(split: Path, root: Path) -> UsageError:
    pictures = "pictures but " if any(has_image_suffix(entry.name) for entry in visible(split)) else ""
    return UsageError(
        f"{split}: holds {pictures}no class folders: data.source image_names (classes in the files' names) or "
        f"image_list (a list of labels) reads such folders; expected {LAYOUT}{_other_source(split, root)}"
    )


def _other_source(folder: Path, lists: Path | None = None) -> str:
    """Return a hint if the labels seem to be in lists or archives beside the images, or in the images' names."""
    files, beside = (
        [entry.name for entry in visible(each) if not is_folder(entry)] for each in (folder, lists or folder)
    )
    if any(is_list(name) and (split_of(Path(name).stem) == "train" or name.lower().endswith("sv")) for name in beside):
        return "; or set data.source=image_list for the list there"
    if any(name.endswith(".tar") for name in beside):
        return "; or set data.source=image_shards for the archives there"
    return "; or set data.source=image_names for classes in names" if any(map(has_image_suffix, files)) else ""


def files_in_classes(root: Path, folder: Path) -> LabelledFiles:
    """Return the images below each class folder of `folder`, in order of class and path."""
    part = LabelledFiles(folder)
    for entry in visible(folder):
        if not is_folder(entry) and has_image_suffix(entry.name):
            reason = f"{shown(entry.path, 300)}: is in no class folder; move it"
            part.skipped.append(SkippedFile(Path(entry), reason))
        elif entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110 (Path's raises for a link to itself)
            reason = f"{shown(entry.path, 300)}: is a link to nothing; mend or remove it"
            part.skipped.append(SkippedFile(Path(entry), reason))
    named = [entry.name for entry in visible(folder) if is_folder(entry)]
    for name in sorted(named, key=natural_sort_key):
        names, skipped = _images_below(root, folder / name)
        part.names += names
        part.labels += [class_name(name)] * len(names)
        part.skipped += skipped
    depth = len(folder.relative_to(root).parts) + 2
    if deeper := [name for name in part.names if name.count("/") >= depth]:
        images = counted(len(deeper), "image")
        logger.info(f"{folder}: subfolders of a class hold {images} of that class, e.g. {shown(deeper[0], 300)}")
    if not part.names:
        raise _no_images(folder, part.skipped, f"expected {LAYOUT}")
    return part


def files_with_class(root: Path, folder: Path, pattern: re.Pattern[str]) -> LabelledFiles:
    """Return the images below `folder` whose names match, in order of their paths."""
    names, skipped = _images_below(root, folder)
    part = LabelledFiles(folder, skipped=skipped)
    for name in names:
        match = pattern.search(name.rpartition("/")[2])
        if match is None or not match["class"]:
            path = root / name
            part.skipped.append(SkippedFile(path, f"{shown(str(path), 300)}: its name does not match data.pattern"))
            continue
        part.names.append(name)
        part.labels.append(sys.intern(class_name(match["class"])))
    return part


def _images_below(root: Path, folder: Path) -> tuple[list[str], list[SkippedFile]]:
    """Return the images at any depth, relative to `root` in order of their paths, and what was skipped."""
    skipped: list[SkippedFile] = []
    names: list[str] = []
    start = len(str(root / "x")) - 1
    for each in find_image_files(folder):
        if isinstance(each, SkippedFile):
            skipped.append(each)
        else:
            names.append(str(each)[start:].replace(os.sep, "/"))
    return sorted(names, key=lambda name: name.split("/")), skipped


def _no_images(folder: Path, skipped: list[SkippedFile], advice: str) -> UsageError:
    if skipped and skipped[0].path == folder:
        return UsageError(f"{skipped[0].reason}; allow reading it, or remove it")
    why = f"; {skipped[0].reason}" if skipped else ""
    return UsageError(f"{folder}: no images found ({' '.join(EXTENSIONS)}); {advice}{why}")
