"""VisualDL's writer, imported where its package can be.

VisualDL 2.5.3 makes a folder in the user's home when it is imported, and fails where that cannot be written (a
container's unknown user, say), though only its server uses the folder.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING


@contextlib.contextmanager
def _writable_home() -> Iterator[None]:
    """Within the block, let HOME be a folder that can be written."""
    earlier = os.environ.get("HOME")
    try:
        (Path("~").expanduser() / ".visualdl").mkdir(exist_ok=True)
    except (OSError, RuntimeError):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["HOME"] = folder
            try:
                yield
            finally:
                if earlier is None:
                    del os.environ["HOME"]
                else:
                    os.environ["HOME"] = earlier
    else:
        yield


if TYPE_CHECKING:
    from visualdl import LogWriter
else:
    with _writable_home():
        from visualdl import LogWriter

__all__ = ["LogWriter"]
