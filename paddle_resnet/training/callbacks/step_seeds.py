"""Randomness inside the network (dropout, stochastic depth) that a resumed run repeats."""

from __future__ import annotations

from typing import Any

import numpy as np
from paddle.callbacks import Callback

from paddle_resnet import distributed, runtime


class StepSeeds(Callback):
    """Seeds Paddle, numpy and Python anew before each step, by the run's seed and the step's number.

    The state of Paddle's generator cannot be written to a file by its documented functions. Of several processes, each
    drops other features of its images.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        self._epoch = 0

    def on_epoch_begin(self, epoch: int | None = None, logs: dict[str, Any] | None = None) -> None:
        """Note the epoch."""
        self._epoch = epoch or 0

    def on_train_batch_begin(self, step: int, logs: dict[str, Any] | None = None) -> None:
        """Seed the step."""
        number = self._epoch * self.params["steps"] + step
        process = distributed.rank()
        entropy = [self._seed, number, process] if process else [self._seed, number]
        runtime.seed_everything(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
