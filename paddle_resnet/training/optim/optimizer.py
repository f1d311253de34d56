"""The optimizer of a run, and its learning-rate schedule: factors of the peak rate by step, counted from 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import paddle
from paddle import nn
from paddle.incubate.optimizer import LarsMomentumOptimizer
from paddle.regularizer import L2Decay

from paddle_resnet.config import TrainConfig
from paddle_resnet.errors import UsageError
from paddle_resnet.models import ImageClassifier
from paddle_resnet.training.optim.muon import Muon

LARS_COEFFICIENT = 0.001  # the trust coefficient of You et al. 2017 (arXiv:1708.03888)
SMALLEST_DECAY = 1e-30  # replaces weight decay 0, at which Paddle's LARS uses no trust ratio


def make_optimizer(network: nn.Layer, train: TrainConfig, steps_per_epoch: int) -> paddle.optimizer.Optimizer:
    """Make the config's optimizer, with weight decay on weights only, not on BatchNorm's parameters and biases."""
    schedule = make_schedule(train, steps_per_epoch)
    if train.layer_decay < 1:
        decay_layer_rates(network, train.layer_decay)
    parameters = [parameter for parameter in network.parameters() if not parameter.stop_gradient]
    clip = nn.ClipGradByGlobalNorm(train.clip_norm) if train.clip_norm is not None else None
    vectors = [parameter for parameter in parameters if parameter.ndim == 1]
    if train.optimizer == "adamw":
        without_decay = {parameter.name for parameter in vectors}
        return paddle.optimizer.AdamW(
            schedule,
            parameters=parameters,
            weight_decay=train.weight_decay,
            apply_decay_param_fun=lambda name: name not in without_decay,
            grad_clip=clip,
        )
    if train.optimizer == "lars":
        # Parameters without weight decay have no trust ratio either: their steps are those of SGD with momentum.
        return LarsMomentumOptimizer(
            schedule,
            train.momentum,
            lars_coeff=LARS_COEFFICIENT,
            lars_weight_decay=max(train.weight_decay, SMALLEST_DECAY),
            parameter_list=parameters,
            exclude_from_weight_decay=[vector.name for vector in vectors],
            grad_clip=clip,
        )
    # Regularizers instead of parameter groups: Paddle would clip the norm of each group by itself.
    for vector in vectors:
        vector.regularizer = L2Decay(0.0)
    if train.optimizer == "muon":
        filters = [parameter for parameter in parameters if parameter.ndim == 4]
        return Muon(schedule, train.momentum, parameters, filters, train.weight_decay, clip)
    return paddle.optimizer.Momentum(
        schedule,
        momentum=train.momentum,
        parameters=parameters,
        use_nesterov=True,
        weight_decay=train.weight_decay,
        grad_clip=clip,
    )


def decay_layer_rates(network: nn.Layer, decay: float) -> None:
    """Multiply the learning rate of each part by `decay` for each part between it and the head.

    Discriminative learning rates of Howard and Ruder 2018 (arXiv:1801.06146). Set as each parameter's factor, which
    all of Paddle's optimizers apply, and not by parameter groups, whose norms Paddle would clip one by one.

    Raises:
        UsageError: the network is no `ImageClassifier`.
    """
    if not isinstance(network, ImageClassifier):
        raise UsageError(f"train.layer_decay ({decay:g}): {type(network).__name__} has no parts, stem to head")
    for distance, group in enumerate(reversed(network.layer_groups())):
        for parameter in group:
            parameter.optimize_attr = {**parameter.optimize_attr, "learning_rate": decay**distance}


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
    reductions: int = 0  # of the schedule "plateau": counted by `callbacks.recipe.ReduceOnPlateau`
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
