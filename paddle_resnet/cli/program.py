"""What every command shares: `--debug`, one-line errors, signals, standard streams, exit codes."""

# ruff: noqa: E402
from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from paddle_resnet.shipped import requirements_file

PROJECT = Path(__file__).resolve().parents[2]


def _is_program() -> bool:
    """Whether a command is this process's program: a test runs several in its own, and worker processes import them."""
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
NAME = ""
"""The command's; set when it is started."""


def exit_on_signal(number: int, frame: FrameType | None = None) -> NoReturn:
    """End the process on a signal, where there is nothing to save or no time to."""
    if not _stopping():
        words = {signal.SIGINT: b"interrupted", signal.SIGTERM: b"terminated"}.get(signal.Signals(number), b"hung up")
        with contextlib.suppress(OSError):
            os.write(2, b"error: " + words + b"\n")
    os._exit(128 + number)


def _stopping() -> bool:
    """Whether a first signal has been told already."""
    known = sys.modules.get("paddle_resnet.signals")
    return known is not None and bool(known.asked())


if IS_PROGRAM:  # the imports below take their time, and do nothing that could be lost
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, exit_on_signal)

import argparse
import errno
import importlib.util
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping

from paddle_resnet import __version__, distributed, signals, streams
from paddle_resnet.errors import PaddleResNetError, Stopped, UsageError, command, did_you_mean, printable, shown
from paddle_resnet.inference.options import BACKENDS, PRECISIONS

SECONDS_TO_A_SECOND_SIGNAL = 0.5
"""What comes sooner is the first one again: `timeout` sends SIGTERM twice, a closed terminal SIGHUP."""
LONGEST_LINE = 800


class PlainStream:
    """A stream to which nothing is written that a terminal would obey, whatever names stand in a line."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream  # by this name rich finds where its own colours and bars go

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)

    def write(self, text: str) -> int:
        """Write the text, escaped."""
        return self.rich_proxied_file.write(printable(text, keep="\n\t"))


def run(
    parser: argparse.ArgumentParser,
    action: Callable[[argparse.Namespace], None],
    *,
    goes_on: bool = True,
    in_files: bool = False,
) -> NoReturn:
    """Parse the command line, call `action`, and exit: 0, 1 (failure), 2 (wrong use), or 128 and a signal's number.

    The first SIGINT, SIGTERM or SIGHUP raises `Stopped` in `action`, or what becomes of that in compiled code; a second
    SIGINT or SIGTERM ends the process at once, whatever it is at.

    Args:
        parser: of the tool's own arguments.
        action: the tool.
        goes_on: when standard output is lost, the work goes on; otherwise it ends, as it only prints.
        in_files: what is printed is in files too, so that its loss is no failure.
    """
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    streams.prepare(goes_on=goes_on)
    sys.stdout, sys.stderr = PlainStream(sys.stdout), PlainStream(sys.stderr)
    with _ended_by_signals():
        try:
            try:
                action(parser.parse_args())
            finally:
                sys.stdout.flush()
            if signals.asked():
                raise Stopped(signals.asked())
            code = 0
        except BaseException as error:
            with signals.deferred():
                code = _end(error)
        if code == 0 and (lost := streams.output_loss()) is not None and lost.errno != errno.EPIPE:
            code = _say("warning" if in_files else "error", _in_words(lost), 0 if in_files else 1)
    sys.exit(code)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    with signals.stoppable():
        if IS_PROGRAM and distributed.launched().world_size == 1:
            reading, writing = os.pipe()
            os.set_blocking(writing, False)
            signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
            with signals.blocked():  # they are the main thread's, which alone can block and handle them
                threading.Thread(target=_end_on_second, args=(reading,), daemon=True).start()
        yield


def _end_on_second(reading: int) -> None:
    """End the process on a second signal, also while the main thread is in a step that hangs in compiled code."""
    first = None
    while number := os.read(reading, 1):
        now = time.monotonic()
        if number[0] not in signals.SIGNALS:
            continue
        if first is None:
            first = now
        elif number[0] != signal.SIGHUP and now - first > SECONDS_TO_A_SECOND_SIGNAL:
            exit_on_signal(number[0])


def _end(error: BaseException) -> int:
    """Tell in one line what ended the tool; return its exit code."""
    if "--debug" in sys.argv and not isinstance(error, SystemExit):
        traceback.print_exception(error)
    if signals.asked() and not isinstance(error, Stopped):
        error = Stopped(signals.asked())
    if isinstance(error, PaddleResNetError | Stopped):
        return _say("error", str(error), error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return _say("error", "interrupted", 128 + signal.SIGINT)
    lost = streams.output_loss()
    if isinstance(error, OSError | SystemExit) and lost is not None:  # rich makes a SystemExit of it
        return 0 if lost.errno == errno.EPIPE else _say("error", _in_words(lost), 1)
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, OSError):  # a full disk, a folder that may not be written
        return _say("error", _in_words(error), 1)
    # A fault of ours: still one line, with the way to the traceback.
    return _say("error", f"{type(error).__name__}: {error} (a fault of the program: --debug shows where)", 1)


def _in_words(error: OSError) -> str:
    return (f"{error.filename}: " if error.filename else "") + str(error.strerror or error)


def _say(kind: str, message: str, code: int) -> int:
    print(f"{kind}: " + shown(" ".join(message.split()), LONGEST_LINE), file=sys.stderr)
    return code


def prepare(*, together: bool = False) -> None:
    """Import paddle, quietly, and let log lines appear: called once the arguments have been found good.

    Without `together`, the tool refuses to be one of several processes of `paddle.distributed.launch`.
    """
    from paddle_resnet import console, distributed, runtime

    launched = distributed.launched().world_size
    if launched > 1 and not together:
        raise UsageError(f"one of {launched} processes of paddle.distributed.launch: start this tool alone")
    runtime.import_paddle()
    console.show_lines()


def require(requirements: str, *modules: str) -> None:
    """See that the packages of a requirements file are there, by the names under which they are imported."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"not installed: {', '.join(missing)}; pip install -r {requirements_file(requirements)}")


