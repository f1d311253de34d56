"""The lessons by name, from ``catalogue.yaml``, how much they compute, and running ``lessons/NAME/lesson.py``."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddle_resnet.config import Config
from paddle_resnet.config.yaml_reader import read_yaml
from paddle_resnet.errors import UsageError, did_you_mean, shown
from paddle_resnet.files import require_writable
from paddle_resnet.lessons.framework.page import Heading, Page, Show, notebook_show
from paddle_resnet.lessons.framework.texts import LESSONS_FOLDER, Language, LessonTexts, Text
from paddle_resnet.runtime import seed_everything, select_device
from paddle_resnet.text_files import write_text


@dataclass(frozen=True)
class Effort:
    """The options of a lesson's run, as in `Lesson.run`."""

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
            value = "FOLDER" if key == "data.root" else value
            words.append(f"-o {key}={value}")
        return " ".join(words)


class Lesson:
    """A lesson: a claim of the tutorials as a program that computes, explains and draws.

    In a notebook, `run` shows prose, tables and figures when they are ready.

        >>> import paddle_resnet
        >>> lesson = paddle_resnet.Lesson("residual-block")
        >>> lesson.title.en
        'The residual block'
        >>> page = lesson.run()
        >>> page.folder.as_posix(), page.numbers["projected_output"]
        ('output/lessons/residual-block', [4, 6, 3, 3])

    Attributes:
        name: one of `LESSONS`.
        title: in English (`title.en`) and in Chinese (`title.zh`), as `about`, a line on its contents.
        full_data: the data set of its full form; "" if it has none.

    Raises:
        UsageError: no lesson has this name.
    """

    def __init__(self, name: str) -> None:
        if name not in _CATALOGUE:
            raise UsageError(f'no lesson "{name}"{did_you_mean(name, _CATALOGUE)}; there are {", ".join(_CATALOGUE)}')
        entry = _CATALOGUE[name]
        self.name = name
        self.title, self.about = Text(**entry["title"]), Text(**entry["about"])
        self.full_data: str = entry.get("full_data", "")
        self._settings: list[str] = ["device", *entry.get("settings", [])]
        self._excluded_settings: list[str] = entry.get("excluded_settings", [])

    def __repr__(self) -> str:
        return f"Lesson({self.name!r})"

    def run(
        self,
        folder: str | Path | None = None,
        *,
        full: bool = False,
        overrides: Sequence[str] = (),
        scale: float = 1.0,
        language: Language = "en",
        show: Show | None = None,
    ) -> Page:
        """Run the lesson; write its figures and ``numbers.json``.

        Args:
            folder: where to; None: ``output/lessons/<name>``.
            full: train on the real data set (`full_data`) instead of the embedded one.
            overrides: ``key=value`` for the configs of the lesson's training runs, such as ``data.root=...``.
            scale: factor on the number of epochs; below 1 for tests.
            language: of what a notebook shows, ``"en"`` or ``"zh"``.
            show: gets each block of the page when it is ready; None: a notebook displays it.

        Raises:
            UsageError: a config key that is unknown or that the lesson does not use; a data set that is missing and
                cannot be downloaded.
            RunFailure: the folder cannot be written.
        """
        folder = Path("output/lessons") / self.name if folder is None else Path(folder)
        # Report a wrong request before minutes of work.
        config = Config.from_values({}, overrides)
        self._check_settings(overrides)
        select_device(config.device)
        require_writable(folder)
        show = show or notebook_show(language) or (lambda block: None)
        show(Heading(self.title))
        module = self.name.replace("-", "_")
        lesson = importlib.import_module(f"paddle_resnet.lessons.{module}.lesson")
        page = Page(folder, LessonTexts(module), show)
        seed_everything(0)
        lesson.teach(page, Effort(full, overrides, scale))
        write_text(folder / "numbers.json", json.dumps(page.numbers, indent=2, ensure_ascii=False) + "\n")
        return page

    def _check_settings(self, overrides: Sequence[str]) -> None:
        """Raise UsageError for a key that the lesson would ignore, or whose values it compares itself."""
        for override in overrides:
            key = override.partition("=")[0]
            if key in self._excluded_settings or not {key, key.partition(".")[0]} & {*self._settings}:
                taken = ", ".join(self._settings)
                excluded = f", but not {', '.join(self._excluded_settings)}" if self._excluded_settings else ""
                raise UsageError(f"-o {shown(override)}: the lesson {self.name} takes {taken}{excluded}")


_CATALOGUE: dict[str, Any] = read_yaml(LESSONS_FOLDER / "catalogue.yaml", lambda key: True)
LESSONS = {name: Lesson(name) for name in _CATALOGUE}  # all lessons, in the order of the tutorial
