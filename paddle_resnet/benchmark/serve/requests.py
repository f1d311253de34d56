"""What a service is asked while it is measured, and whether it always answers a picture alike."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from paddle_resnet.benchmark.synthetic_image import QUALITY, draw_picture
from paddle_resnet.errors import UsageError
from paddle_resnet.images.find import EXTENSIONS

PICTURES = 64
TOLERANCE = 2e-3
"""Of a probability, which changes in its last digits with the batch it is in; in bfloat16 more than in float32."""
REMEMBERED = 32


def drawn_pictures(size: int, number: int = PICTURES) -> list[bytes]:
    """JPEGs of so many pixels a side, the same in every run."""
    generator = np.random.default_rng(0)
    pictures = []
    for _ in range(number):
        file = io.BytesIO()
        draw_picture(generator, (size, size)).save(file, "JPEG", quality=QUALITY)
        pictures.append(file.getvalue())
    return pictures


def read_pictures(folder: Path, number: int = PICTURES) -> list[bytes]:
    """The first picture files below a folder.

    Raises:
        UsageError: there is none.
    """
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in EXTENSIONS]
    if not paths:
        raise UsageError(f"{folder}: no pictures there; expected {', '.join(EXTENSIONS)}")
    return [path.read_bytes() for path in paths[:number]]


def whole_requests(host: str, pictures: Sequence[bytes], images: int) -> list[bytes]:
    """HTTP requests that send all pictures, `images` at once: one as the body itself, several as a form."""
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


class Judge:
    """Compares each answer with the first one to the same request."""

    def __init__(self) -> None:
        self._first: dict[int, list[dict[str, float]]] = {}
        self._good: dict[int, set[bytes]] = {}

    def is_right(self, index: int, body: bytes) -> bool:
        """Whether the probabilities are those of the first answer, up to `TOLERANCE`."""
        good = self._good.setdefault(index, set())
        if body in good:
            return True
        shares = _probabilities(body)
        if not _alike(self._first.setdefault(index, shares), shares):
            return False
        if len(good) < REMEMBERED:
            good.add(body)
        return True


def _probabilities(body: bytes) -> list[dict[str, float]]:
    predictions = json.loads(body)["predictions"]
    return [{answer["class"]: answer["probability"] for answer in each["top"]} for each in predictions]


def _alike(first: list[dict[str, float]], second: list[dict[str, float]]) -> bool:
    """Compare by class: of those that are equally probable, either may stand before the other, or be ranked at all."""
    if len(first) != len(second):
        return False
    for one, other in zip(first, second, strict=True):
        least = min([*one.values(), *other.values()])
        if any(abs(one.get(name, least) - other.get(name, least)) > TOLERANCE for name in one.keys() | other.keys()):
            return False
    return True
