"""Benchmark `infer`: latency and throughput of an exported model, by batch size and threads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paddle_resnet.benchmark.alternation import alternate, values_of
from paddle_resnet.benchmark.charts import Bar, Panel
from paddle_resnet.benchmark.report import Column, Report, Row, rate, spread
from paddle_resnet.benchmark.statistics import summarise
from paddle_resnet.console import logger
from paddle_resnet.deploy.inference_config import find_model

FIGURES = ("images_per_second", "p50_ms", "p95_ms", "p99_ms", "peak_megabytes")


def benchmark_inference(
    model: Path, batches: Sequence[int], threads: Sequence[int], rounds: int, calls: int, command_line: str
) -> Report:
    """Time an exported model through `deploy.Predictor`, each combination in turn, `calls` calls in each of `rounds`.

    Raises:
        UsageError: there is no model.
        RunFailure: a run ended.
    """
    folder = find_model(model).resolve()
    common = {"kind": "infer", "model": str(folder), "calls": calls, "warm_up": max(3, calls // 10)}
    combinations = [(batch, count) for count in threads for batch in batches]
    jobs = {
        f"batch {batch}, threads {count}": {**common, "batch": batch, "threads": count} for batch, count in combinations
    }
    measured = alternate(jobs, rounds, lambda name, number: logger.info("round %d/%d, %s", number, rounds, name))
    rows: list[Row] = [
        {
            "batch": batch,
            "threads": count,
            **{figure: summarise(values_of(runs, figure)).as_json() for figure in FIGURES},
        }
        for (batch, count), runs in zip(combinations, measured.values(), strict=True)
    ]
    labels = [f"batch {row['batch']}, {row['threads']} thr." for row in rows]
    return Report(
        command="infer",
        title=f"Inference on the CPU: {folder.parent.name}/{folder.name}",
        settings={"command_line": command_line, "model": str(model), "rounds": rounds, "calls": calls},
        rows=rows,
        columns=COLUMNS,
        panels=[
            Panel(title, unit, [Bar(label, "onednn", row[key]) for label, row in zip(labels, rows, strict=True)])
            for title, unit, key in (("throughput", "images/s", FIGURES[0]), ("latency, p95", "ms", "p95_ms"))
        ],
    )


COLUMNS = (
    Column("batch", lambda row: str(row["batch"])),
    Column("threads", lambda row: str(row["threads"])),
    Column("images/s", lambda row: rate(row["images_per_second"])),
    Column("p50, ms", lambda row: spread(row["p50_ms"])),
    Column("p95, ms", lambda row: spread(row["p95_ms"])),
    Column("p99, ms", lambda row: spread(row["p99_ms"])),
    Column("peak MB", lambda row: f"{row['peak_megabytes']['median']:.0f}"),
)
