"""Prometheus metrics: requests, their time, batches, the queue. With several workers, of all of them together."""

from __future__ import annotations

import os
from functools import partial

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
    multiprocess,
)

from paddle_resnet.service.settings import SHARED_METRICS

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """All metrics of the service, in a registry of its own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        counter, histogram = partial(Counter, registry=registry), partial(Histogram, registry=registry)
        self.requests = counter("paddle_resnet_requests", "Requests answered.", ["route", "status"])
        duration = "From the head of a request to its response."
        self.seconds = histogram("paddle_resnet_request_seconds", duration, ["route"], buckets=SECONDS)
        self.images = counter("paddle_resnet_images", "Images predicted.")
        self.batch = histogram("paddle_resnet_batch_images", "Images of a batch.", buckets=BATCH_SIZES)
        self.batch_seconds = histogram("paddle_resnet_batch_seconds", "Time of a batch.", buckets=SECONDS)
        refusals = "Requests whose images were refused, by error code."
        self.refusals = counter("paddle_resnet_refusals", refusals, ["code"])
        self.restarts = counter("paddle_resnet_restarts", "Inference workers that were replaced.")
        self.queue = Gauge(
            "paddle_resnet_queue_images",
            "Images admitted and not yet answered.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._shared = SHARED_METRICS in os.environ
        if not self._shared:
            ProcessCollector(registry=registry)

    def observe_batch(self, images: int, seconds: float) -> None:
        self.images.inc(images)
        self.batch.observe(images)
        self.batch_seconds.observe(seconds)

    def observe_request(self, route: str, status: int, seconds: float) -> None:
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def exposition(self) -> bytes:
        """Return the text that Prometheus reads."""
        if not self._shared:
            return generate_latest(self._registry)
        merged = CollectorRegistry()
        multiprocess.MultiProcessCollector(merged)
        return generate_latest(merged)
