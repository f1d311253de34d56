"""Benchmark `infer`: latency and throughput of an exported model, by backend, precision, batch size and threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from paddle_resnet.benchmark.networks import describe
from paddle_resnet.benchmark.report import Column, Report, Row, rate, spread
from paddle_resnet.benchmark.runner import Job, Measurement, alternate, values_of
from paddle_resnet.benchmark.timing import paired_ratios, summarise
from paddle_resnet.benchmark.train.backends import TORCH
from paddle_resnet.console import logger
from paddle_resnet.errors import UsageError
from paddle_resnet.inference.backends import choose
from paddle_resnet.inference.inference_config import InferenceConfig, find_model
from paddle_resnet.plots.bar_chart import Bar, Panel

FIGURES = ("images_per_second", "p50_ms", "p95_ms", "p99_ms", "peak_megabytes")
REFERENCE = "onnxruntime fp32"


class Case(NamedTuple):
    """What is timed: who answers ("paddle bf16", "torch"), images a call, threads."""

    answering: str
    batch: int
    threads: int

    def __str__(self) -> str:
        return f"{self.answering}, batch {self.batch}, threads {self.threads}"


def benchmark_inference(
    model: Path,
    batches: Sequence[int],
    threads: Sequence[int],
    rounds: int,
    calls: int,
    command_line: str,
    *,
    precisions: Sequence[str] | None = None,
    backends: Sequence[str] | None = None,
    against: Sequence[str] = (),
) -> Report:
    """Time an exported model through `deploy.Predictor`, each combination in turn, in each of `rounds`.

    Args:
        model: the exported folder, or its run's.
        batches: numbers of images a call.
        threads: numbers of threads.
        rounds: runs of each.
        calls: timed calls of a run, at least.
        command_line: for the report.
        precisions: of those that were exported; None: all that this machine can use.
        backends: of "paddle" and "onnxruntime"; None: both.
        against: names of `backends.TORCH`.

    Raises:
        UsageError: there is no model, or nothing of it is left to measure.
        RunFailure: a run ended.
    """
    folder = find_model(model).resolve()
    config = InferenceConfig.load(folder)
    answering = [*_offered(folder, config, precisions, backends), *against]
    cases = [Case(*each) for each in product(answering, batches, threads)]
    jobs = {str(case): _job(case, folder, config, calls) for case in cases}
    measured = alternate(jobs, rounds, lambda name, number: logger.info("round %d/%d, %s", number, rounds, name))
    rows = [_row(case, measured) for case in cases]
    return Report(
        command="infer",
        title=f"Inference on the CPU: {config.model}, {config.input.image_size}x{config.input.image_size}",
        settings={"command_line": command_line, "model": str(model), "rounds": rounds, "calls": calls},
        rows=rows,
        columns=COLUMNS,
        panels=[_panel(rows, batch, count) for batch in batches for count in threads],
    )


def _offered(
    folder: Path, config: InferenceConfig, precisions: Sequence[str] | None, backends: Sequence[str] | None
) -> list[str]:
    """What was exported and asked for; what this machine cannot use is told and left out."""
    found = []
    for precision, by in config.precisions.items():
        for backend in by:
            if (precisions is not None and precision not in precisions) or (backends and backend not in backends):
                continue
            try:
                choose(folder, config, "cpu", precision, backend)
            except UsageError as error:
                logger.info("left out: %s", error)
                continue
            found.append(f"{backend} {precision}")
    if not found:
        offers = ", ".join(f"{backend} {precision}" for precision, by in config.precisions.items() for backend in by)
        raise UsageError(f"{folder}: nothing to measure of what it offers ({offers}); export what is to be compared")
    return found


def _job(case: Case, folder: Path, config: InferenceConfig, calls: int) -> Job:
    job: dict[str, Any] = {"batch": case.batch, "threads": case.threads, "calls": calls, "warm_up": max(3, calls // 10)}
    if case.answering in TORCH:
        network = {**describe(config.model), "num_classes": len(config.classes)}
        size = config.input.image_size
        return {**job, "kind": "infer_torch", "network": network, "size": size, "precision": TORCH[case.answering]}
    backend, precision = case.answering.split()
    return {**job, "kind": "infer", "model": str(folder), "backend": backend, "precision": precision}


def _row(case: Case, measured: Mapping[str, Sequence[Measurement]]) -> Row:
    runs, reference = measured[str(case)], measured.get(str(case._replace(answering=REFERENCE)))
    row: Row = {"answering": case.answering, "batch": case.batch, "threads": case.threads, "ratio_to_onnx": None}
    row |= {figure: summarise(values_of(runs, figure)).as_json() for figure in FIGURES}
    if reference is not None:
        ratios = paired_ratios(values_of(runs, "images_per_second"), values_of(reference, "images_per_second"))
        row["ratio_to_onnx"] = {**summarise(ratios).as_json(), "rounds": ratios}
    return row


COLUMNS = (
    Column("answering", lambda row: row["answering"]),
    Column("batch", lambda row: str(row["batch"])),
    Column("threads", lambda row: str(row["threads"])),
    Column("images/s", lambda row: rate(row["images_per_second"])),
    Column("of ONNX fp32", lambda row: spread(row["ratio_to_onnx"])),
    Column("p50, ms", lambda row: spread(row["p50_ms"], 3)),
    Column("p95, ms", lambda row: spread(row["p95_ms"], 3)),
    Column("p99, ms", lambda row: spread(row["p99_ms"], 3)),
    Column("peak MB", lambda row: f"{row['peak_megabytes']['median']:.0f}"),
)


def _panel(rows: Sequence[Row], batch: int, threads: int) -> Panel:
    bars = [
        Bar(row["answering"], row["answering"], row["images_per_second"])
        for row in rows
        if (row["batch"], row["threads"]) == (batch, threads)
    ]
    return Panel(f"batch {batch}, {threads} {'thread' if threads == 1 else 'threads'}", "images/s", bars)
