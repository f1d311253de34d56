"""A job: an exported model on batches of random pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from paddle_resnet.benchmark.timing import time_calls
from paddle_resnet.inference import Predictor


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Time calls: keys `model`, `backend`, `precision`, `batch`, `threads`, `calls`, `warm_up`."""
    with Predictor(
        job["model"], "cpu", job["precision"], job["threads"], job["batch"], backend=job["backend"]
    ) as predictor:
        side = predictor.config.input.image_size
        pixels = np.random.default_rng(0).integers(0, 256, (job["batch"], side, side, 3), dtype=np.uint8)
        return time_calls(lambda: predictor.scores(pixels), job["batch"], job["calls"], job["warm_up"])
