"""When validation no longer improves: a lower learning rate, or the end; both from the epochs recorded so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import paddle
from paddle.callbacks import Callback

from paddle_resnet.console import logger
from paddle_resnet.results import EpochRecord
from paddle_resnet.training.optim.schedule import Plateau

LEAST_IMPROVEMENT = 1e-4
"""Of a loss, as a share of it, as PyTorch's ``ReduceLROnPlateau`` has it."""

Records = Callable[[], Sequence[EpochRecord]]


def reductions(losses: Sequence[float], patience: int) -> int:
    """Count how often the rate falls: after each `patience` epochs in a row without a lower loss; NaN is none."""
    best, waited, count = math.inf, 0, 0
    for loss in losses:
        if loss < best * (1 - LEAST_IMPROVEMENT):
            best, waited = loss, 0
        else:
            waited += 1
        if waited == patience:
            waited, count = 0, count + 1
    return count


def epochs_since_best(records: Sequence[EpochRecord]) -> int:
    """Count the epochs since the one of the highest rank; an epoch whose figures are not all finite has none."""
    best, waited = (-math.inf, -math.inf), 0
    for record in records:
        improved = all(math.isfinite(value) for value in record.rank) and record.rank > best
        best, waited = (record.rank, 0) if improved else (best, waited + 1)
    return waited


class ReduceOnPlateau(Callback):
    """Sets the reductions of a `Plateau` schedule after each validation, once the epoch is recorded."""

    state_name = "ReduceOnPlateau"

    def __init__(self, schedule: paddle.optimizer.lr.LambdaDecay, patience: int, records: Records) -> None:
        """Take the schedule, which holds a `Plateau`, and what returns the epochs recorded so far."""
        super().__init__()
        self._schedule = schedule
        self._factor: Plateau = schedule.lr_lambda
        self._patience = patience
        self._records = records

    def state_dict(self) -> dict[str, Any]:
        """How often the rate was reduced."""
        return {"reductions": self._factor.reductions}

    def set_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with as many reductions."""
        self._reduce(state["reductions"])

    def on_eval_end(self, logs: dict[str, Any] | None = None) -> None:
        """Reduce from the next step on, if it is time."""
        count = reductions([record.validation_loss for record in self._records()], self._patience)
        if count > self._factor.reductions:
            self._reduce(count)
            logger.info("the validation loss no longer falls: learning rate %g from here on", self._schedule.last_lr)

    def _reduce(self, count: int) -> None:
        self._factor.reductions = count
        # The next step's rate has been computed already.
        self._schedule.step(self._schedule.last_epoch)


class EarlyStopping(Callback):
    """Ends training after `patience` epochs in a row without a new best by validation (`EpochRecord.rank`).

    Paddle's own looks at the last batch of the validation only.
    """

    def __init__(self, patience: int, records: Records) -> None:
        """Take the patience, and what returns the epochs recorded so far."""
        super().__init__()
        self._patience = patience
        self._records = records

    def on_eval_end(self, logs: dict[str, Any] | None = None) -> None:
        """Stop before the next epoch if it is time."""
        if epochs_since_best(self._records()) >= self._patience:
            self.model.stop_training = True
            logger.info("stopped early: no better validation in %d epochs", self._patience)
