"""A job: an exported model answering batches of random pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from paddle_resnet.benchmark.rates import peak_megabytes, seconds
from paddle_resnet.benchmark.statistics import percentile
from paddle_resnet.deploy import Predictor


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Time calls: keys `model`, `batch`, `threads`, `calls` and `warm_up`."""
    with Predictor(job["model"], "cpu", job["threads"], job["batch"]) as predictor:
        side = predictor.config.input.image_size
        pixels = np.random.default_rng(0).integers(0, 256, (job["batch"], side, side, 3), dtype=np.uint8)
        for _ in range(job["warm_up"]):
            predictor.scores(pixels)
        taken = [seconds(lambda: predictor.scores(pixels)) for _ in range(job["calls"])]
    return {
        "images_per_second": job["batch"] * len(taken) / sum(taken),
        **{f"p{share}_ms": 1000 * percentile(taken, share) for share in (50, 95, 99)},
        "peak_megabytes": peak_megabytes(),
    }
