"""Benchmark `data --against`: image files to batches, beside the DataLoaders of PyTorch and Paddle."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from paddle_resnet.benchmark.cases import LoaderCase, TrainCase
from paddle_resnet.benchmark.report import Column, Report, Row, rate, ratio_summary, spread, summary_of
from paddle_resnet.benchmark.runner import Measurement, log, run_job
from paddle_resnet.benchmark.synthetic_image import synthetic_files
from paddle_resnet.console import logger
from paddle_resnet.plots.bar_chart import Bar, Panel
from paddle_resnet.timing import interleave

OURS = "this project"
WORKERS = (1, 2)


LARGE, SMALL = map(TrainCase.parse, ("resnet18@224x32", "resnet20@32x256"))
SOURCES = (
    LoaderCase("JPEGs of 500x400 to 224", 256, {"scale": [0.35, 1.0], "flip": True}, LARGE, 256, (500, 400)),
    LoaderCase("PNGs of 32x32 to 32", 32, {"pad": 4, "flip": True}, SMALL, 4096, (32, 32), "PNG"),
)
COLUMNS = (
    Column("images", "source"),
    Column("loader", "loader"),
    Column("workers", "workers"),
    Column("images/s", "images_per_second", rate),
    Column("this project / it", "ratio", spread),
    Column("to one worker", "scaling", spread),
)


def compare_loaders(
    rounds: int, steps: int, warm_up: int, against: Sequence[str], torch_python: str = sys.executable
) -> Report:
    """Measure decoding, random crop, flip, normalisation and batching of files, by each loader in turn.

    Each loads `steps` timed batches a round after `warm_up`. `against` is ``"torch"``, ``"paddle"`` or both, and
    `torch_python` an interpreter that has PyTorch and torchvision; without them, a warning says so.

    Raises:
        RunFailure: a process failed.
    """
    libraries = [each for each in against if each != "torch" or _has_torch(torch_python)]
    rows: list[Row] = []
    for source in SOURCES:
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
                    "images_per_second": summary_of(runs),
                    "ratio": None if library == OURS else ratio_summary(measured[OURS, workers], runs),
                    "scaling": None if workers == 1 else ratio_summary(runs, measured[library, 1]),
                }
            )
    return Report(
        command="data",
        title="Image files to normalised float32 batches: decode, random crop, flip",
        settings={"rounds": rounds, "steps": steps, "warm_up_steps": warm_up},
        rows=rows,
        columns=COLUMNS,
        panels=[
            Panel(
                source.name,
                "images/s",
                [
                    Bar(f"{row['loader']}, {row['workers']}", row["loader"], row["images_per_second"])
                    for row in rows
                    if row["source"] == source.name
                ],
            )
            for source in SOURCES
        ],
    )


def _has_torch(python: str) -> bool:
    found = subprocess.run([python, "-c", "import torch, torchvision"], capture_output=True)
    if found.returncode:
        logger.warning(
            "warning: %s has no PyTorch with torchvision, so it is left out; name one that has with --torch-python",
            python,
        )
    return found.returncode == 0


def _measure(job: dict[str, Any], name: str, torch_python: str) -> Measurement:
    if job["library"] == OURS:
        found = run_job(job, name)
    else:
        python = torch_python if job["library"] == "torch" else sys.executable
        found = run_job(job, name, [python, str(Path(__file__).with_name("other_loaders.py"))])
    times = found["times"][job["warm_up"] - 1 :]
    return {"images_per_second": job["batch"] * (len(times) - 1) / (times[-1] - times[0])}
