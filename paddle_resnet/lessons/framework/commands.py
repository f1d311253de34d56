"""The command that repeats a lesson, as its page shows it."""

from __future__ import annotations

from paddle_resnet.lessons.framework.catalogue import Effort

FOLDER_KEYS = ("data.root", "output")


def lesson_command(name: str, effort: Effort) -> str:
    """Write the command of this run; where the data lie is the reader's own affair: ``data.root=FOLDER``."""
    words = ["python tools/lesson.py", name]
    if effort.full:
        words.append("--full")
    for override in effort.overrides:
        key, _, value = override.partition("=")
        words.append(f"-o {key}={'FOLDER' if key in FOLDER_KEYS else value}")
    return " ".join(words)
