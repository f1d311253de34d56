"""The two kinds of failure a person sees: one line each, no traceback."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable


class PaddleResNetError(Exception):
    """A failure that is explained in one line. `exit_code` is what a command-line tool exits with."""

    exit_code = 1


class UsageError(PaddleResNetError):
    """Something asked for is wrong (a key, a value, a path): the line says what was expected and what to do."""

    exit_code = 2


class RunFailure(PaddleResNetError):  # noqa: N818 (a failure of the run, no error of the user's)
    """The request was right, but it could not be carried out (a full disk, a loss that is not finite)."""

    exit_code = 1


class Stopped(KeyboardInterrupt):
    """A signal ended a run between two steps; what it had done is saved. `exit_code` is what shells expect then."""

    def __init__(self, number: int) -> None:
        """Tell of the signal of that number."""
        super().__init__("interrupted" if number == signal.SIGINT else "terminated")
        self.exit_code = 128 + number


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``' (did you mean "x"?)'`` for the known word nearest to `word`, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f' (did you mean "{near[0]}"?)' if near else ""
