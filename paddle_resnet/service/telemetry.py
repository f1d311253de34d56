"""What operators see: log lines as JSON objects on standard error, and metrics for Prometheus.

The lines are of the service, of uvicorn and of other libraries alike.
"""

from __future__ import annotations

import json
import logging
import logging.config
import sys
import threading
from datetime import datetime, timezone
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

logger = logging.getLogger("paddle_resnet.service")
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class JsonFormatter(logging.Formatter):
    """``{"time": ..., "level": ..., "event": ..., ...}`` with the fields of `log`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log(event: str, level: int = logging.INFO, error: BaseException | None = None, **fields: Any) -> None:
    """Log an event with its fields. The record is made here: `Logger.log` would search the stack for its caller."""
    if logger.isEnabledFor(level):
        raised = None if error is None else (type(error), error, error.__traceback__)
        logger.handle(logger.makeRecord(logger.name, level, "", 0, event, (), raised, extra={"fields": fields}))


def configure_logging(level: str = "INFO") -> None:
    """Make all log lines of this process JSON, also its warnings, and its exceptions in threads and finalizers."""
    handled = {"handlers": ["stderr"], "propagate": False}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"()": JsonFormatter}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
            "root": {"handlers": ["stderr"], "level": "WARNING"},  # other libraries, and Python's warnings
            "loggers": {
                "paddle_resnet": {**handled, "level": level},
                "uvicorn": {**handled, "level": "WARNING"},
                # It warns of each malformed form, which has a line of its own as a refused request.
                "python_multipart": {"level": "ERROR"},
            },
        }
    )
    logging.captureWarnings(True)

    def log_uncaught(uncaught: Any) -> None:
        log("uncaught exception", logging.ERROR, uncaught.exc_value)

    threading.excepthook = sys.unraisablehook = log_uncaught


class Metrics:
    """All metrics of one application, in a `registry` of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self.requests = counter("paddle_resnet_requests", "Requests answered.", ["route", "status"])
        duration = "From the head of a request to its response."
        self.seconds = histogram("paddle_resnet_request_seconds", duration, ["route"], buckets=SECONDS)
        self.errors = counter("paddle_resnet_refusals", "Requests that were refused, by error code.", ["code"])
        self.images = counter("paddle_resnet_images", "Images predicted.")
        self.batch = histogram("paddle_resnet_batch_images", "Images of a batch.", buckets=BATCH_SIZES)
        self.batch_seconds = histogram("paddle_resnet_batch_seconds", "Time of a batch.", buckets=SECONDS)
        self.restarts = counter("paddle_resnet_restarts", "Inference workers that were replaced.")
        self.queue = gauge("paddle_resnet_queue_images", "Images admitted and not yet answered.")
        self.model = gauge("paddle_resnet_model", "The model of new requests.", ["model", "run", "version"])
        ProcessCollector(registry=self.registry)
