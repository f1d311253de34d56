"""Lessons as Markdown: one page, and the pages of the documentation."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from paddle_resnet.files import write_atomically, write_text
from paddle_resnet.lessons.framework.catalogue import LESSONS
from paddle_resnet.lessons.framework.page import Block, Heading, Page, Picture, Prose, Table, Values
from paddle_resnet.lessons.framework.texts import Language, LessonTexts, Text


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
            table: list[Sequence[str | Text]] = [headers, ("---",) * len(headers), *rows]
            return "\n".join(_row(_words(cell, language) for cell in line) for line in table)
        case Picture(path, caption):
            words = caption.in_language(language)
            return f"![{words}]({figures}/{path.name})\n\n*{words}*"


def _words(cell: str | Text, language: Language) -> str:
    return cell.in_language(language) if isinstance(cell, Text) else cell


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


FIGURES = Path("images/lessons")
"""Folder of the figures within ``docs``; both languages share it."""

PAGES: dict[Language, Path] = {"en": Path("lessons"), "zh": Path("zh/lessons")}


def write_pages(name: str, page: Page, docs: Path) -> list[Path]:
    """Write the pages of lesson `name` in both languages and its figures below `docs`; return the pages' paths."""
    for block in page.blocks:
        if isinstance(block, Picture):
            figure = docs / FIGURES / name / block.path.name
            figure.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(figure, partial(shutil.copyfile, block.path))
    written = []
    for language, folder in PAGES.items():
        path = docs / folder / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        figures = "/".join([".."] * len(folder.parts) + [str(FIGURES), name])
        write_text(path, to_markdown(LESSONS[name].title.in_language(language), page.blocks, language, figures))
        written.append(path)
    return written


def write_index(docs: Path) -> None:
    """Write the ``README.md`` of both languages: the list of the lessons that have pages."""
    texts = LessonTexts("framework")
    title, about, lesson, contents = (
        texts.fill(key, {}) for key in ("index_title", "index", "index_lesson", "index_contents")
    )
    for language, folder in PAGES.items():
        rows = tuple(
            (f"[{entry.title.in_language(language)}]({name}.md) `{name}`", entry.about)
            for name, entry in LESSONS.items()
            if (docs / folder / f"{name}.md").exists()
        )
        page = to_markdown(title.in_language(language), [Prose(about), Table((lesson, contents), rows)], language, "")
        write_text(docs / folder / "README.md", page)
