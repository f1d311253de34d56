"""What the tests share: the project on the path, a process prepared before paddle is imported, the GPU mark."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
if str(PROJECT) not in sys.path:
    sys.path.insert(0, str(PROJECT))

# Two threads on every machine, so that sums are taken in the same order; before the import below, which prepares BLAS.
os.environ.setdefault("OMP_NUM_THREADS", "2")
# Figures are drawn into files: no test may depend on a display.
os.environ.setdefault("MPLBACKEND", "Agg")

import paddle_resnet  # noqa: E402, F401


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` where Paddle cannot use one."""
    need_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not need_gpu:
        return
    reason = _why_no_gpu()
    if reason:
        for item in need_gpu:
            item.add_marker(pytest.mark.skip(reason=reason))


def _why_no_gpu() -> str:
    """Why Paddle cannot use a GPU here; empty where it can."""
    import paddle

    if not paddle.device.is_compiled_with_cuda():
        return f"paddlepaddle {paddle.__version__} is a CPU build"
    if paddle.device.cuda.device_count() == 0:
        return f"paddlepaddle-gpu {paddle.__version__} finds no GPU"
    return ""


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's root folder."""
    return PROJECT


@pytest.fixture(autouse=True)
def fresh_loggers() -> Iterator[None]:
    """What a tool, run within a test, makes of the process's log lines ends with that test."""
    loggers = [logging.getLogger(name) for name in ("paddle_resnet", "uvicorn", "uvicorn.error")]
    before = [(logger.handlers[:], logger.level) for logger in loggers]
    yield
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = True
