"""What the options of the commands share: their parser, types of values, and groups of options."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from paddle_resnet.cli import program
from paddle_resnet.errors import UsageError, command
from paddle_resnet.inference.options import BACKENDS, PRECISIONS

Value = TypeVar("Value")


class _Parser(argparse.ArgumentParser):
    """Wrong arguments are errors of one line, as all others."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; --help shows the options")


def command_parser(usage: str | None) -> argparse.ArgumentParser:
    """Return a parser whose `--help` shows a command's docstring, with commands in the form of `command_form`."""
    usage = re.sub(r"\bpaddle-resnet ([a-z]+(-[a-z]+)*)", lambda found: command(found[1]), (usage or "").strip())
    description, _, epilog = usage.partition("\n\n")
    name = command(program.NAME) if program.NAME else None  # a script has its own
    layout = argparse.RawDescriptionHelpFormatter
    return _Parser(prog=name, description=description, epilog=epilog, formatter_class=layout)


def add_overrides(parser: argparse.ArgumentParser, text: str = "change one key; may be repeated") -> None:
    """Add ``-o KEY=VALUE``, as the list `overrides`."""
    flags = "-o", "--override"
    parser.add_argument(*flags, dest="overrides", action="append", default=[], metavar="KEY=VALUE", help=text)


def add_language(parser: argparse.ArgumentParser) -> None:
    """Add ``--language``, of what the command prints."""
    parser.add_argument("--language", choices=["en", "zh"], default="en", help="of what it prints; default: en")


def checked(read: Callable[[str], Value], allows: Callable[[Value], object], expected: str) -> Callable[[str], Value]:
    """Return an argument's `type`: what `read` makes of a text, if it `allows` that; `expected` says so in words."""

    def parse(text: str) -> Value:
        with contextlib.suppress(ValueError):
            if allows(value := read(text)):
                return value
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")

    return parse


def whole(text: str) -> int:
    """Parse decimal digits; anything else is -1."""
    return int(text) if text.isdecimal() else -1


fraction = checked(float, lambda value: 0 <= value <= 1, "a number from 0 to 1")
positive_int = checked(whole, lambda value: 1 <= value < 2**31, "a whole number of at least 1 (and below 2**31)")


def repeat_overrides(overrides: Sequence[str], changed: Mapping[str, object]) -> list[str]:
    """Return the arguments ``-o key=value`` that repeat overrides, with other values of the `changed` keys."""
    kept = [each for each in overrides if each.partition("=")[0] not in changed]
    return [part for each in (*kept, *(f"{key}={value}" for key, value in changed.items())) for part in ("-o", each)]


def path(text: str) -> Path:
    """Parse a path; not every shell expands the ``~`` of an argument."""
    from paddle_resnet.paths import expand_home

    return expand_home(text)


def file_with(suffix: str) -> Callable[[str], Path]:
    """Return the `type` of an argument that names a file to write, so that no file of another kind is overwritten."""
    return checked(path, lambda file: file.name.lower().endswith(suffix), f"a name that ends in {suffix}")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands on a trained run: its folder, the checkpoint, moved data and the device."""
    parser.add_argument("run", metavar="RUN", help="a run's folder, as `paddle-resnet train` makes it")
    parser.add_argument("--checkpoint", choices=["best", "last"], default="best", help="default: best, by validation")
    add_overrides(parser, "data.root=FOLDER: moved data")
    parser.add_argument("--device", metavar="DEVICE", help="auto, cpu, gpu or gpu:<i>; default: the config's")


def add_inference_options(parser: argparse._ActionsContainer) -> None:
    """Add the arguments of `Predictor` of the same names."""
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu, gpu or gpu:<i>; default: auto")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: fp32")
    parser.add_argument("--backend", choices=BACKENDS, help="default: as docs/deployment.md says")


def add_engine_options(parser: argparse._ActionsContainer) -> None:
    """Add `engine` and the `address` of a Ray cluster."""
    parser.add_argument("--engine", choices=["local", "ray"], default="local", help="default: local, this machine")
    cluster = "of --engine ray: a running cluster (auto, HOST:PORT), or one of this machine's cores; default: local"
    parser.add_argument("--address", metavar="auto|local", help=cluster)


def uses_ray(arguments: argparse.Namespace, *local: str) -> bool:
    """Return whether `engine` is Ray; raise a UsageError if it is not installed, or an option is of `local` alone.

    An `address` without Ray is a UsageError too.
    """
    if arguments.engine != "ray":
        if arguments.address is not None:
            raise UsageError(f"--address {arguments.address}: is of a Ray cluster; give --engine ray, or leave it out")
        return False
    for option in local:
        if getattr(arguments, option):
            raise UsageError(f"--{option}: is not for --engine ray; leave it out, or use --engine local")
    program.require("ray.txt", "ray", "pyarrow")
    return True


def add_number(parser: argparse._ActionsContainer, flag: str, text: str, **options: Any) -> None:
    """Add a whole number of at least 1; `text` is its help."""
    parser.add_argument(flag, **{"type": positive_int, "metavar": "N", "help": text, **options})


def count_or(word: str, value: int | None = None) -> Callable[[str], int | None]:
    """Return the `type` of an argument that is a whole number of at least 1, or `word`, which means `value`."""
    return lambda text: value if text == word else positive_int(text)
