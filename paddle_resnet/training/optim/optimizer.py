"""The optimizer of a run."""

from __future__ import annotations

import paddle
from paddle import nn
from paddle.incubate.optimizer import LarsMomentumOptimizer
from paddle.regularizer import L2Decay

from paddle_resnet.config import TrainConfig
from paddle_resnet.errors import UsageError
from paddle_resnet.models import ImageClassifier
from paddle_resnet.training.optim.muon import Muon
from paddle_resnet.training.optim.schedule import make_schedule

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
