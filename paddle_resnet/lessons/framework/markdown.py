"""A lesson's page as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from paddle_resnet.lessons.framework.page import Block, Heading, Language, Picture, Prose, Table, Text, Values


def to_markdown(title: str, blocks: Iterable[Block], language: Language, figures: str) -> str:
    """Render a page.

    Args:
        title: the first heading.
        blocks: what the lesson wrote.
        language: of the prose.
        figures: the figures' folder as links name it.
    """
    return "\n\n".join([f"# {title}", *(render(block, language, figures) for block in blocks)]) + "\n"


def render(block: Block, language: Language, figures: str) -> str:
    """Render one block."""
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
