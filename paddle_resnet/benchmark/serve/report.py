"""Benchmark `serve`: a running service, loaded from this process."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from paddle_resnet.benchmark.report import Column, Report, Row, rate, spread
from paddle_resnet.benchmark.serve.load import Load, Target, load_service
from paddle_resnet.benchmark.serve.requests import Judge, drawn_pictures, read_pictures, whole_requests
from paddle_resnet.benchmark.timing import percentile, summarise
from paddle_resnet.console import logger
from paddle_resnet.errors import RunFailure, UsageError, command
from paddle_resnet.plots.bar_chart import Bar, Panel

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class LoadCase:
    """Connections, pictures in a request, and requests per second that are offered (None: as many as are answered)."""

    clients: int
    images: int
    rate: float | None = None

    def __str__(self) -> str:
        offered = f", {self.rate:g} requests/s" if self.rate else ""
        return f"{self.clients} clients, {self.images} a request{offered}"


def benchmark_service(
    url: str, cases: Sequence[LoadCase], rounds: int, seconds: float, command_line: str, pictures: Path | None = None
) -> Report:
    """Load the service at `url` with each case in turn, `seconds` in each of `rounds`.

    Raises:
        UsageError: no service of this project answers there, or there are no pictures.
        RunFailure: it went away.
    """
    target, model = _find(url)
    encoded = read_pictures(pictures) if pictures else drawn_pictures(model["image_size"])
    requests = {case: whole_requests(target.host, encoded, case.images) for case in cases}
    judges = {images: Judge() for images in {case.images for case in cases}}
    loads: dict[LoadCase, list[Load]] = {case: [] for case in cases}
    for number in range(rounds):
        for case in cases:
            logger.info("round %d/%d, %s", number + 1, rounds, case)
            try:
                load = load_service(
                    target,
                    requests[case],
                    judges[case.images].is_right,
                    clients=case.clients,
                    seconds=seconds,
                    rate=case.rate,
                )
            except OSError as error:
                raise RunFailure(f"{url}: the service went away ({error.strerror or error})") from None
            loads[case].append(load)
    rows = [_row(case, runs) for case, runs in loads.items()]
    return Report(
        command="serve",
        title=f"Service: {model['model']} at {model['image_size']}",
        settings={
            "command_line": command_line,
            "url": url,
            "rounds": rounds,
            "seconds": seconds,
            "pictures": str(pictures) if pictures else "drawn JPEGs of the model's size",
            "mean_picture_bytes": sum(map(len, encoded)) // len(encoded),
        },
        rows=rows,
        columns=COLUMNS,
        panels=[
            Panel(title, unit, [Bar(str(case), "service", row[key]) for case, row in zip(cases, rows, strict=True)])
            for title, unit, key in (
                ("pictures answered", "images/s", "images_per_second"),
                ("latency of a request, p99", "ms", "p99_ms"),
            )
        ],
    )


def _find(url: str) -> tuple[Target, dict[str, Any]]:
    """Where the service listens, and what it says of its model."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise UsageError(f"{url}: expected an address such as http://127.0.0.1:8000")
    try:
        # The address is the user's own, and its scheme was checked.
        with urllib.request.urlopen(f"{url.rstrip('/')}/model", timeout=10) as answer:
            model = json.load(answer)
        return Target(parts.hostname, parts.port or 80), {key: model[key] for key in ("model", "image_size")}
    except (OSError, urllib.error.URLError, ValueError, KeyError) as error:
        reason = getattr(error, "reason", error)
        raise UsageError(f"{url}: no service answers there ({reason}); start one: {command('serve')} RUN") from None


def _row(case: LoadCase, loads: Sequence[Load]) -> Row:
    answered = [load.latencies.get(200, []) for load in loads]
    codes: Counter[int] = Counter()
    lost: Counter[str] = Counter()
    for load in loads:
        codes.update(load.codes)
        lost.update(load.lost)
    speeds = [len(times) / load.seconds for times, load in zip(answered, loads, strict=True)]
    return {
        "clients": case.clients,
        "images": case.images,
        "offered_requests_per_second": case.rate,
        "requests_per_second": summarise(speeds).as_json(),
        "images_per_second": summarise([case.images * speed for speed in speeds]).as_json(),
        **{
            f"p{share}_ms": summarise([1000 * percentile(times or [0.0], share) for times in answered]).as_json()
            for share in PERCENTILES
        },
        "clients_cores": summarise([load.cores for load in loads]).as_json(),
        "codes": {str(code): number for code, number in sorted(codes.items())},
        "wrong": sum(load.wrong for load in loads),
        "lost": dict(lost),
    }


def _codes(row: Row) -> str:
    parts = [f"{number} x {code}" for code, number in row["codes"].items()]
    return ", ".join([*parts, *(f"{number} x {reason}" for reason, number in row["lost"].items())])


COLUMNS = (
    Column("clients", lambda row: str(row["clients"])),
    Column("a request", lambda row: str(row["images"])),
    Column(
        "offered/s",
        lambda row: f"{row['offered_requests_per_second']:g}" if row["offered_requests_per_second"] else "-",
    ),
    Column("images/s", lambda row: rate(row["images_per_second"])),
    Column("requests/s", lambda row: rate(row["requests_per_second"])),
    Column("p50, ms", lambda row: spread(row["p50_ms"], 1)),
    Column("p95, ms", lambda row: spread(row["p95_ms"], 1)),
    Column("p99, ms", lambda row: spread(row["p99_ms"], 1)),
    Column("cores of clients", lambda row: spread(row["clients_cores"], 2)),
    Column("answers", _codes),
    Column("wrong", lambda row: str(row["wrong"])),
)
