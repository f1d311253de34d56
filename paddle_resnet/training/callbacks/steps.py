"""Before each step its seed; after it the signals, and the progress: a bar on a terminal, elsewhere log lines."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
from paddle.callbacks import Callback
from rich.progress import TextColumn

from paddle_resnet import distributed, runtime, signals
from paddle_resnet.console import SECONDS_BETWEEN_LINES, console, logger, progress_bar
from paddle_resnet.errors import Stopped
from paddle_resnet.training.callback_runner import Logs


class StepSeeds(Callback):
    """Seeds Paddle, numpy and Python before each step, from the run's seed, the step and the rank.

    A resumed run then repeats dropout and stochastic depth. Paddle has no documented way to save its generator.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, step: int, logs: Logs | None = None) -> None:
        number = self._epoch * self.params["steps"] + step
        rank = distributed.joined().rank
        entropy = [self._seed, number, rank] if rank else [self._seed, number]
        runtime.seed_everything(int(np.random.SeedSequence(entropy).generate_state(1)[0]))


class StopBetweenSteps(Callback):
    """Within its ``with`` block, a first signal ends the run after the step in progress; a second one acts at once.

    In a backward pass a KeyboardInterrupt would come out as an error of Paddle's, with a page of stack. All ranks end
    after the same step, whichever got the signal.
    """

    def __init__(self, save: Callable[[], None]) -> None:
        super().__init__()
        self._save = save
        self._deferral = ExitStack()

    def __enter__(self) -> StopBetweenSteps:
        self._deferral.enter_context(signals.deferred())
        return self

    def __exit__(self, *_: object) -> None:
        self._deferral.close()

    def stop_if_asked(self, step: int = 0, logs: Logs | None = None) -> None:
        """Save and raise `Stopped` if a signal has come."""
        asked = int(distributed.all_reduce_max(signals.received()))
        if asked:
            self._save()
            raise Stopped(asked)

    on_train_batch_end = stop_if_asked
    on_eval_batch_end = stop_if_asked


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
            left = (now - self._started) / self._steps * (self.params["steps"] - step - 1)
            logger.info(
                f"{self._epoch}  step {step + 1}/{self.params['steps']}  loss {loss:.4f}  top-1 {top1:.2%}  "
                f"{speed:.0f} images/s  {left:.0f} s left"
            )

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.close()

    def close(self) -> None:
        """Give the terminal back; needed when training ends in the middle of an epoch."""
        if hasattr(self, "_bar"):
            self._bar.stop()
