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

    Steps that were added to a run are cycles of "cosine" and "one_cycle" of their own, with the same share of warm-up
    and a lower peak. "step" and "plateau" go on as they are, their milestones and warm-up those of the first `steps`.
    """

    schedule: str
    steps: int
    warmup_steps: int
    milestones: Sequence[float] = ()  # of the schedule "step": shares of all steps
    reductions: int = 0  # of the schedule "plateau": counted by `callbacks.early_stopping.ReduceOnPlateau`
    added: Sequence[int] = ()  # the steps at which each of the added cycles ends
    added_peak: float = 0.1  # the factor to which an added cycle rises

    def __call__(self, step: int) -> float:
        start, end, peak = 0, self.steps, 1.0
        if self.schedule in ("cosine", "one_cycle"):
            for later in self.added:
                if step >= end:
                    start, end, peak = end, later, self.added_peak
        return peak * self._of_cycle(step - start, end - start)

    def _of_cycle(self, step: int, steps: int) -> float:
        warmup_steps = round(self.warmup_steps * steps / self.steps)
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        step = min(step, steps)
        done = (step - warmup_steps) / max(1, steps - warmup_steps)
        if self.schedule == "cosine":  # from 1 to 0 (Loshchilov and Hutter 2017, without restarts)
            return 0.5 * (1 + math.cos(math.pi * done))
        if self.schedule == "one_cycle":  # linear (Smith 2018, arXiv:1803.09820, with constant momentum)
            return 1 - done
        # Divided by 10: on each plateau, or at milestones (He et al. 2015, section 4.2: 1/2 and 3/4).
        passed = sum(step >= round(share * steps) for share in self.milestones)
        return float(0.1 ** (self.reductions if self.schedule == "plateau" else passed))


def make_schedule(train: TrainConfig, steps_per_epoch: int) -> paddle.optimizer.lr.LRScheduler:
    """Make the config's schedule; its peak is `train.learning_rate`."""
    steps, *added = (epochs * steps_per_epoch for epochs in train.plan)
    warmup_steps = round(train.warmup * steps)
    factor = Factor(train.schedule, steps, warmup_steps, train.milestones, added=added, added_peak=train.extend_rate)
    return paddle.optimizer.lr.LambdaDecay(train.learning_rate, factor)
