"""What a training needs of the process around it: device, seeds, names, log lines, quiet."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from logging.handlers import MemoryHandler

import paddle

from paddle_resnet import distributed, runtime
from paddle_resnet.config import Config
from paddle_resnet.console import least_log_level, logger
from paddle_resnet.training.run_folder import RunFolder


@contextlib.contextmanager
def session(config: Config, *, aloud: bool = True) -> Iterator[tuple[str, HeldLines]]:
    """What a training needs of the process: give the device, and where log lines wait for the run's folder.

    What was launched together has joined within the block, and its first process alone says what it does; none does
    unless `aloud`.
    """
    # Paddle keys an optimizer's state by names it numbers through the whole process: each run counts from 0.
    with paddle.utils.unique_name.guard(), _logging_to_memory() as lines:
        device = runtime.select_device(config.device)
        distributed.join(device)
        with least_log_level(logging.NOTSET if aloud and distributed.is_main_process() else logging.ERROR):
            logger.info("paddle %s on %s; %s", paddle.__version__, device, runtime.prepare_process())
            runtime.seed_everything(config.train.seed)
            yield device, lines


@contextlib.contextmanager
def _logging_to_memory() -> Iterator[HeldLines]:
    """Hold log lines back until the run has a folder to write them to."""
    lines = HeldLines()
    logger.addHandler(lines)
    try:
        yield lines
    finally:
        logger.removeHandler(lines)
        lines.close()
        if lines.target is not None:
            with contextlib.suppress(OSError):
                lines.target.close()


class HeldLines(MemoryHandler):
    """Keeps log lines until there is a file for them."""

    def __init__(self) -> None:
        super().__init__(capacity=10_000, flushLevel=logging.CRITICAL)

    def go_to(self, file: LogFile) -> None:
        """Write what was kept to `file`, and each further line at once: a process can be killed at any time."""
        self.setTarget(file)
        self.flush()
        self.capacity = 1


@contextlib.contextmanager
def without_paddles_warnings() -> Iterator[None]:
    """Hide what `paddle.Model` warns of in itself: it copies each batch, and switches BatchNorm to training."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "To copy construct from a tensor", UserWarning)
        warnings.filterwarnings("ignore", "When training, we now always track", UserWarning)
        yield


class LogFile(logging.FileHandler):
    """Appends log lines, with times, to a file as long as that can be written.

    On a full disk the next checkpoint ends the run with one line; `logging` would show a traceback for each of its own.
    """

    def __init__(self, run: RunFolder) -> None:
        """Append to the run's ``train.log``."""
        super().__init__(run.log_path, encoding="utf-8")
        self.setFormatter(logging.Formatter("%(asctime)s  %(message)s"))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Leave the line out."""
