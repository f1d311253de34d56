"""What pretrained weights need: slower learning further from the head, and a head that learns first.

Howard and Ruder 2018 (arXiv:1801.06146): discriminative learning rates and gradual unfreezing.
"""

from __future__ import annotations

from typing import Any

import paddle
from paddle import nn
from paddle.callbacks import Callback

from paddle_resnet.errors import UsageError
from paddle_resnet.models import ImageClassifier
from paddle_resnet.paddle_compat import create_optimizer_state, parameters_of


def decay_layer_rates(network: nn.Layer, decay: float) -> None:
    """Let each part of the network learn at `decay` times the rate of the part behind it; the head at the full rate.

    By each parameter's own factor, which every optimizer of Paddle applies, and not by parameter groups: with groups,
    Paddle clips each group's norm apart.

    Raises:
        UsageError: the network is not made of parts.
    """
    if not isinstance(network, ImageClassifier):
        raise UsageError(f"train.layer_decay ({decay:g}): {type(network).__name__} has no parts, stem to head")
    for distance, group in enumerate(reversed(network.layer_groups())):
        for parameter in group:
            parameter.optimize_attr = {**parameter.optimize_attr, "learning_rate": decay**distance}


class FrozenBody(Callback):
    """Trains the head alone for the first epochs, everything afterwards.

    What is frozen takes no gradient, so the optimizer passes it over: no decay, no momentum, no share in the clipped
    norm. It stays in eval mode, BatchNorm's running statistics too.
    """

    def __init__(self, network: ImageClassifier, epochs: int, optimizer: paddle.optimizer.Optimizer) -> None:
        """Freeze the network, whose optimizer was made while all of it learned, for so many epochs."""
        super().__init__()
        self._network = network
        self._epochs = epochs
        self._optimizer = optimizer

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Let the optimizer's state be that of all parameters from the first checkpoint on."""
        create_optimizer_state(self._optimizer, parameters_of(self._optimizer))

    def on_epoch_begin(self, epoch: int | None = None, logs: dict[str, Any] | None = None) -> None:
        """Freeze or unfreeze as `epoch`, counted from 0, asks for."""
        self._network.freeze(self._network.stage_names[-1] if (epoch or 0) < self._epochs else None)
