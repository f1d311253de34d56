"""Benchmark `data --against`: image files to batches, beside the DataLoaders of PyTorch and Paddle."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from paddle_resnet.benchmark.report import Column, Report, Row, rate, ratio_summary, spread, summary_of
from paddle_resnet.benchmark.runner import Job, Measurement, log, run_job
from paddle_resnet.benchmark.synthetic_image import synthetic_jpeg
from paddle_resnet.console import logger
from paddle_resnet.files import scratch_folder
from paddle_resnet.plots.bar_chart import Bar, Panel
from paddle_resnet.timing import interleave

OURS = "this project"
WORKERS = (1, 2)


class Files(NamedTuple):
    """Image files and the batches that they become."""

    name: str
    pictures: int
    resize: int
    size: int
    batch: int
    augment: dict[str, Any]


SOURCES = (
    Files("JPEGs of 500x400 to 224", 256, 256, 224, 32, {"scale": [0.35, 1.0], "flip": True}),
    Files("PNGs of 32x32 to 32", 4096, 32, 32, 256, {"pad": 4, "flip": True}),
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

    Args:
        rounds: of all loaders.
        steps: timed batches of a loader in a round.
        warm_up: batches before them.
        against: ``"torch"``, ``"paddle"`` or both.
        torch_python: an interpreter that has PyTorch and torchvision; without them, a warning says so.

    Raises:
        RunFailure: a process failed.
    """
    libraries = [each for each in against if each != "torch" or _has_torch(torch_python)]
    rows: list[Row] = []
    for source in SOURCES:
        with _files(source) as files:
            calls = {
                (library, workers): partial(_measure, source, files, library, workers, steps, warm_up, torch_python)
                for workers in WORKERS
                for library in (OURS, *libraries)
            }
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


@contextmanager
def _files(source: Files) -> Iterator[list[str]]:
    """Write different image files; a job repeats them."""
    generator = np.random.default_rng(0)
    with scratch_folder() as folder:
        names = [f"{number:04d}.{source.name[:4].lower().rstrip('s')}" for number in range(source.pictures)]
        for name in names:
            if name.endswith("jpeg"):
                (folder / name).write_bytes(synthetic_jpeg(generator, (500, 400)))
            else:
                coarse = Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((32, 32))
                pixels = np.asarray(coarse) + generator.normal(0, 8, (32, 32, 3))
                Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name)
        yield [str(folder / name) for name in names]


def _measure(
    source: Files, files: list[str], library: str, workers: int, steps: int, warm_up: int, torch_python: str
) -> Measurement:
    count = (steps + warm_up) * source.batch
    repeated = (files * -(-count // len(files)))[:count]
    job: Job = {**source._asdict(), "kind": "load_files", "files": repeated, "workers": workers, "library": library}
    if library == OURS:
        found = run_job(job, f"{library}, {source.name}")
    else:
        script = Path(__file__).with_name("other_loaders.py")
        python = torch_python if library == "torch" else sys.executable
        found = run_job(job, f"{library}, {source.name}", [python, str(script)])
    times = found["times"][warm_up - 1 :]
    return {"images_per_second": source.batch * (len(times) - 1) / (times[-1] - times[0])}
