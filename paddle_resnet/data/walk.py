"""The picture files below a folder: what training and prediction alike find there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")


def pictures_below(folder: Path) -> Iterator[Path]:
    """Name the files with a known suffix at any depth, folder by folder in the order of names, without hidden ones.

    Links to folders are followed, and each folder is entered once: a link may lead to a folder that it is in.
    """
    entered = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        status = Path(parent).stat()
        place = (status.st_dev, status.st_ino)
        folders[:] = [] if place in entered else sorted(name for name in folders if not name.startswith("."))
        for name in [] if place in entered else sorted(names):
            if not name.startswith(".") and is_picture(name):
                yield Path(parent, name)
        entered.add(place)


def is_picture(name: str) -> bool:
    """Whether a file's name has a known suffix."""
    return name.lower().endswith(EXTENSIONS)
