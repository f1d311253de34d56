"""What every source of image files gives: files, the class of each, and the splits that they are named for."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from paddle_resnet.config.value_types import SPLIT_NAMES, SplitName
from paddle_resnet.errors import UsageError, printable, shown
from paddle_resnet.images.find import SkippedFile, is_hidden

SPLIT_WORDS: dict[str, SplitName] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_SPLIT_NAME = re.compile(rf"(?:.*[_-])?({'|'.join(SPLIT_WORDS)})(?:[_-](?:set|data|images|list))?", re.IGNORECASE)
LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".lst")
NAMES_SHOWN = 5


@dataclass
class LabelledFiles:
    """The image files of one folder or list."""

    where: Path  # the folder or list, for messages
    names: list[str] = field(default_factory=list)  # the files relative to the root of all splits, one string each
    labels: list[str] = field(default_factory=list)  # the name of each file's class; files of a class share one string
    skipped: list[SkippedFile] = field(default_factory=list)  # other files and folders beside them
    repeated: int = 0  # entries of a list that name a file again, which are left out


@dataclass
class FoundFiles:
    """The files of a source, before validation and test images are held out."""

    root: Path  # what the files' names are relative to
    # the splits that the source itself has, ``"train"`` first, which is never missing
    parts: dict[SplitName, LabelledFiles]
    # the names of the classes in order; None: those of the training files, in natural order
    classes: tuple[str, ...] | None = None
    unused: list[str] = field(default_factory=list)  # what lies beside the splits and is not used


def class_name(text: str) -> str:
    """Return the name of a class in its composed form (NFC), as folders from macOS have the decomposed one (NFD)."""
    return unicodedata.normalize("NFC", text)


def split_of(name: str) -> SplitName | None:
    """Return the split that a folder or the stem of a list is named for: ``Train``, ``flowers_val``, ``test_list``."""
    match = _SPLIT_NAME.fullmatch(name)
    return SPLIT_WORDS[match[1].lower()] if match else None


def by_split(root: Path, names: Iterable[str], or_else: str = "") -> dict[SplitName, str]:
    """Return the folders or lists of `root` that are named for a split, by split, training first.

    Raises:
        UsageError: two are named for the same split, or none for training.
    """
    found: dict[SplitName, str] = {}
    for name in names:
        split = split_of(name if split_of(name) else Path(name).stem)
        if split in found:
            raise UsageError(
                f"{root}: {shown(found[split])} and {shown(name)} are both named for the {split} split; "
                "rename or move one of them"
            )
        if split is not None:
            found[split] = name
    if found and "train" not in found:
        raise UsageError(
            f"{root}: holds {' and '.join(shown(name) for name in found.values())} but no training split; expected "
            f"train beside them{or_else}"
        )
    return {split: found[split] for split in SPLIT_NAMES if split in found}


def is_list(name: str) -> bool:
    """Return whether a file's name is that of a text list or a table."""
    return name.lower().endswith(LIST_SUFFIXES)


def natural_sort_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return the sort key under which ``class10`` follows ``class9``; no two names have the same, such as 1 and 01."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], name


def visible(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder that are not hidden, by name; raise `UsageError` if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not is_hidden(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise UsageError(f"{printable(str(folder))}: cannot be read ({error.strerror or error})") from error


def some_of(names: list[str]) -> str:
    """Return the first names as text, and the number of the others."""
    others = f" (and {len(names) - NAMES_SHOWN} more)" if len(names) > NAMES_SHOWN else ""
    return ", ".join(shown(name) for name in names[:NAMES_SHOWN]) + others
