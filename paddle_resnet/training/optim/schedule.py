"""Learning-rate schedules: factors of the peak rate by step, counted from 0.

Each begins with a linear warm-up. Step t of w warm-up steps has the factor (t + 1) / w, so the first step moves too.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import paddle

from paddle_resnet.config import TrainConfig


class WarmUp(ABC):
    """A linear warm-up over the first `warmup_steps` of `steps`; subclasses define the factors that follow."""

    def __init__(self, steps: int, warmup_steps: int) -> None:
        self.steps = steps
        self.warmup_steps = warmup_steps

    def __call__(self, step: int) -> float:
        """Return the factor of `step`; beyond the last step it stays the same."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        return self.after_warmup(min(step, self.steps))

    def progress(self, step: int) -> float:
        """Return the share of the steps after the warm-up that is done, 0 to 1."""
        return (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)

    @abstractmethod
    def after_warmup(self, step: int) -> float:
        """Return the factor of a step from `warmup_steps` to `steps`."""


class WarmupCosine(WarmUp):
    """Half a cosine from 1 to 0 (Loshchilov and Hutter 2017, without restarts)."""

    def after_warmup(self, step: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * self.progress(step)))


class OneCycle(WarmUp):
    """Linear from 1 to 0: Smith's one cycle (2018, arXiv:1803.09820) with constant momentum."""

    def after_warmup(self, step: int) -> float:
        return 1 - self.progress(step)


class Milestones(WarmUp):
    """Divided by 10 at each milestone, a share of all steps (He et al. 2015, section 4.2: 1/2 and 3/4)."""

    def __init__(self, steps: int, warmup_steps: int, shares: Sequence[float]) -> None:
        super().__init__(steps, warmup_steps)
        self.milestones = [round(share * steps) for share in shares]

    def after_warmup(self, step: int) -> float:
        return float(0.1 ** sum(step >= milestone for milestone in self.milestones))


class Plateau(WarmUp):
    """Divided by 10 at each of the `reductions`, which `callbacks.early_stopping.ReduceOnPlateau` counts."""

    reductions = 0

    def after_warmup(self, step: int) -> float:
        return float(0.1**self.reductions)


def make_schedule(train: TrainConfig, steps: int) -> paddle.optimizer.lr.LRScheduler:
    """Make the config's schedule for a run of `steps` steps; its peak is `train.learning_rate`."""
    warmup_steps = round(train.warmup * steps)
    factor: WarmUp
    if train.schedule == "cosine":
        factor = WarmupCosine(steps, warmup_steps)
    elif train.schedule == "one_cycle":
        factor = OneCycle(steps, warmup_steps)
    elif train.schedule == "plateau":
        factor = Plateau(steps, warmup_steps)
    else:
        factor = Milestones(steps, warmup_steps, train.milestones)
    return paddle.optimizer.lr.LambdaDecay(train.learning_rate, factor)
