"""Jobs in Paddle: training through `paddle.Model.fit`, and its loader alone."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.callbacks import Callback

from paddle_resnet import runtime
from paddle_resnet.benchmark.cases import PADDLE, TrainCase
from paddle_resnet.benchmark.timing import PRODUCT_SIZE, peak_megabytes, product_rate, step_speed
from paddle_resnet.config import AugmentConfig, Config
from paddle_resnet.data import MemorySplit, Normalize, Split, TrainLoader
from paddle_resnet.data.datasets.file_split import FileSplit, ImageFiles
from paddle_resnet.models import create_model
from paddle_resnet.onednn import accelerate
from paddle_resnet.system import threads
from paddle_resnet.training.callbacks.threads import thread_callbacks
from paddle_resnet.training.metrics import TrainMetrics
from paddle_resnet.training.optim.loss import SmoothedCrossEntropy
from paddle_resnet.training.optim.optimizer import make_optimizer

STORED_BATCHES = 4  # batches of different images in memory; they are repeated, augmented anew each time
NORMALIZE = Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


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


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Train through `paddle.Model.fit` with the real loader: keys `case`, `backend`, `steps`, `warm_up`, `threads`."""
    case = TrainCase.parse(job["case"])
    groups = case.config
    config = Config.model_validate({**groups, "train": {**groups["train"], **PADDLE[job["backend"]]}})
    device = runtime.select_device("cpu")
    runtime.seed_everything(0)
    loader = random_loader(case, config, job["warm_up"] + job["steps"])
    network = create_model(case.network)
    accelerate(network, config.train.cpu_backend, device, config.train.cpu_precision)
    model = paddle.Model(network)
    if job["threads"] is None:
        choice = thread_callbacks(config, network, device)
    else:
        choice = []
        threads.use(job["threads"])
    model.prepare(make_optimizer(network, config.train, len(loader)), SmoothedCrossEntropy(0.0), TrainMetrics())
    timer = StepTimer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(loader, epochs=1, verbose=0, callbacks=[timer, *choice])
    peak = peak_megabytes()
    matrix = paddle.rand([PRODUCT_SIZE, PRODUCT_SIZE])
    return {
        **step_speed(timer.begins, timer.ends, job["warm_up"], case.batch),
        "peak_megabytes": peak,
        "product_gflops": product_rate(lambda: paddle.matmul(matrix, matrix)),
    }


def random_loader(case: TrainCase, config: Config, steps: int) -> TrainLoader:
    """Make the loader of a run, with an epoch of `steps` batches of random images in memory."""
    split = _random_split(case.batch, case.stored_size, steps)
    return TrainLoader(split, case.batch, case.size, case.stored_size, NORMALIZE, config.augment, seed=0)


def _random_split(batch: int, side: int, steps: int) -> MemorySplit:
    """Make an epoch of `steps` batches of random images in memory, `side` pixels a side."""
    generator = np.random.default_rng(0)
    stored = STORED_BATCHES * batch
    images = generator.integers(0, 256, (stored, side, side, 3), dtype=np.uint8)
    return MemorySplit(images, generator.integers(0, 10, stored), "random", np.arange(steps * batch) % stored)


def load(job: dict[str, Any]) -> dict[str, Any]:
    """Load batches: keys of `data.LoaderCase.job`; return what `step_speed` does, and `times`, when each batch came."""
    runtime.select_device("cpu")
    runtime.keep_freed_memory()  # as in training
    batch, side, files = job["batch"], job["stored"], job["files"]
    split: Split
    if files:
        labels = np.arange(len(files)) % 10
        split = FileSplit(ImageFiles(Path(), files, labels, side, job["workers"], in_memory=False, examine=False))
    else:
        split = _random_split(batch, side, job["warm_up"] + job["steps"])
    augment = AugmentConfig.model_validate(job["augment"])
    loader = TrainLoader(split, batch, job["size"], side, NORMALIZE, augment, seed=0)
    times = [time.perf_counter() for _ in loader]
    return {**step_speed(times, times, job["warm_up"], batch), "times": times}
