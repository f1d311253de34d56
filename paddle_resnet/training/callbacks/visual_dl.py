"""The callbacks that fill a run's `VisualDLLog`. Only the main process has them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

import paddle
from paddle import nn
from paddle.callbacks import Callback

from paddle_resnet.config import Config, TrainConfig
from paddle_resnet.models import ImageClassifier
from paddle_resnet.paddle_compat import optimizer_of
from paddle_resnet.tracking.training_log import VisualDLLog
from paddle_resnet.training.callbacks.recorder import Recorder


def visual_dl_callbacks(
    log: VisualDLLog, config: Config, network: ImageClassifier, recorder: Recorder
) -> list[Callback]:
    """Make the callbacks that the config asks for, once the optimizer exists. They follow `recorder`."""
    callbacks: list[Callback] = [Curves(log, config, recorder, parameters_by_rate(network, config.train))]
    if config.train.histogram_steps is not None:
        callbacks.append(Histograms(log, network, config.train.histogram_steps, recorder))
    return callbacks


class Curves(Callback):
    """Logs each step and each epoch; of a network whose parts learn at several rates, their rates too."""

    def __init__(
        self, log: VisualDLLog, config: Config, recorder: Recorder, parts: dict[str, list[paddle.Tensor]]
    ) -> None:
        """Take the recorder of the run, and what `parameters_by_rate` returns."""
        super().__init__()
        self._log = log
        self._config = config
        self._recorder = recorder
        self._parts = parts

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        (loss,) = (logs or {})["loss"]
        number, rate = self._recorder.steps - 1, self._recorder.learning_rate
        self._log.step(number, loss, rate)
        if len(self._parts) > 1:
            self._log.rates(number, {name: rate * _rate_factor(part) for name, part in self._parts.items()})

    def on_eval_end(self, logs: dict[str, Any] | None = None) -> None:
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

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
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


def parameters_by_rate(network: ImageClassifier, train: TrainConfig) -> dict[str, list[paddle.Tensor]]:
    """Group the parameters by learning rate: neighbouring parts of one rate are ``"layer1 to layer3"``, say.

    `make_optimizer` has set each parameter's factor of the rate before.
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


def _rate_factor(parameters: list[paddle.Tensor]) -> float:
    """Return the parameters' factor of the learning rate; 0 while they are frozen."""
    trainable = any(not parameter.stop_gradient for parameter in parameters)
    return parameters[0].optimize_attr["learning_rate"] if trainable else 0.0
