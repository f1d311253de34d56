"""Benchmark `kernels`: single operations, forward and backward, by each backend in turn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from paddle_resnet.benchmark.kernels.cases import KERNELS, Kernel
from paddle_resnet.benchmark.report import Column, Report, Row, rate
from paddle_resnet.benchmark.runner import Job, alternate
from paddle_resnet.benchmark.timing import summarise
from paddle_resnet.console import logger
from paddle_resnet.machine import physical_cores
from paddle_resnet.plots.bar_chart import Bar, Panel
from paddle_resnet.runtime import prepare_process, thread_count

PASSES = ("forward", "backward")


def benchmark_kernels(
    backends: Sequence[str], rounds: int, repeats: int, command_line: str, kernels: Sequence[Kernel] = KERNELS
) -> Report:
    """Time each operation by each of `backends` (native, onednn, torch).

    Raises:
        UsageError, RunFailure: a backend cannot be used here, or its process ended.
    """
    jobs = {name: _job(name, kernels, repeats) for name in backends}
    measured = alternate(jobs, rounds, lambda name, number: logger.info("round %d/%d, %s", number, rounds, name))
    rows: list[Row] = []
    for kernel in kernels:
        for direction in PASSES:
            row: Row = {"kernel": kernel.name, "pass": direction, "unit": kernel.unit}
            for name, runs in measured.items():
                row[name] = summarise([run["speeds"][kernel.name][direction] for run in runs]).as_json()
            rows.append(row)
    return Report(
        command="kernels",
        title="Single operations on the CPU, float32",
        settings={"command_line": command_line, "rounds": rounds, "repeats": repeats},
        rows=rows,
        columns=[
            Column("operation", lambda row: row["kernel"]),
            Column("pass", lambda row: row["pass"]),
            *(Column(name, partial(_speed, name)) for name in backends),
            Column("unit", lambda row: row["unit"]),
        ],
        panels=_panels(rows, backends),
    )


def _job(backend: str, kernels: Sequence[Kernel], repeats: int) -> Job:
    job: dict[str, Any] = {"kernels": [list(kernel) for kernel in kernels], "repeats": repeats}
    if backend == "torch":
        return {**job, "kind": "kernels_torch", "threads": thread_count(prepare_process().threads) or physical_cores()}
    return {**job, "kind": "kernels", "backend": backend}


def _speed(backend: str, row: Row) -> str:
    return rate(row[backend])


def _panels(rows: Sequence[Row], backends: Sequence[str]) -> list[Panel]:
    """One for each pass of what arithmetic limits, and of what memory limits."""
    groups: dict[tuple[str, str], list[Bar]] = {}
    for row in rows:
        bars = groups.setdefault((row["unit"], row["pass"]), [])
        bars += [Bar("" if number else row["kernel"], name, row[name]) for number, name in enumerate(backends)]
    return [Panel(direction, unit, bars) for (unit, direction), bars in groups.items()]
