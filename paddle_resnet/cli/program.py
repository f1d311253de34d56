"""How every command runs and ends: `--debug`, one-line errors, signals, standard streams, exit codes."""

# ruff: noqa: E402
from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, TypeAlias

from paddle_resnet.errors import SIGNAL_WORDS
from paddle_resnet.project_files import requirements_file

PROJECT = Path(__file__).resolve().parents[2]


def _is_program() -> bool:
    """Return whether a command is this process's program. Tests run commands inside theirs, and workers import them."""
    words = iter(sys.orig_argv[1:])
    for word in words:
        if word == "-m":
            return next(words, "") == "paddle_resnet"
        if word in ("-X", "-W"):
            next(words, None)
        elif word.startswith("-c"):
            return False
        elif not word.startswith("-"):
            script = Path(word).absolute()
            return script.parent == PROJECT / "tools" or script.stem == "paddle-resnet"
    return False


IS_PROGRAM = _is_program()
NAME = ""  # of the command that runs


def exit_on_signal(number: int, frame: FrameType | None = None) -> NoReturn:
    """End the process on a signal at once, without saving anything."""
    known = sys.modules.get("paddle_resnet.signals")
    if known is None or not known.received():  # else the first signal has been reported
        with contextlib.suppress(OSError):
            os.write(2, f"error: {SIGNAL_WORDS[signal.Signals(number)]}\n".encode())
    os._exit(128 + number)


if IS_PROGRAM:  # before the imports below, which take long and have nothing to save
    for each in SIGNAL_WORDS:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, exit_on_signal)

import argparse
import errno
import importlib.util
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping

from paddle_resnet import __version__, distributed, runtime, signals
from paddle_resnet.errors import PaddleResNetError, Stopped, UsageError, command, did_you_mean, printable, shown
from paddle_resnet.system import streams

if TYPE_CHECKING:
    from rich.table import Table

SECONDS_TO_A_SECOND_SIGNAL = 0.5
"""One that comes sooner repeats the first: `timeout` sends SIGTERM twice, a closed terminal also SIGHUP."""
LONGEST_LINE = 800
Say: TypeAlias = Callable[..., str]  # returns the text of a key with its values, in the language that was asked for


