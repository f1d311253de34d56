"""What happens beside the steps of `paddle.Model.fit`: progress, and the record of each step and epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol

from paddle.callbacks import Callback
from rich.progress import TextColumn

from paddle_resnet import paddle_compat
from paddle_resnet.console import SECONDS_BETWEEN_LINES, console, logger, progress_bar
from paddle_resnet.data import TrainLoader
from paddle_resnet.errors import RunFailure
from paddle_resnet.results import EpochRecord
from paddle_resnet.tracking.hyper_parameters import hyper_parameters
from paddle_resnet.training.metrics import SampleMeans
from paddle_resnet.training.run_folder import RunFolder

Logs = dict[str, Any]
NAMES_SHOWN = 3


class Progress(Callback):
    """A bar with loss, top-1, images/s and ETA on a terminal; a plain line now and then elsewhere."""

    def on_epoch_begin(self, epoch: int | None = None, logs: Logs | None = None) -> None:
        """Start the epoch's bar."""
        columns = "loss {task.fields[loss]:.4f}  top-1 {task.fields[top1]:.2%}  {task.fields[speed]:.0f} images/s"
        self._epoch = f"epoch {(epoch or 0) + 1}/{self.params['epochs']}"
        self._bar = progress_bar(TextColumn(columns))
        self._task = self._bar.add_task(self._epoch, total=self.params["steps"], loss=math.nan, top1=0.0, speed=0.0)
        self._bar.start()
        self._images = self._steps = 0
        self._started = self._last_line = time.monotonic()

    def on_train_batch_end(self, step: int, logs: Logs | None = None) -> None:
        """Move the bar by one step."""
        logs = logs or {}
        self._images += logs["batch_size"]
        self._steps += 1
        now = time.monotonic()
        values = {
            "loss": logs["cross_entropy"],
            "top1": logs["top1"],
            "speed": self._images / (now - self._started),
        }
        self._bar.update(self._task, completed=step + 1, **values)
        if not console.is_terminal and now - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            remaining = (now - self._started) / self._steps * (self.params["steps"] - step - 1)
            logger.info(
                "%s  step %d/%d  loss %.4f  top-1 %.2f%%  %.0f images/s  %.0f s left",
                self._epoch,
                step + 1,
                self.params["steps"],
                values["loss"],
                100 * values["top1"],
                values["speed"],
                remaining,
            )

    def on_epoch_end(self, epoch: int | None = None, logs: Logs | None = None) -> None:
        """Take the bar away; the epoch's line follows after validation."""
        self._bar.stop()

    def close(self) -> None:
        """Give the terminal back when training ends in the middle of an epoch."""
        if hasattr(self, "_bar"):
            self._bar.stop()


class Curves(Protocol):
    """Where steps and epochs are drawn: `VisualDLLog`."""

    def step(self, step: int, loss: float, learning_rate: float) -> None:
        """Log one training step."""

    def epoch(self, record: EpochRecord) -> None:
        """Log an epoch's means."""

    def hyper_parameters(self, values: Mapping[str, float | str]) -> None:
        """Give the run its line among the runs."""

    def best(self, epoch: int, record: EpochRecord) -> None:
        """Log which record is the best by validation after `epoch` epochs."""


class NoCurves:
    """Where a process draws them that is not the first."""

    def step(self, step: int, loss: float, learning_rate: float) -> None:
        """Nothing."""

    def epoch(self, record: EpochRecord) -> None:
        """Nothing."""

    def hyper_parameters(self, values: Mapping[str, float | str]) -> None:
        """Nothing."""

    def best(self, epoch: int, record: EpochRecord) -> None:
        """Nothing."""


