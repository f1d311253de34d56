"""Log lines as JSON objects, one a line, on standard error: of the service and of uvicorn alike."""

from __future__ import annotations

import asyncio
import json
import logging
import logging.config
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime, timezone
from typing import Any, TextIO

logger = logging.getLogger("paddle_resnet.service")
MAX_LINE = 4096
"""Characters of another library's output in one line of the log."""
PATIENCE = 0.1
"""Seconds that a line of a request may wait for others: to write each by itself costs more than to make it."""


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


class PatientHandler(logging.StreamHandler[TextIO]):
    """Writes lines of requests together, `PATIENCE` later at most, and all others at once."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record (under the handler's lock)."""
        try:
            self._waiting.append(self.format(record))
            if not getattr(record, "may_wait", False):
                self.flush()
            elif len(self._waiting) == 1:
                self._flush_later()
        except Exception:  # as in every handler: what cannot be logged must not stop what logs it
            self.handleError(record)

    def flush(self) -> None:
        """Write what waits."""
        with self.lock or nullcontext():
            lines, self._waiting = self._waiting, []
            if lines:
                self.stream.write("\n".join([*lines, ""]))
        super().flush()

    def _flush_later(self) -> None:
        try:
            asyncio.get_running_loop().call_later(PATIENCE, self.flush)
        except RuntimeError:  # no event loop in this thread
            self.flush()


def log(event: str, level: int = logging.INFO, *, exc_info: bool = False, **fields: Any) -> None:
    """Log an event with its fields."""
    logger.log(level, event, extra={"fields": fields}, exc_info=exc_info)


def log_request(**fields: Any) -> None:
    """Log that a request was answered; the line may be written a little later.

    Without the standard way's search for the line of code that logs.
    """
    if logger.isEnabledFor(logging.INFO):
        record = logging.LogRecord(logger.name, logging.INFO, "", 0, "request", (), None)
        record.fields, record.may_wait = fields, True
        logger.handle(record)


def capture() -> None:
    """Make lines of JSON of warnings, and of exceptions in threads and finalizers, in this process."""
    logging.captureWarnings(True)

    def unhandled(arguments: Any) -> None:
        kinds = (arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
        logger.error("fault", exc_info=kinds)

    threading.excepthook = unhandled
    sys.unraisablehook = unhandled


@contextmanager
def json_output() -> Iterator[None]:
    """Make lines of JSON of all that a child process writes, its libraries' raw output and its end by a fault too."""
    logging.config.dictConfig(configuration("WARNING"))
    capture()
    real = os.fdopen(os.dup(2), "w", encoding="utf-8")
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(real)
    reading, writing = os.pipe()
    for output in (1, 2):
        os.dup2(writing, output)
    os.close(writing)

    def read() -> None:
        with os.fdopen(reading, encoding="utf-8", errors="replace") as lines:
            while line := lines.readline(MAX_LINE):
                if line.strip():
                    log("output", logging.WARNING, text=line.rstrip())

    reader = threading.Thread(target=read, daemon=True, name="output")
    reader.start()
    try:
        yield
    except Exception:
        log("fault", logging.ERROR, exc_info=True)  # raised again, multiprocessing would print it
    finally:
        for stream, output in ((sys.stdout, 1), (sys.stderr, 2)):
            stream.flush()
            os.dup2(real.fileno(), output)
        reader.join(1)  # it ends with the last writer, which a process of a library's own may be


def configuration(level: str) -> dict[str, Any]:
    """For `logging.config.dictConfig`, in this process and by uvicorn in its workers."""
    handled = {"handlers": ["stderr"], "level": level, "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "paddle_resnet.service.logs.JsonFormatter"}},
        "handlers": {"stderr": {"class": "paddle_resnet.service.logs.PatientHandler", "formatter": "json"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},  # other libraries, and Python's warnings
        "loggers": {
            "paddle_resnet": handled,
            "uvicorn": {**handled, "level": "WARNING"},
            "uvicorn.error": {**handled, "level": "WARNING"},
        },
    }
