#!/usr/bin/env python3
# ruff: noqa: E402, T201
"""Profile a training step with the oneDNN layers: primitives, layout changes, Python, optimizer, loader.

    python docs/experiments/step_profile.py resnet20@32x128 --precision bfloat16
    OMP_NUM_THREADS=1 python docs/experiments/step_profile.py fast_resnet8@32x512 --precision bfloat16 --muon

Trains as a run does on random images. With one thread it counts CPU time, which other programs change
little, and otherwise the time that passes. Each line is without the lines that are called within it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddle_resnet import runtime
from paddle_resnet.cli import parsing, program

runtime.import_paddle()

import paddle
from paddle.callbacks import Callback
from paddle.static import InputSpec

from paddle_resnet.benchmark import training_jobs
from paddle_resnet.benchmark.cases import TrainCase
from paddle_resnet.benchmark.train import training_operations
from paddle_resnet.config import Config
from paddle_resnet.data import TrainLoader
from paddle_resnet.errors import UsageError
from paddle_resnet.models import create_model
from paddle_resnet.onednn import accelerate, convolution, library, primitives
from paddle_resnet.onednn.bindings import Argument, DataType
from paddle_resnet.system import threads
from paddle_resnet.training.metrics import TrainMetrics
from paddle_resnet.training.optim.ema import MovingAverage
from paddle_resnet.training.optim.loss import SmoothedCrossEntropy
from paddle_resnet.training.optim.optimizer import make_optimizer
from paddle_resnet.training.train_step import TrainStepModel

PRODUCT_SIZE, PRODUCTS = 2048, 5
MUON = {"optimizer": "muon", "learning_rate": 0.12, "momentum": 0.6, "label_smoothing": 0.2, "ema": 0.98}
NAMES = {
    "channels_last_copy": "images to channels last",
    "convolution_forward": "convolution, forward",
    "convolution_backward_data": "convolution, gradient of the images",
    "convolution_backward_weights": "convolution, gradient of the weights",
    "normalization_forward": "BatchNorm (and ReLU), forward",
    "normalization_backward": "BatchNorm (and ReLU), backward",
    "pooling_forward": "pooling",
    "pooling_backward": "pooling",
}
"""Lines of the table by the function that builds a primitive; all others are of a block's ends."""


class Stopwatch:
    """Times functions; each one's seconds are without those of timed functions that it calls."""

    def __init__(self) -> None:
        self.clock = time.thread_time if threads.count() == 1 else time.perf_counter
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._inner: list[float] = []

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self._inner.append(0.0)
            started = self.clock()
            try:
                return function(*arguments, **options)
            finally:
                taken = self.clock() - started
                self.seconds[name] += taken - self._inner.pop()
                self.calls[name] += 1
                if self._inner:
                    self._inner[-1] += taken

        return call

    def time_primitives(self) -> None:
        """Time the execution of every primitive that is built from now on."""
        build = primitives._build_in_own_thread

        def build_timed(function: Callable[..., Any], *arguments: Any) -> Any:
            built = build(function, *arguments)
            name = NAMES.get(function.__name__, "block's ends: sums, ReLU, shortcuts")
            inner = [built]
            if isinstance(built, convolution.ReorderedPrimitive):
                copies = [each for each, numbers in built._steps if len(numbers) == 2]
                inner = [each for each, _ in built._steps if each not in copies]
                for copy in copies:
                    copy.execute = self.timed("layout changes and casts around convolutions", copy.execute)
            for primitive in inner:
                primitive.execute = self.timed(name, primitive.execute)
            return built

        primitives._build_in_own_thread = build_timed


class Window(Callback):
    """Notes the clock after the steps of warm-up, and after the last step."""

    def __init__(self, stopwatch: Stopwatch, warm_up: int) -> None:
        super().__init__()
        self._stopwatch, self._warm_up = stopwatch, warm_up
        self.begin = self.end = 0.0

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        self.end = self._stopwatch.clock()
        if step + 1 == self._warm_up:
            self._stopwatch.seconds.clear()
            self._stopwatch.calls.clear()
            self.begin = self.end


def main() -> None:
    """Profile one case; print a table."""
    parser = parsing.command_parser(__doc__)
    parser.add_argument("case", type=TrainCase.parse, help="NETWORK@SIZExBATCH")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--muon", action="store_true", help="Muon and a moving average, as configs/cifar10_10min.yaml")
    parser.add_argument("--steps", type=int, default=10, metavar="N")
    parser.add_argument("--warm-up", type=int, default=4, metavar="N")
    program.run(parser, _profile)


