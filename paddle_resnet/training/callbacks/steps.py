"""Before each step its seed, after it the signals."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
from paddle.callbacks import Callback

from paddle_resnet import distributed, runtime, signals
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
