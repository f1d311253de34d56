"""What every tool shares: finding the package, `--debug`, one-line errors, exit codes.

Import it first: it puts the project on the path and prepares the process before paddle is imported.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TextIO

PROJECT = Path(__file__).resolve().parents[1]
if str(PROJECT) not in sys.path:
    sys.path.insert(0, str(PROJECT))

from paddle_resnet.errors import PaddleResNetError, Stopped, UsageError, printable, shown  # noqa: E402

INTERRUPTED = 130
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


def run_tool(parser: argparse.ArgumentParser, action: Callable[[argparse.Namespace], None]) -> NoReturn:
    """Parse the command line, call `action`, and exit: 0, 1 (failure), 2 (wrong use), 130 (Ctrl-C) or 143 (SIGTERM)."""
    sys.stdout, sys.stderr = (stream and PlainStream(stream) for stream in (sys.stdout, sys.stderr))
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    arguments = parser.parse_args()
    try:
        action(arguments)
        sys.stdout.flush()
    except PaddleResNetError as error:
        _fail(str(error), error.exit_code, arguments.debug)
    except Stopped as stopped:
        _fail(str(stopped), stopped.exit_code, arguments.debug)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED, arguments.debug)
    except BrokenPipeError:
        print_no_more()
        sys.exit(0)
    except OSError as error:  # a full disk, a folder that may not be written
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror or error}", 1, arguments.debug)
    except Exception as error:  # a fault of ours: still one line, with the way to the traceback
        _fail(f"{type(error).__name__}: {error} (a fault of the program: --debug shows where)", 1, arguments.debug)
    sys.exit(0)


def print_no_more() -> None:
    """Point stdout elsewhere: its reader (head, less) has closed it, and the interpreter will flush it at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def prepare(*, together: bool = False) -> None:
    """Import paddle, quietly, and let log lines appear: called once the arguments have been found good.

    Without `together`, the tool refuses to be one of several processes of `paddle.distributed.launch`.
    """
    from paddle_resnet import console, processes, runtime

    launched = processes.launched().count
    if launched > 1 and not together:
        raise UsageError(f"one of {launched} processes of paddle.distributed.launch: start this tool alone")
    runtime.import_paddle()
    console.show_lines()


def require(requirements: str, *modules: str) -> None:
    """See that the packages of a requirements file are there, by the names under which they are imported."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"not installed: {', '.join(missing)}; pip install -r {requirements}")


def described(usage: str) -> argparse.ArgumentParser:
    """Make a parser whose `--help` shows the tool's docstring as it is written."""
    description, _, epilog = usage.strip().partition("\n\n")
    return argparse.ArgumentParser(
        description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add where a run's data are now: the overrides of `RunFolder.open_trained`."""
    parser.add_argument(
        "-o", "--override", action="append", default=[], metavar="KEY=VALUE", help="data.root=FOLDER: moved data"
    )


def add_answering(parser: argparse._ActionsContainer) -> None:
    """Add where and how an exported model answers: the arguments of `Predictor` of the same names."""
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu, gpu or gpu:<i>; default: auto")
    parser.add_argument("--precision", choices=["fp32", "fp16", "bf16", "int8"], help="default: fp32")
    parser.add_argument(
        "--backend", choices=["paddle", "onnxruntime", "tensorrt"], help="default: as docs/deployment.md says"
    )


def positive(text: str) -> int:
    """Read a whole number of at least 1: an argument's `type`."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def _fail(message: str, code: int, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    print("error: " + shown(" ".join(message.split()), LONGEST_LINE), file=sys.stderr)
    sys.exit(code)
