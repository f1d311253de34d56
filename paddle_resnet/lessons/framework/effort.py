"""How much a lesson computes, and the command that repeats it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """The options of a lesson's run.

    Attributes:
        full: train on the real data set (CIFAR-10, Fashion-MNIST) instead of the embedded one.
        overrides: ``key=value`` for the configs of the lesson's training runs, such as ``data.root=...``.
        scale: factor on the number of epochs; below 1 for tests.
    """

    full: bool = False
    overrides: Sequence[str] = ()
    scale: float = 1.0

    def epochs(self, usual: int) -> int:
        return max(1, round(self.scale * usual))


def lesson_command(name: str, effort: Effort) -> str:
    """Return the command that repeats a run, with ``FOLDER`` in place of local paths."""
    words = ["python tools/lesson.py", name]
    if effort.full:
        words.append("--full")
    for override in effort.overrides:
        key, _, value = override.partition("=")
        value = "FOLDER" if key in ("data.root", "output") else value
        words.append(f"-o {key}={value}")
    return " ".join(words)
