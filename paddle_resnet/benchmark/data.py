"""Benchmark `data`: the training loader alone, and its share of a training step; or beside other libraries' loaders."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from paddle_resnet.benchmark import report
from paddle_resnet.benchmark.cases import TrainCase
from paddle_resnet.benchmark.runner import Job, Measurement, log, run_job, run_jobs
from paddle_resnet.benchmark.synthetic_image import synthetic_files
from paddle_resnet.benchmark.train import training_job
from paddle_resnet.console import logger
from paddle_resnet.plots.bar_chart import Bar, Panel
from paddle_resnet.timing import interleave


class LoaderCase(NamedTuple):
    """Images, their augmentation, and the training whose size and batch they have."""

    name: str
    stored: int  # pixels a side of images in memory; of the shorter side of a decoded file
    augment: dict[str, Any]
    case: TrainCase
    files: int = 0  # how many different files there are; 0: the images are in memory
    file_size: tuple[int, int] = (0, 0)  # width and height of the images in files
    file_kind: str = "JPEG"  # Pillow's name of their format

    def job(self, steps: int, warm_up: int, files: Sequence[str], **more: Any) -> dict[str, Any]:
        """Describe the measurement for `training_jobs.load` and `other_loaders`; `files` are repeated for all steps."""
        images = (steps + warm_up) * self.case.batch
        repeated = [files[number % len(files)] for number in range(images)] if files else []
        size = {"stored": self.stored, "size": self.case.size, "batch": self.case.batch, "augment": self.augment}
        return {"kind": "load", **size, "steps": steps, "warm_up": warm_up, "files": repeated, **more}


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
    report.Column("images", "source"),
    report.Column("loader, images/s", "images_per_second", report.rate),
    report.Column("training", "training"),
    report.Column("images/s", "training_images_per_second", report.rate),
    report.Column("share of a step, %", "share_of_step", report.percent),
    report.Column("waited in fit, %", "waiting_share_in_training", report.percent),
)
OURS = "this project"
WORKERS = (1, 2)
COMPARED = (
    LoaderCase("JPEGs of 500x400 to 224", 256, RESIZED_CROP, TrainCase("resnet18", 224, 32), 256, (500, 400)),
    LoaderCase("PNGs of 32x32 to 32", 32, PADDED_CROP, TrainCase("resnet20", 32, 256), 4096, (32, 32), "PNG"),
)
COMPARED_COLUMNS = (
    report.Column("images", "source"),
    report.Column("loader", "loader"),
    report.Column("workers", "workers"),
    report.Column("images/s", "images_per_second", report.rate),
    report.Column("this project / it", "ratio", report.spread),
    report.Column("to one worker", "scaling", report.spread),
)


def benchmark_loading(
    rounds: int,
    steps: int,
    warm_up: int,
    sources: Sequence[LoaderCase] = SOURCES,
    backend: str = "onednn",
    against: Sequence[str] = (),
    torch_python: str = sys.executable,
) -> report.Report:
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
    rows: list[report.Row] = []
    for source in sources:
        loading, training = measured[source.name], measured[str(source.case)]
        rows.append(
            {
                "source": source.name,
                "batch": source.case.batch,
                "images_per_second": {
                    **report.summary_of(loading),
                    "runs": [run["images_per_second"] for run in loading],
                },
                "training": str(source.case),
                "training_images_per_second": report.summary_of(training),
                "share_of_step": report.summarise(report.ratios(training, loading)),
                "waiting_share_in_training": report.summary_of(training, "waiting_share"),
            }
        )
    return report.Report(
        command="data",
        title=f"The training loader alone, and its share of a training step ({backend})",
        settings={"rounds": rounds, "steps": steps, "warm_up_steps": warm_up},
        rows=rows,
        columns=COLUMNS,
        panels=[
            Panel(title, unit, [Bar(row["source"], "onednn", report.scaled(row[key], factor)) for row in rows])
            for title, unit, key, factor in (
                ("the loader alone", "images/s", "images_per_second", 1),
                ("of a training step, not overlapped", "%", "share_of_step", 100),
            )
        ],
    )


def compare_loaders(
    rounds: int, steps: int, warm_up: int, against: Sequence[str], torch_python: str = sys.executable
) -> report.Report:
    """Measure decoding, random crop, flip, normalisation and batching of files, by each loader in turn.

    Each loads `steps` timed batches a round after `warm_up`. `against` is ``"torch"``, ``"paddle"`` or both, and
    `torch_python` an interpreter that has PyTorch and torchvision; without them, a warning says so.

    Raises:
        RunFailure: a process failed.
    """
    libraries = [each for each in against if each != "torch" or _has_torch(torch_python)]
    rows: list[report.Row] = []
    for source in COMPARED:
        with synthetic_files(source.files, source.file_size, source.file_kind) as files:
            jobs = {
                (library, workers): source.job(steps, warm_up, files, workers=workers, library=library)
                for workers in WORKERS
                for library in (OURS, *libraries)
            }
            calls = {key: partial(_measure, job, f"{key[0]}, {source.name}", torch_python) for key, job in jobs.items()}
            measured = interleave(calls, rounds, log(rounds, f"{source.name}: "))
        for (library, workers), runs in measured.items():
            rows.append(
                {
                    "source": source.name,
                    "loader": library,
                    "workers": workers,
                    "images_per_second": report.summary_of(runs),
                    "ratio": None if library == OURS else report.ratio_summary(measured[OURS, workers], runs),
                    "scaling": None if workers == 1 else report.ratio_summary(runs, measured[library, 1]),
                }
            )
    return report.Report(
        command="data",
        title="Image files to normalised float32 batches: decode, random crop, flip",
        settings={"rounds": rounds, "steps": steps, "warm_up_steps": warm_up},
        rows=rows,
        columns=COMPARED_COLUMNS,
        panels=report.speed_panels(rows, "{source}".format_map, "{loader}, {workers}".format_map, "loader"),
    )


def _has_torch(python: str) -> bool:
    found = subprocess.run([python, "-c", "import torch, torchvision"], capture_output=True)
    if found.returncode:
        remedy = "name one that has with --torch-python"
        logger.warning(f"warning: {python} has no PyTorch with torchvision, so it is left out; {remedy}")
    return found.returncode == 0


def _measure(job: dict[str, Any], name: str, torch_python: str) -> Measurement:
    if job["library"] == OURS:
        found = run_job(job, name)
    else:
        python = torch_python if job["library"] == "torch" else sys.executable
        found = run_job(job, name, [python, str(Path(__file__).with_name("other_loaders.py"))])
    times = found["times"][job["warm_up"] - 1 :]
    return {"images_per_second": job["batch"] * (len(times) - 1) / (times[-1] - times[0])}
