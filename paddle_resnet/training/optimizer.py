"""Optimizer and learning-rate schedule of a run."""

from __future__ import annotations

import math

import paddle
from paddle import nn
from paddle.regularizer import L2Decay

from paddle_resnet.config import TrainConfig


class WarmupCosine:
    """Learning-rate factor by step: linear warm-up to 1, then a cosine to 0 (Loshchilov and Hutter 2017, no restarts).

    Step t of the warm-up has the factor (t + 1) / warmup, so that the first step already moves.
    """

    def __init__(self, steps: int, warmup_steps: int) -> None:
        self.steps = steps
        self.warmup_steps = warmup_steps

    def __call__(self, step: int) -> float:
        """Return the factor for `step`, counted from 0."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def make_optimizer(network: nn.Layer, train: TrainConfig, steps_per_epoch: int) -> paddle.optimizer.Optimizer:
    """Make the optimizer: weight decay on weights alone, never on BatchNorm or biases (the vectors)."""
    steps = train.epochs * steps_per_epoch
    schedule = paddle.optimizer.lr.LambdaDecay(train.learning_rate, WarmupCosine(steps, round(train.warmup * steps)))
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
    # By regularizer and not by parameter groups: with groups, Paddle clips each group's norm apart.
    for vector in vectors:
        vector.regularizer = L2Decay(0.0)
    return paddle.optimizer.Momentum(
        schedule,
        momentum=train.momentum,
        parameters=parameters,
        use_nesterov=True,
        weight_decay=train.weight_decay,
        grad_clip=clip,
    )
