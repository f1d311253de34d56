"""The pages of the lessons in the documentation, and their index."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from paddle_resnet.files import write_atomically
from paddle_resnet.lessons.framework.catalogue import LESSONS
from paddle_resnet.lessons.framework.page import Page, Picture, Prose, Table, to_markdown
from paddle_resnet.lessons.framework.texts import Language, LessonTexts, Text
from paddle_resnet.text_files import write_text

FIGURES = Path("images/lessons")
"""Folder of the figures within ``docs``; those with Chinese labels are ``<name>_zh.png``."""

PAGES: dict[Language, Path] = {"en": Path("lessons"), "zh": Path("zh/lessons")}


def write_pages(name: str, page: Page, docs: Path) -> list[Path]:
    """Write the pages of lesson `name` in both languages and its figures below `docs`; return the pages' paths."""
    for block in page.blocks:
        for path in {block.file(language) for language in PAGES} if isinstance(block, Picture) else ():
            figure = docs / FIGURES / name / path.name
            figure.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(figure, partial(shutil.copyfile, path))
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
            (Text(*(f"[{title}]({name}.md) `{name}`" for title in (entry.title.en, entry.title.zh))), entry.about)
            for name, entry in LESSONS.items()
            if (docs / folder / f"{name}.md").exists()
        )
        page = to_markdown(title.in_language(language), [Prose(about), Table((lesson, contents), rows)], language, "")
        write_text(docs / folder / "README.md", page)
