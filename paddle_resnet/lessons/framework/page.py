"""A lesson's page: blocks of prose in two languages, tables, values and figures, and its numbers by name."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from paddle_resnet.lessons.framework.texts import Language, LessonTexts, Text, label_in_chinese
from paddle_resnet.plots.style import available_fonts, relabel, save_figure

RUNS = "runs"  # subfolder of a lesson's folder that holds its training runs, for ``visualdl --logdir``
Number: TypeAlias = float | int | str | bool | Sequence["Number"]


@dataclass(frozen=True)
class Heading:
    """The title of a section."""

    text: Text


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    text: Text


@dataclass(frozen=True)
class Values:
    """Preformatted lines: an expression and its value, shapes, code."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table."""

    headers: tuple[Text, ...]
    rows: tuple[tuple[Text, ...], ...]


@dataclass(frozen=True)
class Picture:
    """A figure's file in the lesson's folder, and what it shows."""

    path: Path
    caption: Text
    chinese: Path | None = None  # the same with Chinese labels, where a font has them

    def file(self, language: Language) -> Path:
        return self.chinese if self.chinese and language == "zh" else self.path


Block: TypeAlias = Heading | Prose | Values | Table | Picture
Show: TypeAlias = Callable[[Block], None]


class Page:
    """Collects what a lesson writes; passes each block to `show` at once.

    Attributes:
        folder: of the figures, ``numbers.json`` and the training runs.
        blocks: written so far.
        numbers: the lesson's measured values by name, for ``numbers.json`` and for tests.
    """

    def __init__(self, folder: Path, texts: LessonTexts, show: Show = lambda block: None) -> None:
        self.folder = folder
        self.blocks: list[Block] = []
        self.numbers: dict[str, Number] = {}
        self._show = show
        self._texts = texts

    def __repr__(self) -> str:
        figures = sum(isinstance(block, Picture) for block in self.blocks)
        return f"<Page of {len(self.blocks)} blocks and {figures} figures in {self.folder}>"

    def text(self, key: str, **values: object) -> Text:
        """Return a text of the lesson's ``text.yaml`` with its values, for a table or another text."""
        return self._texts.fill(key, values)

    def heading(self, key: str, **values: object) -> None:
        self._add(Heading(self.text(key, **values)))

    def section(self, key: str, **values: object) -> None:
        """Add the heading ``<key>_heading`` and the paragraph `key`."""
        self.heading(f"{key}_heading", **values)
        self.say(key, **values)

    def say(self, key: str, **values: object) -> None:
        self._add(Prose(self.text(key, **values)))

    def values(self, *lines: str) -> None:
        self._add(Values(tuple(line for lines_ in lines for line in lines_.splitlines())))

    def array(self, label: str, array: np.ndarray) -> None:
        text = np.array2string(np.asarray(array), precision=4, suppress_small=True, floatmode="fixed")
        self.values(f"{label}:", text)

    def table(self, key: str, rows: Sequence[Sequence[object]], **values: object) -> None:
        """Add a table; the text of `key` has its headers, separated by `` | ``. Integers get commas: ``11,689,512``."""
        text = self.text(key, **values)
        headers = tuple(Text(*pair) for pair in zip(_cells(text.en), _cells(text.zh), strict=True))
        self._add(Table(headers, tuple(tuple(map(_cell, row)) for row in rows)))

    def figure(self, name: str, draw: Callable[[], Figure], **values: object) -> None:
        """Draw ``<name>.png`` in the common style, with horizontal lines; the text of its name is its caption."""
        path, chinese = self.folder / f"{name}.png", None
        with mpl.rc_context({"axes.grid": True, "axes.grid.axis": "y", "axes.axisbelow": True}):
            save_figure(path, draw)
            if available_fonts()[1:]:
                chinese = self.folder / f"{name}_zh.png"
                save_figure(chinese, lambda: relabel(draw(), label_in_chinese))
        self._add(Picture(path, self.text(name, **values), chinese))

    def record(self, **numbers: object) -> None:
        """Keep numbers, strings and sequences or arrays of them by name; NaN and infinities become "not finite"."""
        self.numbers.update({name: _to_json(value) for name, value in numbers.items()})

    def _add(self, block: Block) -> None:
        self.blocks.append(block)
        self._show(block)


def _cell(value: object) -> Text:
    if isinstance(value, Text):
        return value
    words = f"{value:,}" if isinstance(value, int) else str(value)
    return Text(words, words)


def _to_json(value: object) -> Number:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_to_json(each) for each in value]
    assert isinstance(value, bool | int | float | str), f"{value!r} is not a number"
    return "not finite" if isinstance(value, float) and not math.isfinite(value) else value


def _cells(row: str) -> list[str]:
    """Split at each bar between spaces; the bars of ``max |x|`` are text."""
    return [cell.strip() for cell in re.split(r"(?<!\S)\|(?!\S)", row)]


def to_markdown(title: str, blocks: Iterable[Block], language: Language, figures: str) -> str:
    """Render a page; `figures` is the figures' folder relative to it."""
    return "\n\n".join([f"# {title}", *(render(block, language, figures) for block in blocks)]) + "\n"


def render(block: Block, language: Language, figures: str) -> str:
    """Render one block of a page."""
    match block:
        case Heading(text):
            return f"## {text.in_language(language)}"
        case Prose(text):
            return text.in_language(language)
        case Values(lines):
            return "\n".join(["```text", *lines, "```"])
        case Table(headers, rows):
            first, *others = (_row(cell.in_language(language) for cell in line) for line in (headers, *rows))
            return "\n".join([first, _row(["---"] * len(headers)), *others])
        case Picture(_, caption):
            words = caption.in_language(language)
            return f"![{words}]({figures}/{block.file(language).name})\n\n*{words}*"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def notebook_show(language: Language) -> Show | None:
    """Return what displays blocks in the notebook that runs this process; None: there is none."""
    ipython = sys.modules.get("IPython")
    if ipython is None or getattr(ipython.get_ipython(), "kernel", None) is None:
        return None
    from IPython.display import Image, Markdown, display

    def show(block: Block) -> None:
        if isinstance(block, Picture):
            display(Image(filename=str(block.file(language))), Markdown(f"*{block.caption.in_language(language)}*"))
        else:
            display(Markdown(render(block, language, figures="")))

    return show
