"""Run a lesson: print prose and values, and write figures and a JSON of its numbers to a folder.

examples:
  paddle-resnet lesson                             the list of lessons
  paddle-resnet lesson batch-norm                  on the embedded data, in minutes
  paddle-resnet lesson batch-norm --language zh
  paddle-resnet lesson degradation --full          on CIFAR-10, which is downloaded if it is missing
  paddle-resnet lesson degradation --full -o data.root=FOLDER

The figures and numbers.json go to output/lessons/<name>/. The same lessons as pages: docs/lessons/, docs/zh/lessons/.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from paddle_resnet.cli import parsing, program

if TYPE_CHECKING:
    from rich.console import Console

    from paddle_resnet.lessons.framework.page import Block, Show
    from paddle_resnet.lessons.framework.texts import Language


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="a lesson; without it, all are listed")
    parser.add_argument("--full", action="store_true", help="use the real data set instead of the embedded one")
    parsing.add_language(parser)
    parser.add_argument("--output", metavar="DIR", type=parsing.path, help="default: output/lessons/NAME")
    parsing.add_overrides(parser, "set a config key of its trainings")
    parser.add_argument("--pages", action="store_true", help="rewrite its pages in docs/ in both languages")


def main(arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from paddle_resnet.lessons import LESSONS, Lesson
    from paddle_resnet.lessons.framework.markdown import write_index, write_pages
    from paddle_resnet.lessons.framework.page import RUNS

    console = Console()
    say = program.messages(arguments.language)
    if arguments.name is None:
        lines = Table.grid(padding=(0, 2))
        lines.add_column(no_wrap=True)
        lines.add_column(overflow="fold")  # Chinese has no spaces for line breaks
        for name, entry in LESSONS.items():
            title, about = (text.in_language(arguments.language) for text in (entry.title, entry.about))
            full = f" (--full: {entry.full_data})" if entry.full_data else ""
            lines.add_row(name, f"{title}\n[dim]{about}{full}[/dim]")
        console.print(lines, highlight=False)
        return
    lesson = Lesson(arguments.name)
    program.prepare()
    if arguments.full and not lesson.full_data:
        console.print(say("no_data"), highlight=False)
    page = lesson.run(
        arguments.output,
        full=arguments.full,
        overrides=tuple(arguments.overrides),
        show=_printer(console, arguments.language, say),
    )
    console.print("\n" + say("lesson_folder", folder=page.folder), highlight=False, soft_wrap=True)
    if (page.folder / RUNS).is_dir():
        console.print(say("lesson_curves", folder=page.folder / RUNS), highlight=False, soft_wrap=True)
    if arguments.pages:
        for path in write_pages(arguments.name, page, program.PROJECT / "docs"):
            console.print(f"written: {path}", highlight=False)
        write_index(program.PROJECT / "docs")


def _printer(console: Console, language: Language, say: program.Say) -> Show:
    from rich.markdown import Markdown

    from paddle_resnet.lessons.framework.page import Picture, Values, render

    # Chinese has no spaces for line breaks: the terminal breaks the lines.
    options: dict[str, Any] = {"highlight": False, "soft_wrap": language == "zh"}

    def show(block: Block) -> None:
        console.print()
        match block:
            case Values(lines):
                console.print("\n".join(f"    {line}" for line in lines), highlight=False, markup=False)
            case Picture(_, caption):
                console.print(say("picture", path=block.file(language), caption=caption), markup=False, **options)
            case _:
                console.print(Markdown(render(block, language, figures="")), **options)

    return show
