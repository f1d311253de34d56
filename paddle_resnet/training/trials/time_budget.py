"""``train.minutes``: how many epochs fit into a time on this machine, measured before the run begins."""

from __future__ import annotations

import contextlib
import copy
import itertools
import logging
import time
from collections.abc import Callable, Generator, Iterable

import paddle

from paddle_resnet import distributed, signals
from paddle_resnet.config import Config
from paddle_resnet.console import least_log_level, logger
from paddle_resnet.models import ImageClassifier
from paddle_resnet.training.metrics import TrainMetrics
from paddle_resnet.training.process_setup import ignore_paddle_warnings, random_states_restored
from paddle_resnet.training.run_folder import Run
from paddle_resnet.training.setup import make_model, make_train_loader, make_validation_loader

FIRST_BATCHES = 2  # they are slower: workers start, memory is allocated
MEASURED_BATCHES = 8


def fit_to_minutes(run: Run, network: ImageClassifier, device: str) -> Config:
    """Return the run's config with as many ``train.epochs`` as fit into ``train.minutes``, at least one.

    The time of an epoch is that of its steps and its validation, measured with a copy of `network`; nothing else
    changes. Smaller images and frozen layers of the first epochs are not taken into account. The config then has
    epochs and no minutes: it reproduces the run, and a stopped run goes on with these epochs.

    Raises:
        UsageError: as `Config.from_values`, if another key needs more epochs.
    """
    began, seconds = time.monotonic(), 60 * (run.config.train.minutes or 0)
    step, steps, validation = _measure(run, network, device)
    epoch = distributed.all_reduce_max(steps * step + validation)
    left = seconds - distributed.all_reduce_max(time.monotonic() - began)
    epochs = max(1, int(left / epoch))
    logger.info(
        "train.minutes %g: %d x %.3g s, an epoch of %d steps of %.3g s and %.2g s of validation",
        *(run.config.train.minutes, epochs, epoch, steps, step, validation),
    )
    if epoch > left:
        logger.warning("warning: a single epoch takes %.3g minutes, longer than train.minutes leaves", epoch / 60)
    fitted = ["train.minutes=null", f"train.epochs={epochs}"]
    return Config.from_values(run.config.model_dump(mode="json"), fitted, source="train.minutes")


def _measure(run: Run, network: ImageClassifier, device: str) -> tuple[float, int, float]:
    """Return the seconds of a step, the steps of an epoch, and the seconds of a validation."""
    loader, validation = make_train_loader(run), make_validation_loader(run)
    with (
        random_states_restored(),
        paddle.utils.unique_name.guard(),
        ignore_paddle_warnings(),
        least_log_level(logging.ERROR),
        contextlib.closing(endless(loader)) as batches,
        contextlib.closing(endless(validation)) as validation_batches,
    ):
        model = make_model(run, copy.deepcopy(network), TrainMetrics(), len(loader), device)
        step = _seconds_a_batch(model.train_batch, batches)
        batch = _seconds_a_batch(model.eval_batch, validation_batches)
    return step, len(loader), len(validation) * batch


def _seconds_a_batch(compute: Callable[..., object], batches: Iterable[list[paddle.Tensor]]) -> float:
    """Return the mean time of reading and computing a batch after the first ones."""
    ends = []
    for images, *labels in itertools.islice(batches, FIRST_BATCHES + MEASURED_BATCHES):
        with signals.uninterrupted():
            compute([images], labels)
        ends.append(time.monotonic())
    return (ends[-1] - ends[FIRST_BATCHES - 1]) / (len(ends) - FIRST_BATCHES)


def endless(loader: Iterable[list[paddle.Tensor]]) -> Generator[list[paddle.Tensor], None, None]:
    """Yield the batches of one epoch after the other."""
    while True:
        yield from loader
