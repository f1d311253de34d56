"""The optimizer of a run."""

from __future__ import annotations

import paddle
from paddle import nn
from paddle.incubate.optimizer import LarsMomentumOptimizer
from paddle.regularizer import L2Decay

from paddle_resnet.config import TrainConfig
from paddle_resnet.training.callbacks.fine_tuning import decay_layer_rates
from paddle_resnet.training.optim.muon import Muon
from paddle_resnet.training.optim.schedule import make_schedule

LARS_COEFFICIENT = 0.001
"""The trust coefficient of You et al. 2017 (arXiv:1708.03888)."""

ALMOST_NOTHING = 1e-30
"""Weight decay 0 for Paddle's LARS, which takes 0 itself as "no trust ratio here"."""


def make_optimizer(network: nn.Layer, train: TrainConfig, steps_per_epoch: int) -> paddle.optimizer.Optimizer:
    """Make the optimizer: weight decay on weights alone, never on BatchNorm or biases (the vectors)."""
    schedule = make_schedule(train, train.epochs * steps_per_epoch)
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
        # Without weight decay, vectors have no trust ratio either: they take steps of SGD with momentum.
        return LarsMomentumOptimizer(
            schedule,
            train.momentum,
            lars_coeff=LARS_COEFFICIENT,
            lars_weight_decay=max(train.weight_decay, ALMOST_NOTHING),
            parameter_list=parameters,
            exclude_from_weight_decay=[vector.name for vector in vectors],
            grad_clip=clip,
        )
    # By regularizer and not by parameter groups: with groups, Paddle clips each group's norm apart.
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
