"""The two kinds of failure a person sees: one line each, no traceback."""

from __future__ import annotations

import difflib
import reprlib
import signal
from collections.abc import Callable, Iterable


class PaddleResNetError(Exception):
    """A failure that is explained in one line. `exit_code` is what a command-line tool exits with."""

    exit_code = 1


class UsageError(PaddleResNetError):
    """Something asked for is wrong (a key, a value, a path): the line says what was expected and what to do."""

    exit_code = 2


class RunFailure(PaddleResNetError):  # noqa: N818 (a failure of the run, no error of the user's)
    """The request was right, but it could not be carried out (a full disk, a loss that is not finite)."""

    exit_code = 1


WORDS_OF_SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}


class Stopped(KeyboardInterrupt):
    """A signal ended the work; what could be saved is saved. `exit_code` is what shells expect then."""

    def __init__(self, number: int) -> None:
        """Tell of the signal of that number."""
        super().__init__(WORDS_OF_SIGNALS[signal.Signals(number)])
        self.exit_code = 128 + number


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``' (did you mean "x"?)'`` for the known word nearest to `word`, or an empty string."""
    near = difflib.get_close_matches(word[:100], list(known), n=1, cutoff=0.5)
    return f' (did you mean "{near[0]}"?)' if near else ""


_command_form: list[Callable[[str], str]] = ["paddle-resnet {}".format]


def command(name: str) -> str:
    """Return how a user starts the command `name`: as this process was started, from a checkout or as installed."""
    return _command_form[0](name)


def set_command_form(form: Callable[[str], str]) -> None:
    """Let `command` write a command's name in this form."""
    _command_form[0] = form


def counted(number: int, noun: str) -> str:
    """Return `number` with its noun: ``1 image``, ``2 images``."""
    return f"{number} {noun}{'s' * (number != 1)}"


def printable(text: str, keep: str = "") -> str:
    r"""Return `text` with everything escaped that a terminal would obey or cannot show, as ``\x1b``, but for `keep`."""
    if text.isprintable():
        return text
    keep += "\xa0\u202f\u3000"  # spaces that names and Chinese text have
    return "".join(
        letter if letter.isprintable() or letter in keep else letter.encode("unicode_escape").decode()
        for letter in text
    )


def shown(value: object, limit: int = 80) -> str:
    r"""Return what a file or a user gave as text for an error: of bounded length, without characters that act.

    Args:
        value: text and bytes come without quotes; anything else as its `repr`, of which only the beginning is made.
        limit: characters at most; of longer text the middle is left out.

    Returns:
        One line in which a terminal finds no command: escape bytes, line ends, characters that turn the direction of
        writing and bytes that are no text stand as ``\x1b``, ``\n``, ``\u202e``, ``\udc80``.
    """
    if isinstance(value, bytes | bytearray):
        value = bytes(value[:limit]).decode("utf-8", "surrogateescape") + "..." * (len(value) > limit)
    text = value if isinstance(value, str) else _bounded_repr(value)
    if len(text) > limit:
        text = _cut(text, limit)
    text = printable(text)
    return _cut(text, limit) if len(text) > limit else text


def _bounded_repr(value: object) -> str:
    brief = reprlib.Repr()
    brief.maxlevel = 2
    try:
        return brief.repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"a very large {type(value).__name__}"


def _cut(text: str, limit: int) -> str:
    head = (limit - 3) * 2 // 3
    return f"{text[:head]}...{text[len(text) - (limit - 3 - head) :]}"
