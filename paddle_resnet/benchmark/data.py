"""Benchmark `data`: the training loader alone, and its share of a training step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from paddle_resnet.benchmark.cases import TrainCase
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
)
from paddle_resnet.benchmark.runner import Job, run_jobs
from paddle_resnet.benchmark.synthetic_image import synthetic_files
from paddle_resnet.benchmark.train import training_job
from paddle_resnet.plots.bar_chart import Bar, Panel


class LoaderCase(NamedTuple):
    """Images, their augmentation, and the training whose size and batch they have.

    Attributes:
        stored: pixels a side of images in memory; of the shorter side of a decoded file.
        files: how many different files there are; 0: the images are in memory.
        file_size: width and height of the images in files.
    """

    name: str
    stored: int
    augment: dict[str, Any]
    case: TrainCase
    files: int = 0
    file_size: tuple[int, int] = (0, 0)

    def job(self, steps: int, warm_up: int, files: Sequence[str]) -> Job:
        """Describe the measurement for `training_jobs.load`; `files` are repeated for all steps."""
        images = (steps + warm_up) * self.case.batch
        repeated = [files[number % len(files)] for number in range(images)] if files else []
        size = {"stored": self.stored, "size": self.case.size, "batch": self.case.batch, "augment": self.augment}
        run = {"steps": steps, "warm_up": warm_up, "files": repeated, "workers": DECODING_THREADS}
        return {"kind": "load", **size, **run}


SMALL, MIDDLE, LARGE = map(TrainCase.parse, ("resnet20@32x128", "resnet18@64x64", "resnet18@224x16"))
PADDED_CROP: dict[str, Any] = {"pad": 4, "flip": True}
RESIZED_CROP: dict[str, Any] = {"scale": [0.35, 1.0], "flip": True}
SOURCES = (
    LoaderCase("32: padded crop, flip", 32, PADDED_CROP, SMALL),
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
    rounds: int, steps: int, warm_up: int, sources: Sequence[LoaderCase] = SOURCES, backend: str = "onednn"
) -> Report:
    """Measure the loader with each source, and the training steps that it feeds, in turn.

    Raises:
        UsageError, RunFailure: a run failed.
    """
    jobs: dict[str, Job] = {}
    with ExitStack() as opened:
        for source in sources:
            files = opened.enter_context(synthetic_files(source.files, source.file_size))
            jobs[source.name] = source.job(steps, warm_up, files)
        jobs |= {str(source.case): training_job(source.case, backend, steps, warm_up) for source in sources}
        measured = run_jobs(jobs, rounds)
    rows: list[Row] = []
    for source in sources:
        loading, training = measured[source.name], measured[str(source.case)]
        rows.append(
            {
                "source": source.name,
                "batch": source.case.batch,
                "images_per_second": {**summary_of(loading), "runs": [run["images_per_second"] for run in loading]},
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
