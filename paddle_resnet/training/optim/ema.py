"""The exponential moving average of a network's weights (Polyak and Juditsky 1992).

Its decay grows as in TensorFlow's ``ExponentialMovingAverage(num_updates=...)``.
"""

from __future__ import annotations

import numpy as np
import paddle
from paddle import nn
from paddle.callbacks import Callback

from paddle_resnet.training.callback_runner import Logs


class MovingAverage(Callback):
    """Averages the weights after each step, and replaces them by the average during validation.

    After step t, counted from 1, ``average = d * average + (1 - d) * weight`` with
    ``d = min(decay, (1 + t) / (10 + t))``, so that the random first weights fade soon. BatchNorm's running statistics
    are averaged in the same way.
    """

    state_name = "MovingAverage"

    def __init__(self, network: nn.Layer, decay: float) -> None:
        super().__init__()
        self._network = network
        self._decay = decay
        self.average = _copy(network)  # by name of the state dict
        self._trained: dict[str, paddle.Tensor] = {}
        self.steps = 0

    def update(self) -> None:
        self.steps += 1
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        with paddle.no_grad():
            for name, weight in self._network.state_dict().items():
                # Four times as fast as `lerp_` on a CPU.
                self.average[name].scale_(decay).add_(weight * (1 - decay))

    def state_dict(self) -> dict[str, int]:
        """Return the number of steps; a checkpoint has the averages in ``model.pdparams``."""
        return {"steps": self.steps}

    def set_state_dict(self, state: dict[str, int]) -> None:
        self.steps = state["steps"]

    def set_average(self, values: dict[str, np.ndarray]) -> None:
        for name, tensor in self.average.items():
            tensor.set_value(values[name])

    def trained(self) -> dict[str, paddle.Tensor]:
        """Return the weights of training, during validation too."""
        return self._trained or self._network.state_dict()

    def apply(self) -> None:
        """Load the average into the network; `restore` undoes it."""
        self._trained = _copy(self._network)
        _assign(self._network, self.average)

    def restore(self) -> None:
        _assign(self._network, self._trained)
        self._trained = {}

    def on_train_batch_end(self, step: int, logs: Logs | None = None) -> None:
        self.update()

    def on_eval_begin(self, logs: Logs | None = None) -> None:
        self.apply()

    def on_eval_end(self, logs: Logs | None = None) -> None:
        self.restore()


def _copy(network: nn.Layer) -> dict[str, paddle.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def _assign(network: nn.Layer, values: dict[str, paddle.Tensor]) -> None:
    for name, tensor in network.state_dict().items():
        tensor.set_value(values[name])
