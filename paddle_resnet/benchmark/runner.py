"""Measurements that take turns, each in a process of its own, so that thread pools and memory do not mix."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.files import scratch_folder

PROJECT = Path(__file__).resolve().parents[2]
ENTRY = "from paddle_resnet.benchmark.worker import work; work()"

Job = Mapping[str, Any]
Measurement = dict[str, Any]


def alternate(
    jobs: Mapping[str, Job], rounds: int, report: Callable[[str, int], None] | None = None
) -> dict[str, list[Measurement]]:
    """Do the jobs in turn, A B A B, `rounds` times.

    Args:
        jobs: by name.
        rounds: how often each is done.
        report: called with a job's name and the round, counted from 1, before it is done.

    Returns:
        The measurements of each job, by round.

    Raises:
        UsageError, RunFailure: what ended a job, in one line.
    """
    measured: dict[str, list[Measurement]] = {name: [] for name in jobs}
    for number in range(1, rounds + 1):
        for name, job in jobs.items():
            if report is not None:
                report(name, number)
            measured[name].append(run_apart(job, name))
    return measured


def run_apart(job: Job, name: str) -> Measurement:
    """Do one job in a new Python process; the errors are those of `alternate`."""
    search_path = [str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with scratch_folder() as folder:
        answer = folder / "answer.json"
        process = subprocess.run(
            [sys.executable, "-c", ENTRY],
            input=json.dumps({**job, "answer": str(answer)}),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(search_path)},
            capture_output=True,
            text=True,
        )
        if process.returncode != 0 or not answer.exists():
            raise RunFailure(f"{name}: the process ended with code {process.returncode}: {_last_line(process.stderr)}")
        measurement = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in measurement:
        kind = UsageError if measurement["exit_code"] == UsageError.exit_code else RunFailure
        raise kind(f"{name}: {measurement['error']}")
    return measurement


def values_of(measurements: Sequence[Measurement], key: str) -> list[float]:
    """One figure of each measurement."""
    return [measurement[key] for measurement in measurements]


def _last_line(text: str) -> str:
    lines = text.strip().splitlines() or ["it said nothing"]
    return lines[-1]
