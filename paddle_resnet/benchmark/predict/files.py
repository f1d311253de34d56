"""A job: classify image files as the command `predict` does."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from paddle_resnet.errors import UsageError
from paddle_resnet.inference.find_pictures import Unreadable, find_pictures
from paddle_resnet.inference.predict_many import batched, prediction_workers


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Classify all `pictures` once: keys `pictures`, `model`, `batch`, `threads`, `precision`, `backend`."""
    started = time.perf_counter()
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
        batches = predict(batched(find_pictures(job["pictures"]), job["batch"]))
        predictions = [prediction for batch in batches for prediction in batch]
        ended = time.perf_counter()
    if failed := [each.reason for each in predictions if isinstance(each, Unreadable)]:
        raise UsageError(failed[0])
    return {"images_per_second": len(predictions) / (ended - ready), "seconds_to_ready": ready - started}