class Recorder(Callback):
    """Records each step and, after its validation, each epoch: history, log line, VisualDL."""

    state_name = "Recorder"

    def __init__(self, run: RunFolder, visual_dl: Curves, means: SampleMeans, loader: TrainLoader) -> None:
        super().__init__()
        self._run = run
        self._visual_dl = visual_dl
        self._means = means
        self._loader = loader
        self.records: list[EpochRecord] = []
        self._step = 0
        self._began = time.monotonic()

    @property
    def best(self) -> EpochRecord:
        """The epoch that validated best; of equal ones, the first."""
        return max(self.records, key=lambda record: record.rank)

    @property
    def seconds(self) -> float:
        """Seconds of the run so far, with validation, and with those before it was resumed."""
        return time.monotonic() - self._began

    def state_dict(self) -> Logs:
        """The records, and the sums of the epoch in progress."""
        return {
            "records": [asdict(record) for record in self.records],
            "step": self._step,
            "learning_rate": self._learning_rate,
            "means": self._means.state_dict(),
            "train": self._train,
            "images": self._images,
            "seconds": self._seconds,
            "seconds_of_run": self.seconds,
        }

    def set_state_dict(self, state: Logs) -> None:
        """Go on with these records and sums; the history is that of these records again."""
        self.records = [EpochRecord(**record) for record in state["records"]]
        self._run.write_history(self.records)
        self._step = state["step"]
        self._learning_rate = state["learning_rate"]
        self._means.set_state_dict(state["means"])
        self._train = state["train"]
        self._images = state["images"]
        self._seconds = state["seconds"]
        self._started = time.monotonic() - state["seconds"]
        self._began = time.monotonic() - state["seconds_of_run"]

    def on_epoch_begin(self, epoch: int | None = None, logs: Logs | None = None) -> None:
        """Begin the epoch's sums."""
        self._images = 0
        self._epoch = (epoch or 0) + 1
        self._started = time.monotonic()

    def on_train_batch_begin(self, step: int, logs: Logs | None = None) -> None:
        """Note the step's learning rate, which the schedule changes at the step's end."""
        self._learning_rate = float(paddle_compat.optimizer_of(self.model).get_lr())

    def on_train_batch_end(self, step: int, logs: Logs | None = None) -> None:
        """Log the step; stop at once if its loss is not finite.

        Raises:
            RunFailure: the loss is NaN or infinite; the checkpoints written so far stay.
        """
        logs = logs or {}
        (loss,) = logs["loss"]
        if not math.isfinite(loss):
            raise self._diverged(f"the loss at step {step + 1}", loss, f", on {_few(self._loader.names())}")
        self._images += logs["batch_size"]
        self._seconds = time.monotonic() - self._started
        # Kept, as `logs` itself is used again for validation.
        self._train = {name: logs[name] for name in self._means.name()}
        self._visual_dl.step(self._step, loss, self._learning_rate)
        self._step += 1

    def on_eval_end(self, logs: Logs | None = None) -> None:
        """Record the epoch, now that it is validated.

        Raises:
            RunFailure: the validation's loss is NaN or infinite.
        """
        logs = logs or {}
        if not math.isfinite(logs["cross_entropy"]):
            raise self._diverged("the validation loss", logs["cross_entropy"])
        record = EpochRecord(
            epoch=self._epoch,
            train_loss=self._train["cross_entropy"],
            train_top1=self._train["top1"],
            validation_loss=logs["cross_entropy"],
            validation_top1=logs["top1"],
            learning_rate=self._learning_rate,
            images_per_second=self._images / self._seconds,
            seconds=self._seconds,
        )
        self.records.append(record)
        self._run.write_history(self.records)
        self._visual_dl.epoch(record)
        if record.epoch == 1:
            # Not earlier: VisualDL complains of figures that it does not find.
            self._visual_dl.hyper_parameters(hyper_parameters(self._run.config))
        self._visual_dl.best(record.epoch, self.best)
        logger.info(
            "epoch %d/%d  train: loss %.4f, top-1 %.2f%%  validation: loss %.4f, top-1 %.2f%%  %.0f images/s, %.1f s%s",
            record.epoch,
            self.params["epochs"],
            record.train_loss,
            100 * record.train_top1,
            record.validation_loss,
            100 * record.validation_top1,
            record.images_per_second,
            record.seconds,
            "  (best)" if self.best is record else "",
        )

    def _diverged(self, what: str, loss: float, where: str = "") -> RunFailure:
        return RunFailure(
            f"{what} of epoch {self._epoch} became {loss} at learning rate {self._learning_rate:g}{where}; "
            "try a lower train.learning_rate, or train.clip_norm=1; the checkpoints written so far are kept"
        )


def _few(names: list[str]) -> str:
    """Name a batch by its first images."""
    more = len(names) - NAMES_SHOWN
    return "the batch of " + ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
