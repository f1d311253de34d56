"""The exponential moving average of a network's weights, which generalises better than the last step's weights.

Polyak and Juditsky 1992; with the growing decay of TensorFlow's ``ExponentialMovingAverage(num_updates=...)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.callbacks import Callback


class MovingAverage(Callback):
    """Averages the weights after each step, and takes their place while the network is validated.

    After step t, counted from 1, ``average = d * average + (1 - d) * weight`` with
    ``d = min(decay, (1 + t) / (10 + t))``, so that the random first weights are soon forgotten. BatchNorm's running
    statistics are averaged in the same way.
    """

    state_name = "MovingAverage"

    def __init__(self, network: nn.Layer, decay: float) -> None:
        super().__init__()
        self._network = network
        self._decay = decay
        self.average = _copy(network)
        """The averages by name."""
        self._set_apart: dict[str, paddle.Tensor] = {}
        self.steps = 0
        """Steps averaged so far."""

    def update(self) -> None:
        """Count the network's weights in."""
        self.steps += 1
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        with paddle.no_grad():
            for name, weight in self._network.state_dict().items():
                # Four times as fast as `lerp_` on the CPU.
                self.average[name].scale_(decay).add_(weight * (1 - decay))

    def state_dict(self) -> dict[str, int]:
        """The number of steps; the averages themselves are in ``model.pdparams``."""
        return {"steps": self.steps}

    def set_state_dict(self, state: dict[str, int]) -> None:
        """Go on from so many steps."""
        self.steps = state["steps"]

    def set_average(self, values: dict[str, np.ndarray]) -> None:
        """Go on from these averages."""
        for name, tensor in self.average.items():
            tensor.set_value(values[name])

    def trained(self) -> dict[str, paddle.Tensor]:
        """The weights as training left them, also while the average has their place."""
        return self._set_apart or self._network.state_dict()

    def put_in(self) -> None:
        """Give the network the average; `take_out` undoes it."""
        self._set_apart = _copy(self._network)
        _assign(self._network, self.average)

    def take_out(self) -> None:
        """Give the network back the weights that training left."""
        _assign(self._network, self._set_apart)
        self._set_apart = {}

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        """Count the step in."""
        self.update()

    def on_eval_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Validate the average."""
        self.put_in()

    def on_eval_end(self, logs: dict[str, Any] | None = None) -> None:
        """Go on training; callbacks that stand before this one still see the average."""
        self.take_out()


def _copy(network: nn.Layer) -> dict[str, paddle.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def _assign(network: nn.Layer, values: dict[str, paddle.Tensor]) -> None:
    for name, tensor in network.state_dict().items():
        tensor.set_value(values[name])
