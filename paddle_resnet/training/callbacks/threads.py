"""The number of threads of a training on the CPU, chosen by measurement between epochs."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import paddle
from paddle import nn
from paddle.callbacks import Callback

from paddle_resnet import distributed, runtime
from paddle_resnet.config import Config
from paddle_resnet.console import logger
from paddle_resnet.models import ImageClassifier
from paddle_resnet.system import threads
from paddle_resnet.training.callback_runner import Logs

LONGEST_STEP = 0.3  # seconds of a measured step; the batch is halved until it takes no longer
LEAST_IMAGES = 4


def thread_callbacks(config: Config, network: ImageClassifier, device: str) -> list[Callback]:
    """Return what chooses the number of threads; nothing where it is fixed by the config, the user or the launcher."""
    if device != "cpu" or config.train.threads != "auto" or distributed.world_size() > 1 or not threads.can_change():
        return []
    if runtime.prepare_process().threads.preset or len(threads.usable()) == 1:
        return []
    return [ThreadChoice(network, config.train.batch_size, config.data.image_size)]


class ThreadChoice(Callback):
    """Measures training steps of a copy of the network with several numbers of threads, and keeps the fastest.

    It measures before the first epoch if other programs are busy, and again between epochs, as the load of the machine
    may have changed. A number of threads changes the order of sums, so the same sequence of numbers is needed to repeat
    a run bit for bit. A resumed epoch keeps its number.
    """

    state_name = "ThreadChoice"
    state_is_optional = True

    def __init__(self, network: ImageClassifier, images: int, image_size: int) -> None:
        """Take the network, and the images of a step and their size in pixels."""
        super().__init__()
        self._network = network
        self._images = images
        self._image_size = image_size
        self._chooser = threads.ThreadChooser(threads.usable())

    def state_dict(self) -> dict[str, Any]:
        return {"threads": threads.count()}

    def set_state_dict(self, state: dict[str, Any]) -> None:
        self._use(self._chooser.take(state["threads"]))

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._use(self._chooser.choose(time.monotonic(), self._measure))

    def _use(self, change: str) -> None:
        if change:
            logger.info("%s", change)
        threads.use(self._chooser.number)

    def _measure(self, first: int) -> tuple[int, dict[int, float]]:
        step = self._step()
        numbers = [first, *threads.usable()]
        return threads.fastest({number: threads.with_count(number, step) for number in numbers})

    def _step(self) -> Callable[[], None]:
        """Return a function that trains a copy of the network for one step, without its optimizer."""
        with paddle.utils.unique_name.guard():
            network = copy.deepcopy(self._network)
        network.train()
        loss = nn.CrossEntropyLoss()
        images = self._images
        while True:
            batch = paddle.zeros([images, 3, self._image_size, self._image_size])
            labels = paddle.zeros([images, 1], "int64")

            def step(batch: paddle.Tensor = batch, labels: paddle.Tensor = labels) -> None:
                loss(network(batch), labels).backward()
                network.clear_gradients()

            step()
            started = time.monotonic()
            step()
            if time.monotonic() - started <= LONGEST_STEP or images <= LEAST_IMAGES:
                return step
            images //= 2
