"""The lessons by name, from ``catalogue.yaml``, how much they compute, and running ``lessons/NAME/lesson.py``."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from paddle_resnet.config import Config
from paddle_resnet.config.yaml_reader import read_yaml
from paddle_resnet.errors import UsageError, did_you_mean
from paddle_resnet.files import write_text
from paddle_resnet.lessons.framework.page import Page, Show
from paddle_resnet.lessons.framework.texts import LESSONS_FOLDER, LessonTexts, Text


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

    def command(self, lesson: str) -> str:
        """Return the command that repeats the lesson's run, with ``FOLDER`` in place of local paths."""
        words = ["python tools/lesson.py", lesson]
        if self.full:
            words.append("--full")
        for override in self.overrides:
            key, _, value = override.partition("=")
            value = "FOLDER" if key in ("data.root", "output") else value
            words.append(f"-o {key}={value}")
        return " ".join(words)


class LessonModule(Protocol):
    """A module ``lesson.py``."""

    def teach(self, page: Page, effort: Effort) -> None:
        """Run the lesson and write its page."""


@dataclass(frozen=True)
class LessonEntry:
    """A lesson: its page's title, a line on its contents, and the data set of its full form ("" if it has none)."""

    title: Text
    about: Text
    full_data: str


def _read_catalogue() -> dict[str, LessonEntry]:
    entries = read_yaml(LESSONS_FOLDER / "catalogue.yaml", lambda key: True)
    return {
        name: LessonEntry(Text(**entry["title"]), Text(**entry["about"]), entry.get("full_data", ""))
        for name, entry in entries.items()
    }


LESSONS = _read_catalogue()


def lesson_entry(name: str) -> LessonEntry:
    """Look up a lesson.

    Raises:
        UsageError: no lesson has this name.
    """
    if name not in LESSONS:
        raise UsageError(f'no lesson "{name}"{did_you_mean(name, list(LESSONS))}; there are {", ".join(LESSONS)}')
    return LESSONS[name]


def run_lesson(name: str, folder: Path, effort: Effort, show: Show = lambda block: None) -> Page:
    """Run a lesson: write its figures and ``numbers.json`` to `folder`, and pass each block to `show` when it is ready.

    Raises:
        UsageError: an unknown lesson or config key, or a data set that is missing and cannot be downloaded.
        RunFailure: the folder cannot be written.
    """
    lesson_entry(name)
    # Report a wrong request before minutes of work.
    Config.from_values({}, effort.overrides)
    probe = folder / ".trial"
    write_text(probe, "")
    probe.unlink()
    module = name.replace("-", "_")
    lesson: LessonModule = importlib.import_module(f"paddle_resnet.lessons.{module}.lesson")
    page = Page(folder, LessonTexts(module), show)
    lesson.teach(page, effort)
    write_text(folder / "numbers.json", json.dumps(page.numbers, indent=2, ensure_ascii=False) + "\n")
    return page
