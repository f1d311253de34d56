"""How weights and gradients are distributed, now and then, in VisualDL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paddle import nn
from paddle.callbacks import Callback

from paddle_resnet import paddle_compat
from paddle_resnet.tracking.training_log import VisualDLLog


class Histograms(Callback):
    """Logs each learned tensor's weights, and the gradients taken at them, at every so many steps of the run.

    The gradients are the step's: the mean over the whole batch, not scaled, before clipping. What is frozen is passed
    over.
    """

    def __init__(self, network: nn.Layer, every: int, visual_dl: VisualDLLog) -> None:
        """Log `network` at every `every`-th step."""
        super().__init__()
        self._network = network
        self._every = every
        self._visual_dl = visual_dl
        self._steps_before = self._step = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Stand before each step of the optimizer: when `paddle.Model` calls back, it has cleared the gradients.

        A single process takes it by `minimize`, several by `step`.
        """
        optimizer = paddle_compat.optimizer_of(self.model)
        optimizer.minimize = self._logging_before(optimizer.minimize)
        optimizer.step = self._logging_before(optimizer.step)

    def _logging_before(self, take_step: Callable[..., Any]) -> Callable[..., Any]:
        def log_and_take_step(*arguments: Any, **options: Any) -> Any:
            if (self._step + 1) % self._every == 0:
                self.log()
            return take_step(*arguments, **options)

        return log_and_take_step

    def on_epoch_begin(self, epoch: int | None = None, logs: dict[str, Any] | None = None) -> None:
        """Count the steps of the epochs before."""
        self._steps_before = (epoch or 0) * self.params["steps"]

    def on_train_batch_begin(self, step: int, logs: dict[str, Any] | None = None) -> None:
        """Note the step's number."""
        self._step = self._steps_before + step

    def log(self) -> None:
        """Log the weights and gradients as they are."""
        for name, parameter in self._network.named_parameters():
            if parameter.stop_gradient:
                continue
            self._visual_dl.histogram(f"weights/{name}", parameter.numpy(), self._step)
            if parameter.grad is not None:
                self._visual_dl.histogram(f"gradients/{name}", parameter.grad.numpy(), self._step)
