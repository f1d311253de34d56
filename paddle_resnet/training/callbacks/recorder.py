"""The record of a run's epochs."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import Any

from paddle.callbacks import Callback
from paddle.device import get_device

from paddle_resnet.console import logger
from paddle_resnet.data import TrainLoader
from paddle_resnet.errors import RunFailure
from paddle_resnet.paddle_compat import optimizer_of
from paddle_resnet.results import EpochRecord
from paddle_resnet.system import threads
from paddle_resnet.training.callback_runner import Logs
from paddle_resnet.training.metrics import TrainMetrics
from paddle_resnet.training.run_folder import Run

NAMES_SHOWN = 3


class Recorder(Callback):
    """Records each epoch after its validation, in ``history.csv`` and the log; ends the run if a loss is not finite.

    Callbacks that read `records`, `steps` or `learning_rate` follow it in the list of callbacks.
    """

    state_name = "Recorder"

    def __init__(self, run: Run, metrics: TrainMetrics, loader: TrainLoader) -> None:
        super().__init__()
        self._run = run
        self._metrics = metrics
        self._loader = loader
        self.records: list[EpochRecord] = []
        self.steps = 0  # steps of the run so far
        self.learning_rate = 0.0  # of the step in progress
        self._began = time.monotonic()

    @property
    def best(self) -> EpochRecord:
        """The epoch that is best by validation; of equal ones the first."""
        monitor = self._run.config.train.monitor
        return max(self.records, key=lambda record: record.rank(monitor))

    @property
    def seconds(self) -> float:
        """Time of the whole run so far, validation and time before a resume included."""
        return time.monotonic() - self._began

    def state_dict(self) -> dict[str, Any]:
        return {
            "records": [asdict(record) for record in self.records],
            "step": self.steps,
            "learning_rate": self.learning_rate,
            "means": self._metrics.state_dict(),
            "train": self._train,
            "images": self._images,
            "seconds": self._seconds,
            "seconds_of_run": self.seconds,
        }

    def set_state_dict(self, state: dict[str, Any]) -> None:
        self.records = [EpochRecord(**record) for record in state["records"]]
        self._run.write_history(self.records)
        self.steps = state["step"]
        self.learning_rate = state["learning_rate"]
        self._metrics.set_state_dict(state["means"])
        self._train = state["train"]
        self._images = state["images"]
        self._seconds = state["seconds"]
        self._started = time.monotonic() - state["seconds"]
        self._began = time.monotonic() - state["seconds_of_run"]

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._images = 0
        self._epoch = epoch + 1
        self._started = time.monotonic()

    def on_train_batch_begin(self, step: int, logs: Logs | None = None) -> None:
        # The schedule changes it at the end of the step.
        self.learning_rate = float(optimizer_of(self.model).get_lr())

    def on_train_batch_end(self, step: int, logs: Logs) -> None:
        (loss,) = logs["loss"]
        if not math.isfinite(loss):
            names = self._loader.names()
            more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
            where = f", on the batch of {', '.join(names[:NAMES_SHOWN])}{more}"
            raise self._diverged(f"the loss at step {step + 1}", loss, where)
        self._images += logs["batch_size"]
        self._seconds = time.monotonic() - self._started
        # A copy, because validation uses `logs` again.
        self._train = {name: logs[name] for name in self._metrics.name()}
        self.steps += 1

    def on_eval_end(self, logs: Logs) -> None:
        if not math.isfinite(logs["cross_entropy"]):
            raise self._diverged("the validation loss", logs["cross_entropy"])
        record = EpochRecord(
            epoch=self._epoch,
            train_loss=self._train["cross_entropy"],
            train_top1=self._train["top1"],
            validation_loss=logs["cross_entropy"],
            validation_top1=logs["top1"],
            learning_rate=self.learning_rate,
            images_per_second=self._images / self._seconds,
            seconds=self._seconds,
            threads=threads.count() if get_device() == "cpu" else None,
            # `paddle.Model` keeps one dictionary for all runs of a process.
            validation_macro_f1=logs["macro_f1"] if "macro_f1" in self._metrics.name() else None,
        )
        self.records.append(record)
        self._run.write_history(self.records)
        macro_f1 = "" if record.validation_macro_f1 is None else f", macro F1 {record.validation_macro_f1:.2%}"
        logger.info(
            f"epoch {record.epoch}/{self.params['epochs']}  "
            f"train: loss {record.train_loss:.4f}, top-1 {record.train_top1:.2%}  "
            f"validation: loss {record.validation_loss:.4f}, top-1 {record.validation_top1:.2%}{macro_f1}  "
            f"{record.images_per_second:.0f} images/s, {record.seconds:.1f} s{'  (best)' * (self.best is record)}"
        )

    def _diverged(self, what: str, loss: float, where: str = "") -> RunFailure:
        return RunFailure(
            f"{what} of epoch {self._epoch} became {loss} at learning rate {self.learning_rate:g}{where}; "
            "try a lower train.learning_rate, or train.clip_norm=1; the checkpoints written so far are kept"
        )
