"""A job: picture files classified as `predict` does it, or the network alone on pixels that lie ready."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from paddle_resnet.benchmark.timing import seconds
from paddle_resnet.errors import UsageError
from paddle_resnet.inference import Predictor
from paddle_resnet.inference.find_pictures import Unreadable, find_pictures
from paddle_resnet.inference.predict_many import batched, prediction_workers


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Answer all pictures once: keys `model`, `batch`, `threads` and `pictures`, which is None for the network alone.

    `precision` and `backend` are those of `Predictor`.
    Of the network alone `images` are answered, in batches of one set of random pixels.
    """
    return _network_alone(job) if job["pictures"] is None else _files(job)


def _network_alone(job: dict[str, Any]) -> dict[str, Any]:
    batch = job["batch"]
    with Predictor(job["model"], "cpu", job["precision"], job["threads"], batch, backend=job["backend"]) as predictor:
        side = predictor.config.input.image_size
        pixels = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
        for _ in range(3):
            predictor.scores(pixels)
        batches = -(-job["images"] // batch)
        taken = sum(seconds(lambda: predictor.scores(pixels)) for _ in range(batches))
    return {"images_per_second": batches * batch / taken}


def _files(job: dict[str, Any]) -> dict[str, Any]:
    begun = time.perf_counter()
    with prediction_workers(
        Path(job["model"]),
        job["threads"],
        job["threads"],
        top_k=5,
        device="cpu",
        precision=job["precision"],
        batch_size=job["batch"],
        backend=job["backend"],
    ) as predict:
        ready = time.perf_counter()
        answers = [each for batch in predict(batched(find_pictures(job["pictures"]), job["batch"])) for each in batch]
        ended = time.perf_counter()
    if failed := [each.reason for each in answers if isinstance(each, Unreadable)]:
        raise UsageError(failed[0])
    return {
        "images": len(answers),
        "images_per_second": len(answers) / (ended - ready),
        "seconds_to_ready": ready - begun,
    }
