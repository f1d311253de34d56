"""What a training needs of its process: device, ranks, seeds, and log lines on the console and in ``train.log``."""

from __future__ import annotations

import contextlib
import logging
import random
import warnings
from collections.abc import Iterator
from logging.handlers import MemoryHandler
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from paddle_resnet import distributed, runtime
from paddle_resnet.config import Config
from paddle_resnet.console import least_log_level, logger
from paddle_resnet.errors import RunFailure
from paddle_resnet.files import require_space
from paddle_resnet.system import machine, threads

COPIES_OF_WEIGHTS = 3  # on the disk at least: the best, and the last with a momentum
SIZE_OF_PLOTS = 4_000_000
LEAST_MEMORY = 300_000_000  # bytes for the smallest networks, beside Paddle itself


@contextlib.contextmanager
def setup_process(config: Config, *, quiet: bool = False) -> Iterator[tuple[str, DeferredLogHandler]]:
    """Prepare this process for a training, until the end of the block.

    Yields:
        The device, as Paddle names it, and the handler that keeps the log lines until the run has a folder. Only the
        main process logs, and none does if `quiet`.
    """
    # Optimizer states are keyed by parameter names that Paddle numbers within the process: each run counts from 0.
    with paddle.utils.unique_name.guard(), DeferredLogHandler() as lines:
        device = runtime.select_device(config.device)
        distributed.join(device)
        with least_log_level(logging.ERROR if quiet or not distributed.is_main_process() else logging.NOTSET):
            logger.info("paddle %s on %s; %s", paddle.__version__, device, runtime.prepare_process())
            runtime.seed_everything(config.train.seed)
            with _thread_number(config):
                yield device, lines


@contextlib.contextmanager
def _thread_number(config: Config) -> Iterator[None]:
    """Use the config's number of threads; at the end restore the number that was in use before."""
    before = threads.count()
    if config.train.threads != "auto":
        if not threads.can_change():
            logger.warning("warning: train.threads %d is ignored: this Paddle has no OpenMP", config.train.threads)
        elif before != config.train.threads:
            logger.info("threads: %d (train.threads)", config.train.threads)
            threads.use(config.train.threads)
    try:
        yield
    finally:
        threads.use(before)


def check_resources(folder: Path, network: nn.Layer) -> None:
    """Check disk and memory before the first step; raise `RunFailure` if the disk has no place for two checkpoints."""
    weights = sum(4 * parameter.size for parameter in network.parameters())
    require_space(folder / "checkpoints", COPIES_OF_WEIGHTS * weights + SIZE_OF_PLOTS)
    free = machine.free_memory()
    if free is not None and free < LEAST_MEMORY:
        logger.warning(
            f"warning: {free / 1e6:.0f} MB of memory are free, and a training needs at least {LEAST_MEMORY / 1e6:.0f}: "
            "if the system ends it, close programs or take a smaller train.batch_size"
        )


class DeferredLogHandler(MemoryHandler):
    """Keeps the log lines of its ``with`` block until there is a file for them."""

    def __init__(self) -> None:
        super().__init__(capacity=10_000, flushLevel=logging.CRITICAL)

    def __enter__(self) -> DeferredLogHandler:
        logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logger.removeHandler(self)
        file = self.target
        self.close()
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    def flush_to(self, path: Path) -> None:
        """Append the kept lines to the file at `path`, and from now on each line at once: a kill loses none."""
        self.setTarget(LogFile(path))
        self.flush()
        self.capacity = 1


class LogFile(logging.FileHandler):
    """Appends log lines with their times to a file, and leaves out those that cannot be written.

    On a full disk the next checkpoint ends the run with one line. `logging` would print a traceback for every line.
    """

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_file():
            raise RunFailure(f"{path}: cannot be written (it is no file; remove it)")
        super().__init__(path, encoding="utf-8")
        self.setFormatter(logging.Formatter("%(asctime)s  %(message)s"))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        pass


@contextlib.contextmanager
def ignore_paddle_warnings() -> Iterator[None]:
    """Hide the warnings of Paddle about its own code within the block, or the decorated function."""
    with warnings.catch_warnings():
        runtime.ignore_paddle_warnings()
        yield


@contextlib.contextmanager
def random_states_restored() -> Iterator[None]:
    """Restore the random states of Python, numpy and Paddle at the end of the block."""
    python_state, numpy_state, paddle_state = random.getstate(), np.random.get_state(), paddle.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        paddle.set_rng_state(paddle_state)