def _profile(arguments: argparse.Namespace) -> None:
    case, steps = arguments.case, arguments.steps
    if min(steps, arguments.warm_up) < 1:
        raise UsageError("--steps and --warm-up: expected at least 1")
    stopwatch = Stopwatch()
    stopwatch.time_primitives()
    window = Window(stopwatch, arguments.warm_up)
    _train(case, arguments, stopwatch, window)
    seconds = (window.end - window.begin) / steps
    rate = _product_rate(stopwatch, DataType.BFLOAT16 if arguments.precision == "bfloat16" else DataType.FLOAT32)
    share = training_operations(case.network, case.size) * case.batch / seconds / rate
    kind = "CPU time" if stopwatch.clock is time.thread_time else "time"
    print(f"{case}, {arguments.precision}, {threads.count()} threads, oneDNN {library.description()}")
    print(f"{1000 * seconds:.1f} ms a step ({kind}), {share:.0%} of the product rate, {rate / 1e9:.0f} GFLOP/s")
    stopwatch.seconds["everything else"] = seconds * steps - stopwatch.seconds.total()
    for name, taken in stopwatch.seconds.most_common():
        calls = stopwatch.calls[name] / steps
        print(f"{name:<50}{1000 * taken / steps:9.2f} ms {taken / steps / seconds:6.1%} {calls:7.1f} calls")


def _train(case: TrainCase, arguments: argparse.Namespace, stopwatch: Stopwatch, window: Window) -> None:
    groups, timed = case.config, stopwatch.timed
    recipe = MUON if arguments.muon else {}
    config = Config.model_validate({**groups, "train": {**groups["train"], **recipe}})
    device = runtime.select_device("cpu")
    runtime.seed_everything(0)
    loader = training_jobs.random_loader(case, config, arguments.warm_up + arguments.steps)
    network = create_model(case.network)
    accelerate(network, "onednn", device, arguments.precision)
    optimizer, metrics = make_optimizer(network, config.train, len(loader)), TrainMetrics()
    loss = SmoothedCrossEntropy(config.train.label_smoothing)
    callbacks: list[Callback] = []
    if config.train.ema is not None:
        average = MovingAverage(network, config.train.ema)
        average.update = timed("moving average", average.update)
        callbacks.append(average)
    network.forward = timed("Python and Paddle's operators, forward", network.forward)
    loss.forward = timed("loss", loss.forward)
    paddle.Tensor.backward = timed("Python and autograd, backward", paddle.Tensor.backward)
    optimizer.minimize = timed("optimizer", optimizer.minimize)
    metrics.compute, metrics.update = timed("metrics", metrics.compute), timed("metrics", metrics.update)
    images, labels = InputSpec([None, 3, None, None], "float32", "i"), InputSpec([None, 1], "int64", "l")
    model = TrainStepModel(network, images, labels, micro_batch=case.batch)
    model.prepare(optimizer, loss, metrics)
    model.fit(TimedLoader(loader, stopwatch), epochs=1, verbose=0, callbacks=[*callbacks, window])


class TimedLoader:
    """A loader whose batches are timed as they are waited for."""

    def __init__(self, loader: TrainLoader, stopwatch: Stopwatch) -> None:
        self._loader, self._stopwatch = loader, stopwatch

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._stopwatch.timed("waiting for a batch", iter(self._loader).__next__), None)


def _product_rate(stopwatch: Stopwatch, data_type: DataType) -> float:
    """Return FLOP/s of the fastest of several square products by oneDNN."""
    context = primitives.thread_context()
    layout = primitives.contiguous(PRODUCT_SIZE, PRODUCT_SIZE, data_type=data_type)
    create = library.load().dnnl_matmul_primitive_desc_create
    ends = context.engine, layout, layout, None, layout, context.attributes
    description = primitives.Handle("primitive_desc", create, *ends)
    roles = Argument.SOURCE, Argument.WEIGHTS, Argument.DESTINATION
    multiply = primitives.Primitive(context, description, [(role, layout) for role in roles])
    matrices = [paddle.zeros([PRODUCT_SIZE, PRODUCT_SIZE]) for _ in roles]
    taken = []
    for _ in range(PRODUCTS):
        started = stopwatch.clock()
        multiply(*(matrix.data_ptr() for matrix in matrices))
        taken.append(stopwatch.clock() - started)
    return 2 * PRODUCT_SIZE**3 / min(taken)


if __name__ == "__main__":
    main()
