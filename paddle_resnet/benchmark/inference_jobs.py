"""The job with an exported model. It imports nothing of training, whose memory would count."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from paddle_resnet.benchmark.timing import time_calls
from paddle_resnet.inference import Predictor

SECONDS_TO_CHOOSE = 5.0
"""After these the predictor has chosen its number of threads."""


def infer(job: dict[str, Any]) -> dict[str, Any]:
    """Time calls on random pixels: keys `model`, `backend`, `precision`, `batch`, `threads`, `calls`, `warm_up`."""
    with Predictor(
        job["model"], "cpu", job["precision"], job["threads"], job["batch"], backend=job["backend"]
    ) as predictor:
        side = predictor.config.input.image_size
        pixels = np.random.default_rng(0).integers(0, 256, (job["batch"], side, side, 3), dtype=np.uint8)
        ends = time.perf_counter() + (SECONDS_TO_CHOOSE if job["threads"] is None else 0)
        while time.perf_counter() < ends:
            predictor.scores(pixels)
        return time_calls(lambda: predictor.scores(pixels), job["batch"], job["calls"], job["warm_up"])
