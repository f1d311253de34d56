"""Benchmark `serve`: load a running service from this process with requests, and check its responses."""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections import Counter
from collections.abc import Sequence
from functools import partial
from http.client import HTTPException
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from paddle_resnet.benchmark.report import Column, Report, Row, rate, spread, summarise
from paddle_resnet.benchmark.runner import log
from paddle_resnet.benchmark.serve.load import Load, Target, load_service
from paddle_resnet.benchmark.synthetic_image import synthetic_image
from paddle_resnet.benchmark.timing import PERCENTILES, percentiles_ms
from paddle_resnet.errors import RunFailure, UsageError, command
from paddle_resnet.images.find import EXTENSIONS, find_image_files
from paddle_resnet.plots.bar_chart import Bar, Panel
from paddle_resnet.timing import interleave


class LoadCase(NamedTuple):
    """Connections, pictures in a request, and offered requests per second (None: as many as get responses)."""

    clients: int
    images: int
    rate: float | None = None

    def __str__(self) -> str:
        offered = f", {self.rate:g} requests/s" if self.rate else ""
        return f"{self.clients} clients, {self.images} a request{offered}"


def benchmark_service(
    url: str, cases: Sequence[LoadCase], rounds: int, seconds: float, pictures: Path | None = None
) -> Report:
    """Load the service at `url` with each case in turn, `seconds` in each of `rounds`.

    Raises:
        UsageError: no service of this project responds there, or there are no pictures.
        RunFailure: the service can no longer be reached, or no request got a 200 response.
    """
    target, model = _find(url)
    encoded = read_pictures(pictures) if pictures else synthetic_pictures(model["image_size"])
    requests = {case: http_requests(target, encoded, case.images) for case in cases}
    checkers = {images: ResponseChecker() for images in {case.images for case in cases}}

    def load(case: LoadCase) -> Load:
        is_correct = checkers[case.images].is_consistent
        return load_service(target, requests[case], is_correct, clients=case.clients, seconds=seconds, rate=case.rate)

    try:
        loads = interleave({case: partial(load, case) for case in cases}, rounds, log(rounds))
    except OSError as error:
        raise RunFailure(f"{url}: the service can no longer be reached ({error.strerror or error})") from None
    rows = [_row(case, runs) for case, runs in loads.items()]
    answered = [(str(case), row) for case, row in zip(cases, rows, strict=True) if row["p99_ms"] is not None]
    if not answered:
        raise RunFailure(f"{url}: no request got a 200 response, but {'; '.join(_outcome(row) for row in rows)}")
    return Report(
        command="serve",
        title=f"Service: {model['model']} at {model['image_size']}",
        settings={
            "url": url,
            "rounds": rounds,
            "seconds": seconds,
            "pictures": str(pictures) if pictures else "synthetic JPEGs of the model's size",
            "mean_picture_bytes": sum(map(len, encoded)) // len(encoded),
        },
        rows=rows,
        columns=COLUMNS,
        panels=[
            Panel(title, unit, [Bar(case, "service", row[key]) for case, row in answered])
            for title, unit, key in (
                ("pictures predicted", "images/s", "images_per_second"),
                ("latency of a request, p99", "ms", "p99_ms"),
            )
        ],
    )


def _find(url: str) -> tuple[Target, dict[str, Any]]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:  # half of an IPv6 address, a port beyond 65535
        host = None
    if not host or parts.scheme != "http":
        raise UsageError(f"{url}: expected an address such as http://127.0.0.1:8000")
    try:
        # The address is the user's own, and its scheme was checked. The load does not go through a proxy either.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{url.rstrip('/')}/model", timeout=10) as response:
            model = json.load(response)
        return Target(host, port), {key: model[key] for key in ("model", "image_size")}
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "reason", error)
        raise UsageError(f"{url}: no service responds there ({reason}); start one: {command('serve')} RUN") from None


