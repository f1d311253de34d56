"""Log lines as JSON objects, one a line, on standard error: of the service and of uvicorn alike."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Any

logger = logging.getLogger("paddle_resnet.service")


class JsonFormatter(logging.Formatter):
    """``{"time": ..., "level": ..., "event": ..., ...}``; the fields are those of ``extra={"fields": {...}}``."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log(event: str, level: int = logging.INFO, *, exc_info: bool = False, **fields: Any) -> None:
    """Log an event with its fields."""
    logger.log(level, event, extra={"fields": fields}, exc_info=exc_info)


def configuration(level: str) -> dict[str, Any]:
    """For `logging.config.dictConfig`, in this process and by uvicorn in its workers."""
    handled = {"handlers": ["stderr"], "level": level, "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "paddle_resnet.service.logs.JsonFormatter"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "loggers": {
            "paddle_resnet": handled,
            "uvicorn": {**handled, "level": "WARNING"},
            "uvicorn.error": {**handled, "level": "WARNING"},
        },
    }
