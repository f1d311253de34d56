"""Benchmark `train`: whole training steps, ours through `paddle.Model.fit` and PyTorch's, in turn."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from functools import partial
from typing import Any

from paddle_resnet.benchmark.networks import describe
from paddle_resnet.benchmark.report import Column, Report, Row, rate, spread
from paddle_resnet.benchmark.runner import Job, Measurement, alternate, values_of
from paddle_resnet.benchmark.timing import paired_ratios, summarise
from paddle_resnet.benchmark.train.backends import OURS, TORCH
from paddle_resnet.benchmark.train.cases import TrainCase, training_operations
from paddle_resnet.console import logger
from paddle_resnet.machine import physical_cores
from paddle_resnet.models import create_model
from paddle_resnet.plots.bar_chart import Bar, Panel
from paddle_resnet.runtime import prepare_process, thread_count


def benchmark_training(
    cases: Sequence[TrainCase], backends: Sequence[str], rounds: int, steps: int, warm_up: int, command_line: str
) -> Report:
    """Train each case with each backend, `rounds` times in turn, `steps` counted steps each time.

    Args:
        cases: what is trained.
        backends: names of `backends.OURS` and `backends.TORCH`.
        rounds: runs of each, at least 1.
        steps: steps that count, at least 1.
        warm_up: steps before them, at least 1.
        command_line: for the report.

    Raises:
        UsageError: an unknown network, or a backend that cannot be used here.
        RunFailure: a run ended.
    """
    rows: list[Row] = []
    for case in cases:
        operations = training_operations(create_model(case.network), case.size)
        jobs = {name: training_job(case, name, steps, warm_up) for name in backends}
        measured = alternate(jobs, rounds, partial(_say, case, rounds))
        rows += training_rows(case, measured, operations)
    return Report(
        command="train",
        title="Training on the CPU, images/s",
        settings={"command_line": command_line, "rounds": rounds, "steps": steps, "warm_up_steps": warm_up},
        rows=rows,
        columns=COLUMNS,
        panels=[_panel(case, rows) for case in cases],
    )


def training_job(case: TrainCase, backend: str, steps: int, warm_up: int) -> Job:
    """The job of one run."""
    job: dict[str, Any] = {"case": str(case), "steps": steps, "warm_up": warm_up}
    if backend in TORCH:
        threads = thread_count(prepare_process().threads) or physical_cores()
        network = describe(case.network)
        return {**job, "kind": "train_torch", "network": network, "precision": TORCH[backend], "threads": threads}
    return {**job, "kind": "train", "backend": backend}


def training_rows(case: TrainCase, measured: Mapping[str, Sequence[Measurement]], operations: int) -> list[Row]:
    """A row for each backend of a case; `operations` are those of one image."""
    # One machine has one rate: the fastest product that any of these processes has seen.
    product = max(value for runs in measured.values() for value in values_of(runs, "product_gflops"))
    rows = []
    for backend, runs in measured.items():
        speeds = summarise(values_of(runs, "images_per_second"))
        rows.append(
            {
                "case": str(case),
                "backend": backend,
                "images_per_second": {**speeds.as_json(), "runs": values_of(runs, "images_per_second")},
                "ratio_to_torch": _ratio(runs, measured.get(torch_counterpart(backend, measured)), "images_per_second"),
                "ratio_to_native": _ratio(runs, measured.get("native"), "images_per_second"),
                "peak_megabytes": summarise(values_of(runs, "peak_megabytes")).as_json(),
                "memory_ratio_to_native": _ratio(runs, measured.get("native"), "peak_megabytes"),
                "waiting_share": summarise(values_of(runs, "waiting_share")).as_json(),
                "product_gflops": product,
                "share_of_product_rate": speeds.median * operations / 1e9 / product,
                "step_seconds": [run["step_seconds"] for run in runs],
            }
        )
    return rows


def torch_counterpart(backend: str, measured: Container[str]) -> str:
    """PyTorch in the backend's own precision if that was measured, else in float32."""
    precision = TORCH.get(backend) or OURS[backend].get("cpu_precision", "float32")
    name = next(name for name, computes_in in TORCH.items() if computes_in == precision)
    return name if name in measured else "torch"


def _ratio(runs: Sequence[Measurement], references: Sequence[Measurement] | None, key: str) -> dict[str, Any] | None:
    if references is None:
        return None
    ratios = paired_ratios(values_of(runs, key), values_of(references, key))
    return {**summarise(ratios).as_json(), "rounds": ratios}


COLUMNS = (
    Column("case", lambda row: row["case"]),
    Column("backend", lambda row: row["backend"]),
    Column("images/s", lambda row: rate(row["images_per_second"])),
    Column("of torch's", lambda row: spread(row["ratio_to_torch"])),
    Column("of native's", lambda row: spread(row["ratio_to_native"])),
    Column("peak MB", lambda row: f"{row['peak_megabytes']['median']:.0f}"),
    Column("of native's", lambda row: spread(row["memory_ratio_to_native"])),
    Column("waiting", lambda row: f"{row['waiting_share']['median']:.1%}"),
    Column("of GEMM rate", lambda row: f"{row['share_of_product_rate']:.0%}"),
)


def _panel(case: TrainCase, rows: Sequence[Row]) -> Panel:
    bars = [Bar(row["backend"], row["backend"], row["images_per_second"]) for row in rows if row["case"] == str(case)]
    return Panel(f"{case.network}, {case.size}x{case.size}, batch {case.batch}", "images/s", bars)


def _say(case: TrainCase, rounds: int, name: str, number: int) -> None:
    logger.info("%s: round %d/%d, %s", case, number, rounds, name)
