"""The callbacks that fill a run's `VisualDLLog`. Only the main process has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paddle import nn
from paddle.callbacks import Callback

from paddle_resnet.config import Config
from paddle_resnet.paddle_compat import optimizer_of
from paddle_resnet.tracking.training_log import VisualDLLog
from paddle_resnet.training.callback_runner import Logs
from paddle_resnet.training.callbacks.recorder import Recorder


def visual_dl_callbacks(log: VisualDLLog, config: Config, network: nn.Layer, recorder: Recorder) -> list[Callback]:
    """Make the callbacks that the config asks for. They follow `recorder`."""
    callbacks: list[Callback] = [Curves(log, config, recorder)]
    if config.train.histogram_steps is not None:
        callbacks.append(Histograms(log, network, config.train.histogram_steps, recorder))
    return callbacks


class Curves(Callback):
    """Logs each step and each epoch, from the recorder of the run."""

    def __init__(self, log: VisualDLLog, config: Config, recorder: Recorder) -> None:
        super().__init__()
        self._log = log
        self._config = config
        self._recorder = recorder

    def on_train_batch_end(self, step: int, logs: Logs) -> None:
        (loss,) = logs["loss"]
        self._log.step(self._recorder.steps - 1, loss, self._recorder.learning_rate)

    def on_eval_end(self, logs: Logs | None = None) -> None:
        record = self._recorder.records[-1]
        self._log.epoch(record)
        if record.epoch == 1:
            self._log.hyper_parameters(self._config)
        self._log.best(record.epoch, self._recorder.best)


class Histograms(Callback):
    """Logs each trainable tensor's weights and gradients at every `every`-th step of the run.

    The gradients are those of the whole batch at these weights, not scaled and before clipping.
    """

    def __init__(self, log: VisualDLLog, network: nn.Layer, every: int, recorder: Recorder) -> None:
        super().__init__()
        self._log = log
        self._network = network
        self._every = every
        self._recorder = recorder

    def on_train_begin(self, logs: Logs | None = None) -> None:
        # `paddle.Model` has cleared the gradients when it calls `on_train_batch_end`, so the optimizer is wrapped. It
        # takes a step by `minimize` in a single process, by `step` in several.
        optimizer = optimizer_of(self.model)
        optimizer.minimize = self._logging_before(optimizer.minimize)
        optimizer.step = self._logging_before(optimizer.step)

    def _logging_before(self, take_step: Callable[..., Any]) -> Callable[..., Any]:
        def log_and_take_step(*arguments: Any, **options: Any) -> Any:
            if (self._recorder.steps + 1) % self._every == 0:
                log_histograms(self._log, self._network, self._recorder.steps)
            return take_step(*arguments, **options)

        return log_and_take_step


def log_histograms(log: VisualDLLog, network: nn.Layer, step: int) -> None:
    """Log the weights and gradients of the trainable parameters as they are now."""
    for name, parameter in network.named_parameters():
        if not parameter.stop_gradient:
            log.histogram(f"weights/{name}", parameter.numpy(), step)
            if parameter.grad is not None:
                log.histogram(f"gradients/{name}", parameter.grad.numpy(), step)
