"""Benchmark `predict`: image files on disk to predictions, compared with the network alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paddle_resnet.benchmark.report import Column, Report, Row, rate, ratios, spread, summarise, summary_of
from paddle_resnet.benchmark.runner import Job, run_jobs
from paddle_resnet.inference.find_pictures import find_pictures
from paddle_resnet.inference.inference_config import find_model
from paddle_resnet.plots.bar_chart import Bar, Panel

NETWORK, FILES = "the network alone", "files to predictions"
COLUMNS = (
    Column("pictures", "images", "{:,}".format),
    Column("precision", "precision"),
    Column("backend", "backend"),
    Column("batch", "batch"),
    Column("threads", "threads"),
    Column("network alone, images/s", "network_images_per_second", rate),
    Column("files to predictions, images/s", "images_per_second", rate),
    Column("share, %", "share", lambda summary: spread(summary, 1)),
    Column("ready after, s", "seconds_to_ready", lambda summary: spread(summary, 1)),
)


def benchmark_prediction(
    model: Path,
    pictures: Sequence[str],
    batch: int,
    threads: int,
    rounds: int,
    *,
    precision: str | None = None,
    backend: str | None = None,
) -> Report:
    """Classify all `pictures` (files, folders, patterns) and run the network alone on as many images, in turn.

    `precision` and `backend` are those of `Predictor`.

    Raises:
        UsageError: there is no model, or a picture cannot be read.
        RunFailure: a run failed.
    """
    folder = find_model(model).resolve()
    paths = [str(Path(path).resolve()) for path in pictures]
    images = sum(1 for _ in find_pictures(paths))
    common = {"model": str(folder), "batch": batch, "threads": threads, "precision": precision, "backend": backend}
    jobs: dict[str, Job] = {
        NETWORK: {**common, "kind": "infer", "calls": -(-images // batch), "warm_up": 3},
        FILES: {**common, "kind": "predict", "pictures": paths},
    }
    measured = run_jobs(jobs, rounds)
    network, files = measured[NETWORK], measured[FILES]
    row: Row = {
        "images": images,
        "precision": precision or "default",
        "backend": backend or "default",
        "batch": batch,
        "threads": threads,
        "network_images_per_second": summary_of(network),
        "images_per_second": summary_of(files),
        "share": summarise([100 * ratio for ratio in ratios(files, network)]),
        "seconds_to_ready": summary_of(files, "seconds_to_ready"),
    }
    bars = [Bar(name, "onednn", summary_of(measured[name])) for name in (NETWORK, FILES)]
    return Report(
        command="predict",
        title=f"From files to predictions on the CPU: {folder.parent.name}/{folder.name}",
        settings={"model": str(model), "pictures": list(pictures), "rounds": rounds},
        rows=[row],
        columns=COLUMNS,
        panels=[Panel(f"{images:,} pictures, batch {batch}, {threads} threads", "images/s", bars)],
    )
