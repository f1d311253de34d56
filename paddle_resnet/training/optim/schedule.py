"""Learning-rate schedules: factors of the peak rate by step, counted from 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import paddle

from paddle_resnet.config import TrainConfig


@dataclass
class Factor:
    """The factor of each step: a linear warm-up, then what ``train.schedule`` names.

    Step t of w warm-up steps has the factor (t + 1) / w, so the first step moves too. Beyond the last step the factor
    stays the same.
    """

    schedule: str
    steps: int
    warmup_steps: int
    milestones: Sequence[float] = ()
    """Of the schedule "step": shares of all steps."""
    reductions: int = 0
    """Of the schedule "plateau": counted by `callbacks.early_stopping.ReduceOnPlateau`."""

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        step = min(step, self.steps)
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        if self.schedule == "cosine":  # from 1 to 0 (Loshchilov and Hutter 2017, without restarts)
            return 0.5 * (1 + math.cos(math.pi * done))
        if self.schedule == "one_cycle":  # linear (Smith 2018, arXiv:1803.09820, with constant momentum)
            return 1 - done
        # Divided by 10: on each plateau, or at milestones (He et al. 2015, section 4.2: 1/2 and 3/4).
        passed = sum(step >= round(share * self.steps) for share in self.milestones)
        return float(0.1 ** (self.reductions if self.schedule == "plateau" else passed))


def make_schedule(train: TrainConfig, steps: int) -> paddle.optimizer.lr.LRScheduler:
    """Make the config's schedule for a run of `steps` steps; its peak is `train.learning_rate`."""
    factor = Factor(train.schedule, steps, round(train.warmup * steps), train.milestones)
    return paddle.optimizer.lr.LambdaDecay(train.learning_rate, factor)
