"""The requests that a measured service gets, and a check of its responses."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from paddle_resnet.benchmark.synthetic_image import synthetic_image
from paddle_resnet.errors import UsageError
from paddle_resnet.images.find import EXTENSIONS, find_image_files

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


def http_requests(host: str, pictures: Sequence[bytes], images: int) -> list[bytes]:
    """Make whole HTTP requests of `images` pictures each: one as the body itself, several as a form."""
    groups = [
        [pictures[(start + i) % len(pictures)] for i in range(images)] for start in range(0, len(pictures), images)
    ]
    return [_request(host, group) for group in groups]


def _request(host: str, pictures: Sequence[bytes]) -> bytes:
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
    head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
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
