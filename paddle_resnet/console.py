"""What a person sees while something runs: lines through `logger`, and a progress bar where there is a terminal."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

logger = logging.getLogger("paddle_resnet")
logger.setLevel(logging.INFO)
console = Console(highlight=False)


class ConsoleHandler(logging.Handler):
    """Print log lines above a progress bar that may be showing."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record's message as it is."""
        console.print(self.format(record), markup=False, soft_wrap=True)


def show_lines() -> None:
    """Let `logger`'s lines appear on the console (the tools call this; a library user may not want it)."""
    if not any(isinstance(handler, ConsoleHandler) for handler in logger.handlers):
        logger.addHandler(ConsoleHandler())
    logger.propagate = False


def progress_bar(*columns: ProgressColumn) -> Progress:
    """Make a bar with `columns` behind the count; it shows only on a terminal and vanishes when done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


@contextlib.contextmanager
def download_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar of megabytes while something downloads; give what is called with (bytes so far, bytes in all)."""
    bar = Progress(
        TextColumn("downloading {task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    task = None

    def report(done: int, total: int) -> None:
        nonlocal task
        if task is None:
            bar.start()
            task = bar.add_task(what)
        bar.update(task, completed=done, total=total or None)

    try:
        yield report
    finally:
        bar.stop()