class PlainStream:
    """A stream that escapes control characters, which names of files and classes may hold."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream  # rich writes its own colours and bars to it, by this name

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)

    def write(self, text: str) -> int:
        return self.rich_proxied_file.write(printable(text, keep="\n\t"))


def run(
    parser: argparse.ArgumentParser,
    action: Callable[[argparse.Namespace], None],
    *,
    only_prints: bool = False,
    results_in_files: bool = False,
) -> NoReturn:
    """Parse the command line, call `action`, and exit as `end_with`.

    A command that `only_prints` ends when standard output is lost; others continue. Where its results are in files too,
    a lost standard output is no failure.
    """
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def work() -> None:
        arguments = parser.parse_args()  # which only prints, with --help
        streams.set_output_may_be_lost(not only_prints)
        action(arguments)

    end_with(work, results_in_files=results_in_files)


def end_with(work: Callable[[], None], *, results_in_files: bool = False) -> NoReturn:
    """Do this process's work, and exit with 0, 1 (failure), 2 (wrong use), or 128 + a signal's number.

    The first SIGINT, SIGTERM or SIGHUP raises `Stopped` in `work`; a second SIGINT or SIGTERM ends the process.
    """
    streams.prepare(output_may_be_lost=False)
    sys.stdout, sys.stderr = PlainStream(sys.stdout), PlainStream(sys.stderr)
    with _signals_handled():
        try:
            try:
                work()
            finally:
                sys.stdout.flush()
            if signals.received():
                raise Stopped(signals.received())
            code = 0
        except BaseException as error:
            with signals.deferred():
                code = _report(error)
        if code == 0 and (lost := streams.output_loss()) is not None and lost.errno != errno.EPIPE:
            code = 0 if results_in_files else 1
            _print_line("error" if code else "warning", _describe(lost), code)
    sys.exit(code)


@contextlib.contextmanager
def _signals_handled() -> Iterator[None]:
    with signals.stoppable():
        if IS_PROGRAM and distributed.launched().world_size == 1:
            reading, writing = socket.socketpair()  # Windows has no pipe that does not block
            writing.setblocking(False)
            signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
            with signals.blocked():  # only the main thread can block and handle them
                threading.Thread(target=_exit_on_second_signal, args=(reading,), daemon=True).start()
        yield


def _exit_on_second_signal(reading: socket.socket) -> None:
    """End the process on a second signal, also while the main thread hangs in compiled code."""
    first = None
    while number := reading.recv(1):
        now = time.monotonic()
        if number[0] not in signals.SIGNALS:
            continue
        if first is None:
            first = now
        elif number[0] in (signal.SIGINT, signal.SIGTERM) and now - first > SECONDS_TO_A_SECOND_SIGNAL:
            exit_on_signal(number[0])


def _report(error: BaseException) -> int:
    """Print what ended the command in one line; return the exit code."""
    if "--debug" in sys.argv and not isinstance(error, SystemExit):
        traceback.print_exception(error)
    if signals.received() and not isinstance(error, Stopped):
        error = Stopped(signals.received())
    if isinstance(error, PaddleResNetError | Stopped):
        return _print_line("error", str(error), error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return _print_line("error", "interrupted", 128 + signal.SIGINT)
    lost = streams.output_loss()
    if isinstance(error, OSError | SystemExit) and lost is not None:  # rich makes a SystemExit of it
        return 0 if lost.errno == errno.EPIPE else _print_line("error", _describe(lost), 1)
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, ModuleNotFoundError) and (name := (error.name or "").partition(".")[0]) != "paddle_resnet":
        advice = (
            f"activate its virtual environment, or pip install -r {requirements_file('common.txt')} paddlepaddle==3.3.1"
        )
        return _print_line("error", f"{name} is not installed for {sys.executable}: {advice} (GPUs: docs/gpu.md)", 2)
    if isinstance(error, MemoryError):
        return _print_line("error", "there is not enough memory; end other programs, or ask for less at once", 1)
    if isinstance(error, OSError):  # a full disk, a folder that may not be written
        return _print_line("error", _describe(error), 1)
    return _print_line("error", f"{type(error).__name__}: {error} (a fault of the program: --debug shows where)", 1)


def _describe(error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and not error.filename:
        try:
            Path.cwd()
        except FileNotFoundError:
            return "the current folder has been removed: change to another one"
    return (f"{error.filename}: " if error.filename else "") + str(error.strerror or error)


def _print_line(kind: str, message: str, code: int) -> int:
    print(f"{kind}: " + shown(" ".join(message.split()), LONGEST_LINE), file=sys.stderr)
    return code


def prepare(*, multi_process: bool = False) -> None:
    """Import paddle without its warnings, and show log lines; to be called after the arguments are checked.

    It is a UsageError if this is one of several processes of `paddle.distributed.launch`, unless `multi_process`.
    """
    launched = distributed.launched().world_size
    if launched > 1 and not multi_process:
        raise UsageError(f"one of {launched} processes of paddle.distributed.launch: start this command alone")
    runtime.prepare()


def require(requirements: str, *modules: str) -> None:
    """Raise a UsageError unless the packages of a requirements file are installed; `modules` are their import names."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"not installed: {', '.join(missing)}; pip install -r {requirements_file(requirements)}")


def command_form() -> Callable[[str], str]:
    """Return how messages write a command: in the form that started this process."""
    started = Path(sys.argv[0] or "-")
    if started.parent.name == "tools" and started.suffix == ".py":
        return lambda name: f"python tools/{name.replace('-', '_')}.py"
    if started.name == "__main__.py":
        return "python -m paddle_resnet {}".format
    return "paddle-resnet {}".format


def chosen_command(commands: Mapping[str, str]) -> str:
    """Return the command that the command line names; without one, list them all and exit."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name not in commands:
        end_with(lambda: _print_about_all(name, commands))
    return name


def _print_about_all(name: str, commands: Mapping[str, str]) -> None:
    if name not in ("-h", "--help", "--version"):
        raise UsageError(f"{shown(name)!r} is no command{did_you_mean(name, commands)}; --help lists them")
    lines = [f"usage: {command('COMMAND')} [options]", ""]
    lines += [f"  {each:<16}{about}" for each, about in commands.items()]
    print(__version__ if name == "--version" else "\n".join([*lines, "", "COMMAND --help shows its options."]))


def messages(language: str) -> Say:
    """Return what gives a text of ``cli/text.yaml`` in a language, with its values."""
    from paddle_resnet.lessons.framework.texts import LessonTexts

    texts = LessonTexts(Path(__file__).parent)
    return lambda key, **values: getattr(texts.fill(key, values), language)


def table(*columns: str, left: int = 1) -> Table:
    """Return a table whose first `left` columns are text and the others numbers."""
    from rich.table import Table

    result = Table(*columns)
    for column in result.columns[left:]:
        column.justify = "right"
    return result
