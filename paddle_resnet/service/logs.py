"""Log lines as JSON objects on standard error, of the service, of uvicorn and of other libraries alike."""

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
from typing import Any

logger = logging.getLogger("paddle_resnet.service")
MAX_LINE = 4096
"""Characters of another library's output in one log line."""
FLUSH_SECONDS = 0.1
"""Request lines are written together, at most so late: one write for each costs more than to format it."""


class JsonFormatter(logging.Formatter):
    """``{"time": ..., "level": ..., "event": ..., ...}`` with the fields of ``extra={"fields": {...}}``."""

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


class BufferedHandler(logging.StreamHandler):
    """Writes request lines together, at most `FLUSH_SECONDS` late, and all other lines at once."""

    def __init__(self) -> None:
        super().__init__()
        self._buffer: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._buffer.append(self.format(record))
            if not getattr(record, "deferrable", False):
                self.flush()
            elif len(self._buffer) == 1:
                self._flush_later()
        except Exception:  # as in every handler: a failure to log must not stop the program
            self.handleError(record)

    def flush(self) -> None:
        with self.lock or nullcontext():
            lines, self._buffer = self._buffer, []
            if lines:
                self.stream.write("\n".join([*lines, ""]))
        super().flush()

    def _flush_later(self) -> None:
        try:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        except RuntimeError:  # no event loop in this thread
            self.flush()


def log(event: str, level: int = logging.INFO, *, exc_info: bool = False, **fields: Any) -> None:
    """Log an event with its fields."""
    logger.log(level, event, extra={"fields": fields}, exc_info=exc_info)


def log_request(**fields: Any) -> None:
    """Log a request. The record is made here, without the usual search for the line of code that logs."""
    if logger.isEnabledFor(logging.INFO):
        record = logging.LogRecord(logger.name, logging.INFO, "", 0, "request", (), None)
        record.fields, record.deferrable = fields, True
        logger.handle(record)


def log_warnings_and_uncaught() -> None:
    """Log this process's warnings, and its exceptions in threads and finalizers."""
    logging.captureWarnings(True)

    def log_uncaught(arguments: Any) -> None:
        logger.error("uncaught exception", exc_info=(arguments.exc_type, arguments.exc_value, arguments.exc_traceback))

    threading.excepthook = log_uncaught
    sys.unraisablehook = log_uncaught


@contextmanager
def json_output() -> Iterator[None]:
    """Turn all that a child process writes into JSON lines: also its libraries' raw output, and a fatal exception."""
    logging.config.dictConfig(logging_config("WARNING"))
    log_warnings_and_uncaught()
    stderr = os.fdopen(os.dup(2), "w", encoding="utf-8")
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(stderr)
    reading, writing = os.pipe()
    for descriptor in (1, 2):
        os.dup2(writing, descriptor)
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
        log("uncaught exception", logging.ERROR, exc_info=True)  # raised again, multiprocessing would print it
    finally:
        for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
            stream.flush()
            os.dup2(stderr.fileno(), descriptor)
        reader.join(1)  # it ends with the last writer, which may be another process that a library started


def logging_config(level: str) -> dict[str, Any]:
    """Return the argument of `logging.config.dictConfig`, for this process and for uvicorn's workers."""
    handled = {"handlers": ["stderr"], "level": level, "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "paddle_resnet.service.logs.JsonFormatter"}},
        "handlers": {"stderr": {"class": "paddle_resnet.service.logs.BufferedHandler", "formatter": "json"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},  # other libraries, and Python's warnings
        "loggers": {
            "paddle_resnet": handled,
            "uvicorn": {**handled, "level": "WARNING"},
        },
    }
