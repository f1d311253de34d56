"""The lessons as pages of the documentation, written from what a run left."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from paddle_resnet.files import write_aside, write_text
from paddle_resnet.lessons.catalogue import LESSONS
from paddle_resnet.lessons.markdown import to_markdown
from paddle_resnet.lessons.page import Language, Page, Picture

FIGURES = Path("images/lessons")
"""The figures' folder within the documentation; both languages show the same."""

PAGES: dict[Language, Path] = {"en": Path("lessons"), "zh": Path("zh/lessons")}


def write_pages(name: str, page: Page, docs: Path) -> list[Path]:
    """Write the page of lesson `name` in both languages, and its figures, below the folder `docs`; return the pages."""
    for block in page.blocks:
        if isinstance(block, Picture):
            figure = docs / FIGURES / name / block.path.name
            figure.parent.mkdir(parents=True, exist_ok=True)
            write_aside(figure, partial(shutil.copyfile, block.path))
    written = []
    for language, folder in PAGES.items():
        path = docs / folder / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        figures = "/".join([".."] * len(folder.parts) + [str(FIGURES), name])
        write_text(path, to_markdown(LESSONS[name].title.in_language(language), page.blocks, language, figures))
        written.append(path)
    return written