def command_form() -> Callable[[str], str]:
    """Return how this process writes a command: as it was started itself."""
    started = Path(sys.argv[0] or "-")
    if started.parent.name == "tools" and started.suffix == ".py":
        return lambda name: f"python tools/{name.replace('-', '_')}.py"
    if started.name == "__main__.py":
        return "python -m paddle_resnet {}".format
    return "paddle-resnet {}".format


def chosen_command(commands: Mapping[str, str]) -> str:
    """Return the command that the command line names; without one, show them all and exit."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in commands:
        return name
    if name in ("-h", "--help", "--version"):
        lines = [f"usage: {command('COMMAND')} [options]", ""]
        lines += [f"  {each:<16}{about}" for each, about in commands.items()]
        print(__version__ if name == "--version" else "\n".join([*lines, "", "COMMAND --help shows its options."]))
        sys.exit(0)
    sys.exit(_say("error", f"{shown(name)!r} is no command{did_you_mean(name, commands)}; --help lists them", 2))


def command_parser(usage: str) -> argparse.ArgumentParser:
    """Make a parser whose `--help` shows a command's docstring, with the commands as this process was started."""
    usage = re.sub(r"\bpaddle-resnet ([a-z]+(-[a-z]+)*)", lambda found: command(found[1]), usage.strip())
    description, _, epilog = usage.partition("\n\n")
    return argparse.ArgumentParser(
        prog=command(NAME),
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_data_override(parser: argparse.ArgumentParser) -> None:
    """Add where a run's data are now: the overrides of `RunFolder.open_trained`."""
    parser.add_argument(
        "-o", "--override", action="append", default=[], metavar="KEY=VALUE", help="data.root=FOLDER: moved data"
    )


def add_inference_options(parser: argparse._ActionsContainer) -> None:
    """Add where and how an exported model answers: the arguments of `Predictor` of the same names."""
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu, gpu or gpu:<i>; default: auto")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: fp32")
    parser.add_argument("--backend", choices=BACKENDS, help="default: as docs/deployment.md says")


def positive_int(text: str) -> int:
    """Read a whole number of at least 1: an argument's `type`."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)
