"""Errors that a user sees as one line, without a traceback, and the words that such lines are made of."""

from __future__ import annotations

import difflib
import os
import reprlib
import shlex
import signal
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral


class PaddleResNetError(Exception):
    """A failure explained in one line. `exit_code` is that of the command that it ends."""

    exit_code = 1


class UsageError(PaddleResNetError):
    """The user asked for something wrong (a key, a value, a path): the line says what was expected and what to do."""

    exit_code = 2


class RunFailure(PaddleResNetError):  # noqa: N818 (not an error of the user's)
    """The request was right but could not be carried out (a full disk, a loss that is not finite)."""


_STOP_SIGNALS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up", "SIGBREAK": "interrupted"}
# The signals that ask a program to end, of a terminal, a service manager or a closed window; those this system has.
SIGNAL_WORDS: dict[signal.Signals, str] = {
    getattr(signal, name): word for name, word in _STOP_SIGNALS.items() if hasattr(signal, name)
}


class Stopped(KeyboardInterrupt):
    """A signal ended the work, and what could be saved is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(SIGNAL_WORDS[signal.Signals(number)])
        self.exit_code = 128 + number  # what shells expect
        self.remedy = ""  # how the work goes on, as the end of the message

    def __str__(self) -> str:
        return "; ".join(filter(None, [*self.args, self.remedy]))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``' (did you mean "x"?)'`` for the known word nearest to `word`, or an empty string."""
    near = difflib.get_close_matches(word[:100], list(known), n=1, cutoff=0.5)
    return f' (did you mean "{near[0]}"?)' if near else ""


_command_form: list[Callable[[str], str]] = ["paddle-resnet {}".format]


def command(name: str, *arguments: object) -> str:
    """Return how a user starts a command, in the way this process was started; arguments are quoted for a shell."""
    return " ".join([_command_form[0](name), *(quoted(str(argument)) for argument in arguments)])


def quoted(argument: str) -> str:
    """Quote an argument as the shells of this system need it, so that a printed command can be copied."""
    if os.name == "nt":
        from subprocess import list2cmdline  # takes a while, and few need it

        return list2cmdline([argument])
    return shlex.quote(argument)


def set_command_form(form: Callable[[str], str]) -> None:
    """Set how `command` writes a command's name."""
    _command_form[0] = form


def counted(number: int, noun: str) -> str:
    """Return `number` with its noun: ``1 image``, ``2 images``."""
    return f"{number} {noun}{'s' * (number != 1)}"


def require_count(argument: str, number: object, most: int | None = None, least: int = 1) -> None:
    """Raise a `UsageError` that names the argument, unless it is a whole number from `least` to `most`."""
    is_whole = isinstance(number, Integral) and not isinstance(number, bool)
    if not is_whole or number < least or (most is not None and number > most):  # type: ignore[operator]
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise UsageError(f"{argument}: expected a whole number {bounds}, got {shown(repr(number))}")


def require_one_of(argument: str, value: object, known: Sequence[str]) -> None:
    """Raise a `UsageError` that names the argument, unless its value is one of the known words."""
    if value not in known:
        suggestion = did_you_mean(value, known) if isinstance(value, str) else ""
        raise UsageError(f"{argument}: expected one of {', '.join(known)}, got {shown(repr(value))}{suggestion}")


def printable(text: str, keep: str = "") -> str:
    r"""Return `text` with control and unprintable characters escaped, as ``\x1b``, except those in `keep`."""
    if text.isprintable():
        return text
    keep += "\xa0\u202f\u3000"  # spaces that names and Chinese text have
    return "".join(
        letter if letter.isprintable() or letter in keep else letter.encode("unicode_escape").decode()
        for letter in text
    )


def shown(value: object, limit: int = 80) -> str:
    r"""Return a value of a file or a user as text for an error line: of bounded length, without control characters.

    Text and bytes are shown without quotes, anything else as the beginning of its `repr`. Of more characters than
    `limit` the middle is left out. Escape bytes, line ends, characters that change the direction of writing and bytes
    that are not text appear as ``\x1b``, ``\n``, ``\u202e``, ``\udc80``.
    """
    if isinstance(value, bytes | bytearray):
        value = bytes(value[:limit]).decode("utf-8", "surrogateescape") + "..." * (len(value) > limit)
    if not isinstance(value, str):
        brief = reprlib.Repr()
        brief.maxlevel = 2
        try:
            value = brief.repr(value)
        except ValueError:  # an integer of thousands of digits
            value = f"a very large {type(value).__name__}"
    return _cut(printable(_cut(value, limit)), limit)


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    head = (limit - 3) * 2 // 3
    return f"{text[:head]}...{text[len(text) - (limit - 3 - head) :]}"
