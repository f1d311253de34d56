"""The result of a benchmark: rows of figures as JSON, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from paddle_resnet import environment
from paddle_resnet.files import write_json
from paddle_resnet.plots.bar_chart import Panel, draw_panels
from paddle_resnet.plots.style import save_figure

Row = dict[str, Any]
PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "numpy", "pillow", "onnxruntime", "torch")


def _environment() -> dict[str, Any]:
    facts = environment.describe("date", "processor", "cores", "cores_in_machine", "platform", "process")
    versions = environment.describe("paddle_resnet", "python") | environment.package_versions(*PACKAGES)
    return {**facts, "versions": versions}


def _in_one_line(found: dict[str, Any]) -> str:
    """The environment as a figure's small print."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items() if name != "paddle_resnet")
    return f"{found['processor']}, {found['cores']} cores; {versions}; {found['date'][:10]}"


@dataclass(frozen=True)
class Column:
    """A column of the table: its title, and how a row's cell is written."""

    title: str
    cell: Callable[[Row], str]


@dataclass(frozen=True)
class Report:
    """What was measured, and how it is shown.

    Attributes:
        command: ``"train"``; it names the files.
        title: of table and figure.
        settings: what was asked for, the command line among it.
        rows: the figures, with units in their keys.
        columns: of the table.
        panels: of the figure.
    """

    command: str
    title: str
    settings: Mapping[str, Any]
    rows: Sequence[Row]
    columns: Sequence[Column]
    panels: Sequence[Panel]
    found: dict[str, Any] = field(default_factory=_environment)

    def as_json(self) -> dict[str, Any]:
        """As a JSON object: environment, settings, rows."""
        return {"command": self.command, **self.found, "settings": dict(self.settings), "rows": list(self.rows)}

    def table(self) -> Table:
        """As a table for the terminal, with the environment below."""
        table = Table(title=self.title, caption=_in_one_line(self.found), box=box.SIMPLE)
        for number, column in enumerate(self.columns):
            table.add_column(column.title, justify="left" if number == 0 else "right", no_wrap=True)
        for row in self.rows:
            table.add_row(*(column.cell(row) for column in self.columns))
        return table

    def write(self, folder: Path) -> list[Path]:
        """Write ``<command>.json`` and ``<command>.png``; return their paths.

        Raises:
            RunFailure: a file cannot be written.
        """
        numbers, figure = folder / f"{self.command}.json", folder / f"{self.command}.png"
        write_json(numbers, self.as_json())
        save_figure(figure, lambda: draw_panels(self.panels, self.title, _in_one_line(self.found)))
        return [numbers, figure]


def spread(summary: Mapping[str, float] | None, digits: int = 2) -> str:
    """A summary as ``1.21 (1.18-1.24)``, of one measurement as ``1.21``; a dash where there is none."""
    if summary is None:
        return "-"
    if summary["count"] == 1:
        return f"{summary['median']:.{digits}f}"
    return f"{summary['median']:.{digits}f} ({summary['smallest']:.{digits}f}-{summary['largest']:.{digits}f})"


def rate(summary: Mapping[str, float]) -> str:
    """A speed as ``961 (944-1069)``, with decimals where it is small."""
    return spread(summary, 0 if summary["median"] >= 100 else 1)
