"""The parts of a recipe that change something between epochs.

Where validation no longer improves, that is a lower learning rate (plateau), or the end (early stopping).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import paddle
from paddle.callbacks import Callback

from paddle_resnet.config import Config, TrainConfig
from paddle_resnet.console import logger
from paddle_resnet.data import TrainLoader
from paddle_resnet.models import ImageClassifier
from paddle_resnet.paddle_compat import create_optimizer_state, learning_rate_of, parameters_of
from paddle_resnet.results import EpochRecord, Monitor
from paddle_resnet.training.callback_runner import Logs
from paddle_resnet.training.optim.optimizer import Factor

CROP_STEP = 4  # pixels by which crops grow, so that sizes can be halved twice
GROWTH = 0.75  # the share of the epochs in which crops grow; the others have the size of the evaluation


def recipe_callbacks(
    config: Config,
    network: ImageClassifier,
    optimizer: paddle.optimizer.Optimizer,
    loader: TrainLoader,
    records: Records,
) -> list[Callback]:
    """Make the callbacks that the config asks for. They follow the recorder, which `records` reads."""
    train = config.train
    callbacks: list[Callback] = [BatchesByEpoch(loader, train, config.data.image_size)]
    if train.freeze_epochs > 0:
        callbacks.append(FreezeBackbone(network, train.freeze_epochs, optimizer))
    if train.schedule == "plateau":
        callbacks.append(ReduceOnPlateau(learning_rate_of(optimizer), train.plateau_patience, records))
    if train.patience is not None:
        callbacks.append(EarlyStopping(train.patience, records, train.monitor))
    return callbacks


def crop_sizes(first: int, last: int, epochs: int) -> list[int]:
    """Return the crop size of each epoch: from `first` linearly in steps of 4, and `last` in the last quarter."""
    growing = min(GROWTH * epochs, epochs - 1)
    steps = (last - first) / CROP_STEP
    return [first + int(steps * epoch / growing) * CROP_STEP if epoch < growing else last for epoch in range(epochs)]


def unmixed_epochs(share: float, plan: Sequence[int]) -> set[int]:
    """Return the last epochs, counted from 0, of the run as it was planned and of each extension: at least one."""
    ends = [(end, max(1, round(share * (end - start)))) for start, end in pairwise((0, *plan))]
    return {epoch for end, count in ends for epoch in range(end - count, end)}


class BatchesByEpoch(Callback):
    """Progressive resizing: small images in the first epochs, which cost less (Tan and Le 2021, section 4.1).

    The last epochs may be without mixup and CutMix, on images as they are evaluated.
    """

    def __init__(self, loader: TrainLoader, train: TrainConfig, image_size: int) -> None:
        super().__init__()
        self._loader = loader
        self._sizes = crop_sizes(train.first_size or image_size, image_size, train.plan[0])
        self._unmixed = unmixed_epochs(train.stop_mixing, train.plan) if train.stop_mixing else set()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._loader.crop_size = self._sizes[min(epoch, len(self._sizes) - 1)]
        self._loader.mixes = epoch not in self._unmixed
        self._loader.epoch = epoch


class FreezeBackbone(Callback):
    """Trains only the head in the first epochs (gradual unfreezing: Howard and Ruder 2018, arXiv:1801.06146).

    Frozen parameters have no gradient, so the optimizer skips them: no weight decay, no momentum, no part in the
    clipped norm. Frozen layers are in eval mode, so BatchNorm's running statistics stay too.
    """

    def __init__(self, network: ImageClassifier, epochs: int, optimizer: paddle.optimizer.Optimizer) -> None:
        """Take the network, the number of frozen epochs, and the optimizer of all the network's parameters."""
        super().__init__()
        self._network = network
        self._epochs = epochs
        self._optimizer = optimizer

    def on_train_begin(self, logs: Logs | None = None) -> None:
        # Checkpoints then hold the optimizer state of all parameters from the first one on.
        create_optimizer_state(self._optimizer, parameters_of(self._optimizer))

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._network.freeze(self._network.stage_names[-1] if epoch < self._epochs else None)


LEAST_IMPROVEMENT = 1e-4  # a share of the loss, as in PyTorch's ``ReduceLROnPlateau``
Records = Callable[[], Sequence[EpochRecord]]  # returns the epochs recorded so far


def reductions(losses: Sequence[float], patience: int) -> int:
    """Count the reductions: one after each `patience` epochs in a row without a lower loss; NaN is not lower."""
    best, waited, count = math.inf, 0, 0
    for loss in losses:
        if loss < best * (1 - LEAST_IMPROVEMENT):
            best, waited = loss, 0
        else:
            waited += 1
        if waited == patience:
            waited, count = 0, count + 1
    return count


def epochs_since_best(records: Sequence[EpochRecord], monitor: Monitor = "top1") -> int:
    """Count the epochs since the first one with the highest rank."""
    ranks = [record.rank(monitor) for record in records]
    return len(ranks) - 1 - ranks.index(max(ranks))


class ReduceOnPlateau(Callback):
    """Updates the reductions of the schedule "plateau" after each validation. It follows the recorder."""

    state_name = "ReduceOnPlateau"

    def __init__(self, schedule: paddle.optimizer.lr.LambdaDecay, patience: int, records: Records) -> None:
        super().__init__()
        self._schedule = schedule
        self._factor: Factor = schedule.lr_lambda
        self._patience = patience
        self._records = records

    def state_dict(self) -> dict[str, Any]:
        return {"reductions": self._factor.reductions}

    def set_state_dict(self, state: dict[str, Any]) -> None:
        self._reduce(state["reductions"])

    def on_eval_end(self, logs: Logs | None = None) -> None:
        count = reductions([record.validation_loss for record in self._records()], self._patience)
        if count > self._factor.reductions:
            self._reduce(count)
            logger.info("the validation loss no longer falls: learning rate %g from here on", self._schedule.last_lr)

    def _reduce(self, count: int) -> None:
        self._factor.reductions = count
        # The schedule has already computed the rate of the next step.
        self._schedule.step(self._schedule.last_epoch)


class EarlyStopping(Callback):
    """Ends training after `patience` epochs in a row without a new best by validation (`EpochRecord.rank`).

    Paddle's own callback sees only the last batch of the validation.
    """

    def __init__(self, patience: int, records: Records, monitor: Monitor = "top1") -> None:
        super().__init__()
        self._patience = patience
        self._records = records
        self._monitor = monitor

    def on_eval_end(self, logs: Logs | None = None) -> None:
        if epochs_since_best(self._records(), self._monitor) >= self._patience:
            self.model.stop_training = True
            logger.info("stopped early: no better validation in %d epochs", self._patience)
