"""A job: train through `paddle.Model.fit` with the real loader, and time each step."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import paddle
from paddle.callbacks import Callback

from paddle_resnet import runtime
from paddle_resnet.benchmark.backends import PADDLE
from paddle_resnet.benchmark.timing import PRODUCT_SIZE, peak_megabytes, product_rate, step_speed
from paddle_resnet.benchmark.train.cases import TrainCase
from paddle_resnet.config import Config
from paddle_resnet.data import MemorySplit, Normalize, TrainLoader
from paddle_resnet.models import create_model
from paddle_resnet.training.cpu_backend import use_cpu_backend
from paddle_resnet.training.metrics import TrainMetrics
from paddle_resnet.training.optim.loss import SmoothedCrossEntropy
from paddle_resnet.training.optim.optimizer import make_optimizer

STORED_BATCHES = 4
"""Batches of different images in memory; they are repeated, augmented anew each time."""


class StepTimer(Callback):
    """Records when each training step begins, after its batch is loaded, and when it ends, after its loss is read."""

    def __init__(self) -> None:
        super().__init__()
        self.begins: list[float] = []
        self.ends: list[float] = []

    def on_train_batch_begin(self, step: int, logs: dict[str, Any] | None = None) -> None:
        self.begins.append(time.perf_counter())

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        self.ends.append(time.perf_counter())


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Train a case: keys `case`, `backend`, `steps`, `warm_up`."""
    case = TrainCase.parse(job["case"])
    groups = case.config
    config = Config.model_validate({**groups, "train": {**groups["train"], **PADDLE[job["backend"]]}})
    device = runtime.select_device("cpu")
    runtime.seed_everything(0)
    loader = _random_loader(case, config, job["warm_up"] + job["steps"])
    network = create_model(case.network)
    use_cpu_backend(network, config.train.cpu_backend, device, config.train.cpu_precision)
    model = paddle.Model(network)
    model.prepare(make_optimizer(network, config.train, len(loader)), SmoothedCrossEntropy(0.0), TrainMetrics())
    timer = StepTimer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(loader, epochs=1, verbose=0, callbacks=[timer])
    peak = peak_megabytes()
    matrix = paddle.rand([PRODUCT_SIZE, PRODUCT_SIZE])
    return {
        **step_speed(timer.begins, timer.ends, job["warm_up"], case.batch),
        "peak_megabytes": peak,
        "product_gflops": product_rate(lambda: paddle.matmul(matrix, matrix)),
    }


def _random_loader(case: TrainCase, config: Config, steps: int) -> TrainLoader:
    """Make a run's loader with an epoch of `steps` batches of random images in memory."""
    generator = np.random.default_rng(0)
    stored, side = STORED_BATCHES * case.batch, case.stored_size
    images = generator.integers(0, 256, (stored, side, side, 3), dtype=np.uint8)
    split = MemorySplit(images, generator.integers(0, 10, stored), "random", np.arange(steps * case.batch) % stored)
    return TrainLoader(
        split,
        batch_size=case.batch,
        image_size=case.size,
        resize=side,
        normalize=Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        augment=config.augment,
        seed=0,
    )
