"""Benchmark `data`: the training loader alone, and its share of a training step."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from paddle_resnet.benchmark.cases import LoaderCase, TrainCase
from paddle_resnet.benchmark.data.comparison import compare_loaders
from paddle_resnet.benchmark.report import (
    Column,
    Report,
    Row,
    percent,
    rate,
    ratios,
    scaled,
    summarise,
    summary_of,
    values_of,
)
from paddle_resnet.benchmark.runner import Job, run_jobs
from paddle_resnet.benchmark.synthetic_image import synthetic_files
from paddle_resnet.benchmark.train import training_job
from paddle_resnet.plots.bar_chart import Bar, Panel

SMALL, MIDDLE, LARGE = map(TrainCase.parse, ("resnet20@32x128", "resnet18@64x64", "resnet18@224x16"))
RESIZED_CROP: dict[str, Any] = {"scale": [0.35, 1.0], "flip": True}
SOURCES = (
    LoaderCase("32: padded crop, flip", 32, {"pad": 4, "flip": True}, SMALL),
    LoaderCase("64: padded crop, flip", 64, {"pad": 8, "flip": True}, MIDDLE),
    LoaderCase("64: random-resized crop of 73, flip", 73, RESIZED_CROP, MIDDLE),
    LoaderCase("224: crop of 256, flip", 256, {"flip": True}, LARGE),
    LoaderCase("224: random-resized crop of 256, flip", 256, RESIZED_CROP, LARGE),
    LoaderCase("224: the same, JPEGs of 500x375 decoded", 256, RESIZED_CROP, LARGE, 64, (500, 375)),
)
DECODING_THREADS = 2
COLUMNS = (
    Column("images", "source"),
    Column("loader, images/s", "images_per_second", rate),
    Column("training", "training"),
    Column("images/s", "training_images_per_second", rate),
    Column("share of a step, %", "share_of_step", percent),
    Column("waited in fit, %", "waiting_share_in_training", percent),
)


def benchmark_loading(
    rounds: int,
    steps: int,
    warm_up: int,
    sources: Sequence[LoaderCase] = SOURCES,
    backend: str = "onednn",
    against: Sequence[str] = (),
    torch_python: str = sys.executable,
) -> Report:
    """Measure the loader with each source, and the training steps that it feeds, in turn; or `compare_loaders`.

    Raises:
        UsageError, RunFailure: a run failed.
    """
    if against:
        return compare_loaders(rounds, steps, warm_up, against, torch_python)
    jobs: dict[str, Job] = {}
    with ExitStack() as opened:
        for source in sources:
            files = opened.enter_context(synthetic_files(source.files, source.file_size, source.file_kind))
            jobs[source.name] = source.job(steps, warm_up, files, workers=DECODING_THREADS)
        jobs |= {str(source.case): training_job(source.case, backend, steps, warm_up) for source in sources}
        measured = run_jobs(jobs, rounds)
    rows: list[Row] = []
    for source in sources:
        loading, training = measured[source.name], measured[str(source.case)]
        rows.append(
            {
                "source": source.name,
                "batch": source.case.batch,
                "images_per_second": {**summary_of(loading), "runs": values_of(loading, "images_per_second")},
                "training": str(source.case),
                "training_images_per_second": summary_of(training),
                "share_of_step": summarise(ratios(training, loading)),
                "waiting_share_in_training": summary_of(training, "waiting_share"),
            }
        )
    return Report(
        command="data",
        title=f"The training loader alone, and its share of a training step ({backend})",
        settings={"rounds": rounds, "steps": steps, "warm_up_steps": warm_up},
        rows=rows,
        columns=COLUMNS,
        panels=[
            Panel(title, unit, [Bar(row["source"], "onednn", scaled(row[key], factor)) for row in rows])
            for title, unit, key, factor in (
                ("the loader alone", "images/s", "images_per_second", 1),
                ("of a training step, not overlapped", "%", "share_of_step", 100),
            )
        ],
    )
