"""The learning rates of a network whose parts do not all learn alike."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import paddle
from paddle.callbacks import Callback

from paddle_resnet import paddle_compat
from paddle_resnet.config import TrainConfig
from paddle_resnet.models import ImageClassifier
from paddle_resnet.tracking.training_log import VisualDLLog


def parts_of_a_rate(network: ImageClassifier, train: TrainConfig) -> dict[str, list[paddle.Tensor]]:
    """The parameters by the part that learns at one rate: ``"stem"``, ``"layer1 to layer3"``, ``"head"``.

    The optimizer has been made: it is what gives parameters their own factor of the rate.
    """

    def rate(named: tuple[str, list[paddle.Tensor]]) -> tuple[float, bool]:
        name, parameters = named
        return parameters[0].optimize_attr["learning_rate"], name == "head" and train.freeze_epochs > 0

    parts = {}
    for _, neighbours in groupby(network.named_layer_groups().items(), rate):
        names, groups = zip(*neighbours, strict=True)
        name = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        parts[name] = [parameter for group in groups for parameter in group]
    return parts


class PartRates(Callback):
    """Logs at each step what each part learns at: the schedule's rate times the part's factor, 0 while it is frozen."""

    def __init__(self, parts: dict[str, list[paddle.Tensor]], visual_dl: VisualDLLog) -> None:
        """Take what `parts_of_a_rate` returns."""
        super().__init__()
        self._parts = parts
        self._visual_dl = visual_dl
        self._steps_before = 0
        self._rates: dict[str, float] = {}

    def on_epoch_begin(self, epoch: int | None = None, logs: dict[str, Any] | None = None) -> None:
        """Count the steps of the epochs before."""
        self._steps_before = (epoch or 0) * self.params["steps"]

    def on_train_batch_begin(self, step: int, logs: dict[str, Any] | None = None) -> None:
        """Note the step's rates, which the schedule changes at the step's end."""
        rate = float(paddle_compat.optimizer_of(self.model).get_lr())
        self._rates = {name: rate * _factor(parameters) for name, parameters in self._parts.items()}

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        """Log them."""
        self._visual_dl.rates(self._steps_before + step, self._rates)


def _factor(parameters: list[paddle.Tensor]) -> float:
    learns = any(not parameter.stop_gradient for parameter in parameters)
    return parameters[0].optimize_attr["learning_rate"] if learns else 0.0
