"""Benchmark `kernels`: single operations, forward and backward, by each backend."""

from __future__ import annotations

from collections.abc import Sequence

from paddle_resnet.benchmark.cases import KERNELS, PASSES, Kernel
from paddle_resnet.benchmark.report import Column, Report, Row, rate, summarise
from paddle_resnet.benchmark.runner import Job, run_jobs
from paddle_resnet.plots.bar_chart import Bar, Panel
from paddle_resnet.runtime import default_threads


def benchmark_kernels(
    backends: Sequence[str], rounds: int, repeats: int, kernels: Sequence[Kernel] = KERNELS, against: Sequence[str] = ()
) -> Report:
    """Time each operation by each of `backends` (native, onednn) and of `against` (torch).

    Raises:
        UsageError, RunFailure: a backend cannot be used here, or its process failed.
    """
    backends = [*backends, *against]
    measured = run_jobs({name: _job(name, kernels, repeats) for name in backends}, rounds)
    rows: list[Row] = []
    for kernel in kernels:
        for name in PASSES:
            row: Row = {"kernel": kernel.name, "pass": name, "unit": kernel.unit}
            for backend, runs in measured.items():
                row[backend] = summarise([run["speeds"][kernel.name][name] for run in runs])
            rows.append(row)
    return Report(
        command="kernels",
        title="Single operations on the CPU, float32",
        settings={"rounds": rounds, "repeats": repeats},
        rows=rows,
        columns=[
            Column("operation", "kernel"),
            Column("pass", "pass"),
            *(Column(name, name, rate) for name in backends),
            Column("unit", "unit"),
        ],
        panels=_panels(rows, backends),
    )


def _job(backend: str, kernels: Sequence[Kernel], repeats: int) -> Job:
    job = {"kernels": [list(kernel) for kernel in kernels], "repeats": repeats}
    if backend == "torch":
        return {**job, "kind": "kernels_torch", "threads": default_threads()}
    return {**job, "kind": "kernels", "backend": backend}


def _panels(rows: Sequence[Row], backends: Sequence[str]) -> list[Panel]:
    """Make a panel for each pass and unit."""
    groups: dict[tuple[str, str], list[Bar]] = {}
    for row in rows:
        bars = groups.setdefault((row["unit"], row["pass"]), [])
        bars += [Bar("" if number else row["kernel"], name, row[name]) for number, name in enumerate(backends)]
    return [Panel(name, unit, bars) for (unit, name), bars in groups.items()]
