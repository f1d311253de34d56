"""The report of a benchmark: summaries of measurements as JSON, as a table and as a plot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from paddle_resnet import environment
from paddle_resnet.plots.bar_chart import Bar, Panel, draw_panels
from paddle_resnet.plots.style import save_figure
from paddle_resnet.text_files import write_json

Runs = Sequence[Mapping[str, Any]]  # the measurements of one job, by round
Summary = dict[str, Any]  # ``median``, ``smallest``, ``largest`` and ``count`` of some measurements
Row = dict[str, Any]
PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "numpy", "pillow", "onnxruntime", "torch")


def summarise(values: Sequence[float]) -> Summary:
    """Summarise at least one value."""
    return {
        "median": float(np.median(values)),
        "smallest": float(min(values)),
        "largest": float(max(values)),
        "count": len(values),
    }


def summary_of(runs: Runs, key: str = "images_per_second") -> Summary:
    """Summarise one value of each measurement."""
    return summarise([run[key] for run in runs])


def ratios(runs: Runs, references: Runs, key: str = "images_per_second") -> list[float]:
    """Divide round by round: whatever slows the machine for a while slows both runs of a round."""
    return [run[key] / reference[key] for run, reference in zip(runs, references, strict=True)]


def ratio_summary(runs: Runs, references: Runs | None, key: str = "images_per_second") -> Summary | None:
    """Summarise `ratios` and list them as ``rounds``; None without references."""
    if references is None:
        return None
    found = ratios(runs, references, key)
    return {**summarise(found), "rounds": found}


def scaled(summary: Summary, factor: float) -> Summary:
    """Multiply the values of a summary, for another unit."""
    return {**summary, **{key: factor * summary[key] for key in ("median", "smallest", "largest")}}


def spread(summary: Summary | None, digits: int = 2) -> str:
    """Format a summary as ``1.21 (1.18-1.24)``, that of one measurement as ``1.21``, and None as a dash."""
    if summary is None:
        return "-"
    median, smallest, largest = (f"{summary[key]:.{digits}f}" for key in ("median", "smallest", "largest"))
    return median if summary["count"] == 1 else f"{median} ({smallest}-{largest})"


def rate(summary: Summary) -> str:
    """Format a speed as ``961 (944-1069)``, with a decimal below 100."""
    return spread(summary, 0 if summary["median"] >= 100 else 1)


def percent(summary: Summary) -> str:
    """Format fractions as percentages."""
    return spread(scaled(summary, 100), 1)


def megabytes(summary: Summary) -> str:
    """Format the median alone."""
    return f"{summary['median']:.0f}"


def speed_panels(
    rows: Sequence[Row], title: Callable[[Row], str], label: Callable[[Row], str], series: str
) -> list[Panel]:
    """Make a panel of images/s for the rows of each title; `series` is the key of what has a colour of its own."""
    bars: dict[str, list[Bar]] = {}
    for row in rows:
        bars.setdefault(title(row), []).append(Bar(label(row), row[series], row["images_per_second"]))
    return [Panel(name, "images/s", of_name) for name, of_name in bars.items()]


@dataclass(frozen=True)
class Column:
    """A column of the table: its title, the key of its values in the rows, and their format."""

    title: str
    key: str
    text: Callable[[Any], str] = str


def _environment() -> dict[str, Any]:
    facts = environment.describe("date", "processor", "cores", "cores_in_machine", "platform", "process")
    versions = environment.describe("paddle_resnet", "python") | environment.package_versions(*PACKAGES)
    return {**facts, "versions": versions}


@dataclass(frozen=True)
class Report:
    """What was measured, and how it is shown."""

    command: str  # such as ``"train"``; it names the files
    title: str  # of table and plot
    settings: Mapping[str, Any]  # the arguments of the measurement
    rows: Sequence[Row]  # the results; their keys have the units
    columns: Sequence[Column]  # of the table
    panels: Sequence[Panel]  # of the plot
    environment: dict[str, Any] = field(default_factory=_environment)  # of the measurement

    def table(self) -> Table:
        table = Table(title=self.title, caption=self._caption(), box=box.SIMPLE)
        for number, column in enumerate(self.columns):
            table.add_column(column.title, justify="left" if number == 0 else "right", no_wrap=True)
        for row in self.rows:
            table.add_row(*(column.text(row[column.key]) for column in self.columns))
        return table

    def write(self, folder: Path) -> list[Path]:
        """Write ``<command>.json`` and ``<command>.png``, and return their paths; raise `RunFailure` if that fails."""
        json_path, plot_path = folder / f"{self.command}.json", folder / f"{self.command}.png"
        content = {"command": self.command, **self.environment, "settings": dict(self.settings), "rows": self.rows}
        write_json(json_path, content)
        save_figure(plot_path, lambda: draw_panels(self.panels, self.title, self._caption()))
        return [json_path, plot_path]

    def _caption(self) -> str:
        found = self.environment
        packages = ", ".join(f"{name} {text}" for name, text in found["versions"].items() if name != "paddle_resnet")
        return f"{found['processor']}, {found['cores']} cores; {packages}; {found['date'][:10]}"
