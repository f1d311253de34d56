"""What Prometheus may ask: requests, their time, batches, the queue. With several workers, of all together."""

from __future__ import annotations

import os

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

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable by which prometheus_client knows that processes add up; set before it is imported."""
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The service's own registry and what is counted in it."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self.requests = Counter("paddle_resnet_requests", "Requests answered.", ["route", "status"], registry=registry)
        self.seconds = Histogram(
            "paddle_resnet_request_seconds",
            "From a request's headers to its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.images = Counter("paddle_resnet_images", "Pictures answered.", registry=registry)
        self.batch = Histogram("paddle_resnet_batch_images", "Pictures of a batch.", buckets=BATCHES, registry=registry)
        self.batch_seconds = Histogram(
            "paddle_resnet_batch_seconds", "The network's time for a batch.", buckets=SECONDS, registry=registry
        )
        self.refusals = Counter(
            "paddle_resnet_refusals", "Requests whose pictures were refused, by why.", ["code"], registry=registry
        )
        self.restarts = Counter("paddle_resnet_restarts", "Network processes that were replaced.", registry=registry)
        self.queue = Gauge(
            "paddle_resnet_queue_images",
            "Pictures admitted and not yet answered.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._shared = SHARED_FOLDER in os.environ
        if not self._shared:
            ProcessCollector(registry=registry)

    def batch_seen(self, images: int, seconds: float) -> None:
        """Count a batch."""
        self.images.inc(images)
        self.batch.observe(images)
        self.batch_seconds.observe(seconds)

    def request_seen(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        if not self._shared:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together)
        return generate_latest(together)
