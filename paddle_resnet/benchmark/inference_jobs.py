"""Jobs with an exported model, on pixels and on files. They import nothing of training, whose memory would count."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from paddle_resnet.benchmark.timing import time_calls
from paddle_resnet.errors import UsageError
from paddle_resnet.inference import Predictor
from paddle_resnet.inference.find_pictures import Unreadable, find_pictures
from paddle_resnet.inference.predict_many import batched, prediction_workers

SECONDS_TO_CHOOSE = 5.0  # after these the predictor has chosen its number of threads


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


def predict(job: dict[str, Any]) -> dict[str, Any]:
    """Classify image files as the command `predict` does: keys `pictures` and those of `infer` up to `threads`."""
    started = time.perf_counter()
    options = {"precision": job["precision"], "batch_size": job["batch"], "backend": job["backend"]}
    model, threads = Path(job["model"]), job["threads"]
    with prediction_workers(model, threads, threads, top_k=5, device="cpu", **options) as classify:
        ready = time.perf_counter()
        batches = classify(batched(find_pictures(job["pictures"]), job["batch"]))
        predictions = [prediction for batch in batches for prediction in batch]
        ended = time.perf_counter()
    if failed := [each.reason for each in predictions if isinstance(each, Unreadable)]:
        raise UsageError(failed[0])
    return {"images_per_second": len(predictions) / (ended - ready), "seconds_to_ready": ready - started}
