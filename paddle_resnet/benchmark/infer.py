"""Benchmark `infer`: latency and throughput of an exported model, by backend, precision, batch size and threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from paddle_resnet.benchmark import report
from paddle_resnet.benchmark.cases import TORCH
from paddle_resnet.benchmark.runner import Job, run_jobs
from paddle_resnet.benchmark.train import describe
from paddle_resnet.console import logger
from paddle_resnet.errors import UsageError
from paddle_resnet.inference.backends import choose
from paddle_resnet.inference.inference_config import InferenceConfig
from paddle_resnet.inference.options import CPU_SUPPORT
from paddle_resnet.runtime import default_threads

METRICS = ("images_per_second", "p50_ms", "p95_ms", "p99_ms", "peak_megabytes")
REFERENCE = "onnxruntime fp32"
MILLISECONDS = partial(report.spread, digits=3)
COLUMNS = (
    report.Column("backend", "backend"),
    report.Column("batch", "batch"),
    report.Column("threads", "threads"),
    report.Column("images/s", "images_per_second", report.rate),
    report.Column("of ONNX fp32", "ratio_to_onnx", report.spread),
    report.Column("p50, ms", "p50_ms", MILLISECONDS),
    report.Column("p95, ms", "p95_ms", MILLISECONDS),
    report.Column("p99, ms", "p99_ms", MILLISECONDS),
    report.Column("peak MB", "peak_megabytes", report.megabytes),
)


class Case(NamedTuple):
    """What is timed: a backend with its precision ("paddle bf16", "torch"), images a call, threads (None: auto)."""

    backend: str
    batch: int
    threads: int | None

    def __str__(self) -> str:
        return f"{self.backend}, batch {self.batch}, threads {self.threads or 'auto'}"


def benchmark_inference(
    model: Path,
    batches: Sequence[int],
    threads: Sequence[int | None],
    rounds: int,
    calls: int,
    *,
    precisions: Sequence[str] | None = None,
    backends: Sequence[str] | None = None,
    against: Sequence[str] = (),
) -> report.Report:
    """Time an exported model through `Predictor`, each combination in turn.

    Threads of None are as many as `Predictor` chooses (PyTorch: all cores). None of `precisions` and `backends` are all
    exported ones that this machine can use. `against` are names of `cases.TORCH`. A run has at least `calls` calls.

    Raises:
        UsageError: there is no model, or nothing is left to measure.
        RunFailure: a run failed.
    """
    config = InferenceConfig.load(model)
    compared = [*_available(config, precisions, backends), *against]
    cases = [Case(*each) for each in product(compared, batches, threads)]
    measured = run_jobs({str(case): _job(case, config, calls) for case in cases}, rounds)
    rows = [_row(case, measured) for case in cases]
    return report.Report(
        command="infer",
        title=f"Inference on the CPU: {config.model}, {config.input.image_size}x{config.input.image_size}",
        settings={"model": str(model), "rounds": rounds, "calls": calls},
        rows=rows,
        columns=COLUMNS,
        panels=report.speed_panels(rows, _panel_title, "{backend}".format_map, "backend"),
    )


def _available(config: InferenceConfig, precisions: Sequence[str] | None, backends: Sequence[str] | None) -> list[str]:
    """List "backend precision" of what is exported and asked for; log what this machine cannot use."""
    exported = [(backend, precision) for precision, by in config.precisions.items() for backend in by]
    exported += [("onednn", precision) for precision in CPU_SUPPORT["onednn"] if config.files.onnx_of(precision)]
    found = []
    for backend, precision in exported:
        if (precisions is not None and precision not in precisions) or (backends and backend not in backends):
            continue
        try:
            choose(config, "cpu", precision, backend)
        except UsageError as error:
            logger.info("left out: %s", error)
            continue
        found.append(f"{backend} {precision}")
    if not found:
        offers = ", ".join(map(" ".join, exported))
        raise UsageError(
            f"{config.folder.resolve()}: nothing to measure of what it offers ({offers}); export what is to be compared"
        )
    return found


def _job(case: Case, config: InferenceConfig, calls: int) -> Job:
    job: dict[str, Any] = {"batch": case.batch, "threads": case.threads, "calls": calls, "warm_up": max(3, calls // 10)}
    if case.backend in TORCH:
        network = {**describe(config.model), "num_classes": len(config.classes)}
        job |= {"network": network, "size": config.input.image_size, "precision": TORCH[case.backend]}
        return {**job, "kind": "infer_torch", "threads": case.threads or default_threads()}
    backend, precision = case.backend.split()
    return {**job, "kind": "infer", "model": str(config.folder.resolve()), "backend": backend, "precision": precision}


def _row(case: Case, measured: Mapping[str, report.Runs]) -> report.Row:
    runs, reference = measured[str(case)], measured.get(str(case._replace(backend=REFERENCE)))
    return {
        **case._asdict(),
        "threads": case.threads or "auto",
        "ratio_to_onnx": report.ratio_summary(runs, reference),
        **{metric: report.summary_of(runs, metric) for metric in METRICS},
    }


def _panel_title(row: report.Row) -> str:
    return f"batch {row['batch']}, {row['threads']} {'thread' if row['threads'] == 1 else 'threads'}"
