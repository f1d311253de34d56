"""Benchmark `predict`: picture files from the disk to their answers, against the network alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paddle_resnet.benchmark.report import Column, Report, Row, rate, spread
from paddle_resnet.benchmark.runner import alternate, values_of
from paddle_resnet.benchmark.timing import paired_ratios, summarise
from paddle_resnet.console import logger
from paddle_resnet.inference.find_pictures import find_pictures
from paddle_resnet.inference.inference_config import find_model
from paddle_resnet.plots.bar_chart import Bar, Panel

ALONE, WHOLE = "the network alone", "files to answers"


def benchmark_prediction(
    model: Path,
    pictures: Sequence[str],
    batch: int,
    threads: int,
    rounds: int,
    command_line: str,
    *,
    precision: str | None = None,
    backend: str | None = None,
) -> Report:
    """Classify all `pictures` (files, folders, patterns) and run the network alone on as many images, in turns.

    `precision` and `backend` are those of `Predictor`.

    Raises:
        UsageError: there is no model, or one of the pictures cannot be read.
        RunFailure: a run ended.
    """
    folder = find_model(model).resolve()
    found = [str(Path(path).resolve()) for path in pictures]
    images = sum(1 for _ in find_pictures(found))
    common = {
        "kind": "predict",
        "model": str(folder),
        "batch": batch,
        "threads": threads,
        "images": images,
        "precision": precision,
        "backend": backend,
    }
    jobs = {ALONE: {**common, "pictures": None}, WHOLE: {**common, "pictures": found}}
    measured = alternate(jobs, rounds, lambda name, number: logger.info("round %d/%d, %s", number, rounds, name))
    alone, whole = (values_of(measured[name], "images_per_second") for name in (ALONE, WHOLE))
    row: Row = {
        "images": images,
        "precision": precision or "default",
        "backend": backend or "default",
        "batch": batch,
        "threads": threads,
        "network_images_per_second": summarise(alone).as_json(),
        "images_per_second": summarise(whole).as_json(),
        "share": summarise([100 * ratio for ratio in paired_ratios(whole, alone)]).as_json(),
        "seconds_to_ready": summarise(values_of(measured[WHOLE], "seconds_to_ready")).as_json(),
    }
    bars = [Bar(ALONE, "onednn", row["network_images_per_second"]), Bar(WHOLE, "onednn", row["images_per_second"])]
    return Report(
        command="predict",
        title=f"From files to answers on the CPU: {folder.parent.name}/{folder.name}",
        settings={"command_line": command_line, "model": str(model), "pictures": list(pictures), "rounds": rounds},
        rows=[row],
        columns=COLUMNS,
        panels=[Panel(f"{images:,} pictures, batch {batch}, {threads} threads", "images/s", bars)],
    )


COLUMNS = (
    Column("pictures", lambda row: f"{row['images']:,}"),
    Column("precision", lambda row: row["precision"]),
    Column("backend", lambda row: row["backend"]),
    Column("batch", lambda row: str(row["batch"])),
    Column("threads", lambda row: str(row["threads"])),
    Column("network alone, images/s", lambda row: rate(row["network_images_per_second"])),
    Column("files to answers, images/s", lambda row: rate(row["images_per_second"])),
    Column("share, %", lambda row: spread(row["share"], 1)),
    Column("ready after, s", lambda row: spread(row["seconds_to_ready"], 1)),
)
