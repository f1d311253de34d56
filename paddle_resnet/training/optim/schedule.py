"""Learning-rate factors by step: a linear warm-up to 1, and the ways down from there.

Step t of a warm-up of w steps has the factor (t + 1) / w, so that the first step already moves.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import paddle

from paddle_resnet.config import TrainConfig


class WarmUp(ABC):
    """Rises to 1 in a line over the first `warmup_steps` of `steps`; what follows is the subclass's."""

    def __init__(self, steps: int, warmup_steps: int) -> None:
        self.steps = steps
        self.warmup_steps = warmup_steps

    def __call__(self, step: int) -> float:
        """Return the factor for `step`, counted from 0; after the last step it stays as it is there."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        return self.fall(min(step, self.steps))

    def progress(self, step: int) -> float:
        """The share done of the steps after the warm-up, 0 to 1."""
        return (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)

    @abstractmethod
    def fall(self, step: int) -> float:
        """Return the factor of a step after the warm-up."""


class WarmupCosine(WarmUp):
    """Half a cosine to 0 (Loshchilov and Hutter 2017, without restarts)."""

    def fall(self, step: int) -> float:
        """``(1 + cos(pi * progress)) / 2``."""
        return 0.5 * (1 + math.cos(math.pi * self.progress(step)))


class OneCycle(WarmUp):
    """A line down to 0: Smith's one cycle (2018, arXiv:1803.09820) without its cycle of the momentum."""

    def fall(self, step: int) -> float:
        """``1 - progress``."""
        return 1 - self.progress(step)


class Milestones(WarmUp):
    """A tenth after each milestone, a share of all steps (He et al. 2015, section 4.2: at 1/2 and 3/4)."""

    def __init__(self, steps: int, warmup_steps: int, shares: Sequence[float]) -> None:
        super().__init__(steps, warmup_steps)
        self.milestones = [round(share * steps) for share in shares]

    def fall(self, step: int) -> float:
        """``0.1 ** (milestones reached)``."""
        return float(0.1 ** sum(step >= milestone for milestone in self.milestones))


class Plateau(WarmUp):
    """A tenth, and a tenth of that, whenever validation is at a standstill; see `standstill`."""

    reductions = 0
    """How often the rate was reduced so far."""

    def fall(self, step: int) -> float:
        """``0.1 ** reductions``."""
        return float(0.1**self.reductions)


def make_schedule(train: TrainConfig, steps: int) -> paddle.optimizer.lr.LRScheduler:
    """Make the schedule of a run of `steps` steps; its peak is the config's learning rate."""
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
