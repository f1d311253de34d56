"""What a person sees while something runs: lines through `logger`, and a progress bar where there is a terminal."""

from __future__ import annotations

import contextlib
import logging
import time
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
error_console = Console(highlight=False, stderr=True)
"""For a program whose standard output is read by another: progress and complaints go here."""
SECONDS_BETWEEN_LINES = 30.0
"""Between two lines of progress where there is no terminal to draw a bar on."""


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


@contextlib.contextmanager
def speaking(aloud: bool) -> Iterator[None]:
    """Let `logger`'s lines appear, or errors alone."""
    level = logger.level
    if not aloud:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def progress_bar(*columns: ProgressColumn, on: Console | None = None) -> Progress:
    """Make a bar with `columns` behind the count; it shows only on a terminal and vanishes when done."""
    on = on or console
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=on,
        disable=not on.is_terminal,
        transient=True,
    )


@contextlib.contextmanager
def counting(what: str, total: int | None, hidden: bool = False) -> Iterator[Callable[[int], None]]:
    """Show on standard error how many of `total` are done: a bar on a terminal, elsewhere a line now and then.

    Args:
        what: is counted, as ``"pictures"``.
        total: how many there will be; None: not known.
        hidden: show nothing, as where the terminal shows the results themselves.

    Yields:
        What is called with the number of those done since the last call.
    """
    bar = progress_bar(TextColumn("{task.fields[speed]:.0f}/s"), on=error_console)
    bar.disable = bar.disable or hidden
    task = bar.add_task(what, total=total, speed=0.0)
    started = last_line = time.monotonic()
    done = 0

    def advance(number: int) -> None:
        nonlocal done, last_line
        done += number
        now = time.monotonic()
        speed = done / max(now - started, 1e-9)
        bar.update(task, completed=done, speed=speed)
        if not (hidden or error_console.is_terminal) and now - last_line > SECONDS_BETWEEN_LINES:
            last_line = now
            left = f" of {total:,} {what}, {speed:,.0f}/s, {(total - done) / speed:.0f} s left" if total else f" {what}"
            error_console.print(f"{done:,}{left}", markup=False, soft_wrap=True)

    with bar:
        yield advance


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
