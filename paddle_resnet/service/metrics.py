"""Prometheus metrics: requests, their time, batches, the queue. With several workers, of all of them together."""

from __future__ import annotations

import os
from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
    multiprocess,
)

SHARED_METRICS = "PROMETHEUS_MULTIPROC_DIR"
"""The folder in which prometheus_client adds up processes. It reads the variable when it is imported."""
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """All metrics of one application."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        counter, histogram = partial(Counter, registry=registry), partial(Histogram, registry=registry)
        self.requests = counter("paddle_resnet_requests", "Requests answered.", ["route", "status"])
        duration = "From the head of a request to its response."
        self.seconds = histogram("paddle_resnet_request_seconds", duration, ["route"], buckets=SECONDS)
        self.errors = counter("paddle_resnet_refusals", "Requests that were refused, by error code.", ["code"])
        self.images = counter("paddle_resnet_images", "Images predicted.")
        self.batch = histogram("paddle_resnet_batch_images", "Images of a batch.", buckets=BATCH_SIZES)
        self.batch_seconds = histogram("paddle_resnet_batch_seconds", "Time of a batch.", buckets=SECONDS)
        self.restarts = counter("paddle_resnet_restarts", "Inference workers that were replaced.")
        waiting = "Images admitted and not yet answered."
        self.queue = Gauge("paddle_resnet_queue_images", waiting, registry=registry, multiprocess_mode="livesum")
        if SHARED_METRICS not in os.environ:
            ProcessCollector(registry=registry)

    def observe_batch(self, images: int, seconds: float) -> None:
        self.images.inc(images)
        self.batch.observe(images)
        self.batch_seconds.observe(seconds)

    def exposition(self) -> bytes:
        """Return the text that Prometheus reads."""
        if SHARED_METRICS not in os.environ:
            return generate_latest(self._registry)
        merged = CollectorRegistry()
        multiprocess.MultiProcessCollector(merged)
        return generate_latest(merged)
