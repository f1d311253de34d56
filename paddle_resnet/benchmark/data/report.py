"""Benchmark `data`: the loader alone, and its share of a training step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from paddle_resnet.benchmark.report import Column, Report, Row, rate, spread
from paddle_resnet.benchmark.runner import alternate, values_of
from paddle_resnet.benchmark.timing import summarise
from paddle_resnet.benchmark.train.cases import TrainCase
from paddle_resnet.benchmark.train.report import training_job
from paddle_resnet.console import logger
from paddle_resnet.plots.bar_chart import Bar, Panel


class Source(NamedTuple):
    """Where images come from, what is done to them, and the training that takes them."""

    name: str
    kind: str
    stored: int
    augment: dict[str, Any]
    case: TrainCase

    def job(self, steps: int, warm_up: int) -> dict[str, Any]:
        """The job of reading them."""
        where = {"kind": "load", "source": self.kind, "stored": self.stored, "augment": self.augment}
        return {**where, "size": self.case.size, "batch": self.case.batch, "steps": steps, "warm_up": warm_up}


SMALL, MIDDLE, LARGE = map(TrainCase.parse, ("resnet20@32x128", "resnet18@64x64", "resnet18@224x16"))
BOXES: dict[str, Any] = {"scale": [0.35, 1.0], "flip": True}
SOURCES = (
    Source("32: padded crop, flip", "memory", 32, {"pad": 4, "flip": True}, SMALL),
    Source("64: padded crop, flip", "memory", 64, {"pad": 8, "flip": True}, MIDDLE),
    Source("64: random-resized crop of 73, flip", "memory", 73, BOXES, MIDDLE),
    Source("224: crop of 256, flip", "memory", 256, {"flip": True}, LARGE),
    Source("224: random-resized crop of 256, flip", "memory", 256, BOXES, LARGE),
    Source("224: the same, JPEGs of 500x375 decoded", "files", 256, BOXES, LARGE),
)


def benchmark_loading(
    rounds: int,
    steps: int,
    warm_up: int,
    command_line: str,
    sources: Sequence[Source] = SOURCES,
    backend: str = "onednn",
) -> Report:
    """Measure the loader from each source, and the training steps it feeds, all in turn.

    Raises:
        UsageError, RunFailure: a run ended.
    """
    jobs: dict[str, Any] = {source.name: source.job(steps, warm_up) for source in sources}
    jobs |= {str(source.case): training_job(source.case, backend, steps, warm_up) for source in sources}
    measured = alternate(jobs, rounds, lambda name, number: logger.info("round %d/%d, %s", number, rounds, name))
    rows = []
    for source in sources:
        speeds = values_of(measured[source.name], "images_per_second")
        training = measured[str(source.case)]
        shares = [
            trained / read for read, trained in zip(speeds, values_of(training, "images_per_second"), strict=True)
        ]
        rows.append(
            {
                "source": source.name,
                "batch": source.case.batch,
                "images_per_second": {**summarise(speeds).as_json(), "runs": speeds},
                "training": str(source.case),
                "training_images_per_second": summarise(values_of(training, "images_per_second")).as_json(),
                "share_of_step": summarise(shares).as_json(),
                "waiting_share_in_training": summarise(values_of(training, "waiting_share")).as_json(),
            }
        )
    return Report(
        command="data",
        title=f"The training loader alone, and its share of a training step ({backend})",
        settings={"command_line": command_line, "rounds": rounds, "steps": steps, "warm_up_steps": warm_up},
        rows=rows,
        columns=COLUMNS,
        panels=[
            _panel("the loader alone", "images/s", rows, "images_per_second", 1),
            _panel("of a training step, not overlapped", "%", rows, "share_of_step", 100),
        ],
    )


COLUMNS = (
    Column("images", lambda row: row["source"]),
    Column("loader, images/s", lambda row: rate(row["images_per_second"])),
    Column("training", lambda row: row["training"]),
    Column("images/s", lambda row: rate(row["training_images_per_second"])),
    Column("share of a step, %", lambda row: _percent(row["share_of_step"])),
    Column("waited in fit, %", lambda row: _percent(row["waiting_share_in_training"])),
)


def _percent(summary: dict[str, float]) -> str:
    return spread(_scaled(summary, 100), 1)


def _scaled(summary: dict[str, float], factor: float) -> dict[str, float]:
    return {key: value if key in ("count", "runs") else factor * value for key, value in summary.items()}


def _panel(title: str, unit: str, rows: Sequence[Row], key: str, factor: float) -> Panel:
    bars = [Bar(row["source"], "onednn", _scaled(row[key], factor)) for row in rows]
    return Panel(title, unit, bars)
