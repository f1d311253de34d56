"""What happens when validation no longer improves: a lower learning rate (plateau), or the end (early stopping)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import paddle
from paddle.callbacks import Callback

from paddle_resnet.console import logger
from paddle_resnet.results import EpochRecord, Monitor
from paddle_resnet.training.callback_runner import Logs
from paddle_resnet.training.optim.schedule import Factor

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
