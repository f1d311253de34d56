"""The progress of an epoch: a bar on a terminal, elsewhere a log line now and then."""

from __future__ import annotations

import math
import time

from paddle.callbacks import Callback
from rich.progress import TextColumn

from paddle_resnet.console import SECONDS_BETWEEN_LINES, console, logger, progress_bar
from paddle_resnet.training.callback_runner import Logs


class Progress(Callback):
    """Shows loss, top-1, images/s and the time left of each epoch's training."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        columns = "loss {task.fields[loss]:.4f}  top-1 {task.fields[top1]:.2%}  {task.fields[speed]:.0f} images/s"
        self._epoch = f"epoch {epoch + 1}/{self.params['epochs']}"
        self._bar = progress_bar(TextColumn(columns))
        self._task = self._bar.add_task(self._epoch, total=self.params["steps"], loss=math.nan, top1=0.0, speed=0.0)
        self._bar.start()
        self._images = self._steps = 0
        self._started = self._last_line = time.monotonic()

    def on_train_batch_end(self, step: int, logs: Logs) -> None:
        self._images += logs["batch_size"]
        self._steps += 1  # not `step + 1`: a resumed epoch begins in its middle
        now = time.monotonic()
        loss, top1, speed = logs["cross_entropy"], logs["top1"], self._images / (now - self._started)
        self._bar.update(self._task, completed=step + 1, loss=loss, top1=top1, speed=speed)
        if not console.is_terminal and now - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            logger.info(
                "%s  step %d/%d  loss %.4f  top-1 %.2f%%  %.0f images/s  %.0f s left",
                self._epoch,
                step + 1,
                self.params["steps"],
                loss,
                100 * top1,
                speed,
                (now - self._started) / self._steps * (self.params["steps"] - step - 1),
            )

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.close()

    def close(self) -> None:
        """Give the terminal back; needed when training ends in the middle of an epoch."""
        if hasattr(self, "_bar"):
            self._bar.stop()
