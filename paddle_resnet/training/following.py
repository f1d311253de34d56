"""A run as a process sees it that is not the first of those that train it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from paddle_resnet import processes
from paddle_resnet.training.run_folder import EpochRecord, RunFolder


class FollowedRun(RunFolder):
    """A run's folder that is read here, and written by the first process."""

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nothing to lock: the first process has the folder."""
        yield

    def write_history(self, records: list[EpochRecord]) -> None:
        """The first process writes it."""

    def write_metrics(self, sections: dict[str, dict[str, Any]]) -> None:
        """The first process writes them."""


def as_seen_here(run: RunFolder) -> RunFolder:
    """Return the run for this process: written by the first, read by the others."""
    return run if processes.is_first() else FollowedRun(run.path, run.config)
