"""Log lines through `logger`, and progress bars where there is a terminal."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from rich import progress
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from paddle_resnet.errors import printable

PIPE_WIDTH = 200


class PlainConsole(Console):
    """A console that shows names as they are: without markup, and with control characters escaped."""

    def __init__(self, *, stderr: bool = False) -> None:
        stream = sys.stderr if stderr else sys.stdout
        notebook = "ipykernel" in sys.modules  # which says that it is a terminal, and gets plain lines
        columns = os.environ.get("COLUMNS", "")
        piped = stream is not None and (notebook or not stream.isatty())
        width = int(columns) if columns.isdecimal() else PIPE_WIDTH if piped else None  # a program reads the lines
        plain: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, "force_jupyter": False}
        super().__init__(**plain, stderr=stderr, width=width, force_terminal=False if notebook else None)

    @property
    def file(self) -> IO[str]:
        """The stream without the filter of `cli.program`, which would escape rich's own control sequences too."""
        file = super().file
        return getattr(file, "rich_proxied_file", file)

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    def render_str(self, text: str, **options: Any) -> Text:
        """Escape before the width of the text is measured."""
        return super().render_str(printable(text, keep="\n"), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            plain = segment.control or segment.text.isprintable()
            yield segment if plain else Segment(printable(segment.text, keep="\n"), segment.style)


def _escape(record: logging.LogRecord) -> bool:
    """Escape the names of files and classes in a line, for every handler."""
    message = record.getMessage()
    if not message.isprintable():
        record.msg, record.args = printable(message), None
    return True


logger = logging.getLogger("paddle_resnet")
logger.setLevel(logging.INFO)
logger.addFilter(_escape)
console = PlainConsole()
error_console = PlainConsole(stderr=True)  # for progress and warnings, where a program may read standard output
SECONDS_BETWEEN_LINES = 30.0  # between two lines of progress where there is no terminal
IN_FILES = {"in_files": True}  # `extra` of a log line that the console shows in another way


class ConsoleHandler(logging.Handler):
    """Print log lines above a progress bar that may be showing, except those `IN_FILES`."""

    def emit(self, record: logging.LogRecord) -> None:
        if not getattr(record, "in_files", False):
            console.print(self.format(record), soft_wrap=True)


def show_log_lines() -> None:
    """Show the lines of `logger` on the console; commands call this, a library's user chooses handlers."""
    if not any(isinstance(handler, ConsoleHandler) for handler in logger.handlers):
        logger.addHandler(ConsoleHandler())
    logger.propagate = False


@contextlib.contextmanager
def least_log_level(level: int) -> Iterator[None]:
    """Within the block, drop the lines of `logger` below this level, as well as those dropped already."""
    earlier = logger.level
    logger.setLevel(max(earlier, level))
    try:
        yield
    finally:
        logger.setLevel(earlier)


class _Bar(progress.Progress):
    def stop(self) -> None:
        if not self.disable:  # before rich 15 this printed an empty line
            super().stop()


def progress_bar(
    *columns: progress.ProgressColumn, on: Console | None = None, count: progress.ProgressColumn | None = None
) -> progress.Progress:
    """Make a bar with `columns` after the count; it shows only on a terminal and disappears at the end."""
    on = on or console
    return _Bar(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        count or progress.MofNCompleteColumn(),
        *columns,
        progress.TextColumn("ETA"),
        progress.TimeRemainingColumn(),
        console=on,
        disable=not on.is_terminal,
        transient=True,
    )


@contextlib.contextmanager
def count_progress(what: str, total: int | None, hidden: bool = False) -> Iterator[Callable[[int], None]]:
    """Show on standard error how many of `total` are done: a bar on a terminal, elsewhere a line every 30 s.

    `what` is the plural of what is counted, as ``"pictures"``. Where the terminal shows the results themselves, it is
    `hidden`. Yields a function to call with the number done since the last call.
    """
    bar = progress_bar(progress.TextColumn("{task.fields[speed]:.0f}/s"), on=error_console)
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
            error_console.print(f"{done:,}{left}", soft_wrap=True)

    with bar:
        yield advance


def download_bar(what: str) -> contextlib.AbstractContextManager[Callable[[int, int], None]]:
    """Show a bar of megabytes during a download; yield a `download.ProgressFn`."""
    return share_bar(f"downloading {what}", progress.TransferSpeedColumn(), count=progress.DownloadColumn())


@contextlib.contextmanager
def share_bar(
    what: str, *columns: progress.ProgressColumn, count: progress.ProgressColumn | None = None
) -> Iterator[Callable[[int, int], None]]:
    """Show a bar from the first call on of what is yielded: a function of the numbers done, and of all."""
    bar = progress_bar(*columns, count=count)
    task = None

    def show(done: int, total: int) -> None:
        nonlocal task
        if task is None:
            bar.start()
            task = bar.add_task(what)
        bar.update(task, completed=done, total=total or None)

    try:
        yield show
    finally:
        bar.stop()
