"""The lessons as pages of the documentation, written from what a run left."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from paddle_resnet.files import write_aside, write_text
from paddle_resnet.lessons.framework.catalogue import LESSONS
from paddle_resnet.lessons.framework.markdown import to_markdown
from paddle_resnet.lessons.framework.page import Language, Page, Picture

FIGURES = Path("images/lessons")
"""The figures' folder within the documentation; both languages show the same."""

PAGES: dict[Language, Path] = {"en": Path("lessons"), "zh": Path("zh/lessons")}

INDEX: dict[Language, tuple[str, str]] = {
    "en": (
        "# Lessons\n\nEach page was written by the program it describes: `python tools/lesson.py NAME` runs it, with "
        "prose in the terminal,\nfigures and `numbers.json` in `output/lessons/NAME/`. `--full` trains on the real "
        "data set. [In Chinese](../zh/lessons/README.md)",
        "| lesson | what it is about |",
    ),
    "zh": (
        "# 课程\n\n每一页都由它所讲的程序写成：`python tools/lesson.py NAME --language zh` 运行一课，讲解显示在终端，"
        "图和 `numbers.json` 写入 `output/lessons/NAME/`；\n`--full` 在真实数据集上训练。"
        "[英文版](../../lessons/README.md)",
        "| 课程 | 内容 |",
    ),
}
"""The head of the list of lessons, and of its table."""


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


def write_index(docs: Path) -> None:
    """Write the list of the lessons that have pages, in both languages: the ``README.md`` of their folders."""
    for language, folder in PAGES.items():
        head, columns = INDEX[language]
        rows = [
            f"| [{entry.title.in_language(language)}]({name}.md) `{name}` | {entry.about.in_language(language)} |"
            for name, entry in LESSONS.items()
            if (docs / folder / f"{name}.md").exists()
        ]
        write_text(docs / folder / "README.md", "\n".join([head, "", columns, "|---|---|", *rows]) + "\n")