def _authority(target: Target) -> str:
    """Return the value of the header Host, with an IPv6 address in brackets and a port that is not the usual one."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    return host if target.port == 80 else f"{host}:{target.port}"


def _row(case: LoadCase, loads: Sequence[Load]) -> Row:
    successful = [load.latencies.get(200, []) for load in loads]
    speeds = [len(times) / load.seconds for times, load in zip(successful, loads, strict=True)]
    percentiles = [percentiles_ms(times) for times in successful if times]
    codes, lost = (
        sum(counters, Counter()) for counters in ([load.codes for load in loads], [load.lost for load in loads])
    )
    return {
        "clients": case.clients,
        "images": case.images,
        "offered_requests_per_second": case.rate,
        "requests_per_second": summarise(speeds),
        "images_per_second": summarise([case.images * speed for speed in speeds]),
        **{key: summarise([each[key] for each in percentiles]) if percentiles else None for key in PERCENTILES},
        "clients_cores": summarise([load.cores for load in loads]),
        "codes": {str(code): number for code, number in sorted(codes.items())},
        "wrong": sum(load.wrong for load in loads),
        "lost": dict(lost),
    }


def _outcome(row: Row) -> str:
    return f"{_counts(row['codes'])}, lost {_counts(row['lost'])}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} x {name}" for name, number in counts.items()) or "-"


MILLISECONDS = partial(spread, digits=1)
COLUMNS = (
    Column("clients", "clients"),
    Column("a request", "images"),
    Column("offered/s", "offered_requests_per_second", lambda value: f"{value:g}" if value else "-"),
    Column("images/s", "images_per_second", rate),
    Column("requests/s", "requests_per_second", rate),
    Column("p50, ms", "p50_ms", MILLISECONDS),
    Column("p95, ms", "p95_ms", MILLISECONDS),
    Column("p99, ms", "p99_ms", MILLISECONDS),
    Column("cores of clients", "clients_cores", spread),
    Column("responses", "codes", _counts),
    Column("lost", "lost", _counts),
    Column("wrong", "wrong"),
)


PICTURES = 64
TOLERANCE = 2e-3
"""Of a probability: its last digits depend on the batch that the image is in, in bfloat16 more than in float32."""
MAX_REMEMBERED = 32


def synthetic_pictures(size: int) -> list[bytes]:
    """Make JPEGs of `size` pixels a side, the same in every run."""
    generator = np.random.default_rng(0)
    return [synthetic_image(generator, (size, size)) for _ in range(PICTURES)]


def read_pictures(folder: Path) -> list[bytes]:
    """Read the first `PICTURES` picture files below a folder; raise `UsageError` if there is none."""
    paths = islice((each for each in find_image_files(folder) if isinstance(each, Path)), PICTURES)
    if not (pictures := [path.read_bytes() for path in paths]):
        raise UsageError(f"{folder}: no pictures there; expected {', '.join(EXTENSIONS)}")
    return pictures


def http_requests(target: Target, pictures: Sequence[bytes], images: int) -> list[bytes]:
    """Make whole HTTP requests of `images` pictures each: one as the body itself, several as a form."""
    groups = [
        [pictures[(start + i) % len(pictures)] for i in range(images)] for start in range(0, len(pictures), images)
    ]
    return [_request(_authority(target), group) for group in groups]


def _request(authority: str, pictures: Sequence[bytes]) -> bytes:
    if len(pictures) == 1:
        kind, body = "image/jpeg", pictures[0]
    else:
        boundary = uuid.uuid4().hex
        parts = [
            b'--%s\r\nContent-Disposition: form-data; name="images"; filename="picture"\r\n\r\n%s\r\n'
            % (boundary.encode(), picture)
            for picture in pictures
        ]
        kind, body = f"multipart/form-data; boundary={boundary}", b"".join([*parts, b"--%s--\r\n" % boundary.encode()])
    head = f"POST /predict HTTP/1.1\r\nHost: {authority}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class ResponseChecker:
    """Compares each response with the first one to the same request."""

    def __init__(self) -> None:
        self._first: dict[int, list[dict[str, float]]] = {}
        self._equal: dict[int, set[bytes]] = {}

    def is_consistent(self, index: int, body: bytes) -> bool:
        """Return whether the body of a response to request `index` has the first one's probabilities."""
        equal = self._equal.setdefault(index, set())
        if body in equal:
            return True
        probabilities = _probabilities(body)
        if not _equal(self._first.setdefault(index, probabilities), probabilities):
            return False
        if len(equal) < MAX_REMEMBERED:
            equal.add(body)
        return True


def _probabilities(body: bytes) -> list[dict[str, float]]:
    predictions = json.loads(body)["predictions"]
    return [{ranked["class"]: ranked["probability"] for ranked in each["top"]} for each in predictions]


def _equal(first: list[dict[str, float]], second: list[dict[str, float]]) -> bool:
    """Compare by class; among equally probable classes, the order and which ones are ranked may differ."""
    if len(first) != len(second):
        return False
    for one, other in zip(first, second, strict=True):
        least = min([*one.values(), *other.values()])
        if any(abs(one.get(name, least) - other.get(name, least)) > TOLERANCE for name in one.keys() | other.keys()):
            return False
    return True
