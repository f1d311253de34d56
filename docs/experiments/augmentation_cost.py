#!/usr/bin/env python3
# ruff: noqa: E402, T201
"""What a step of training costs with an augmentation and without: resnet20, batches of 128 at 32x32, on this CPU.

    OMP_NUM_THREADS=2 python docs/experiments/augmentation_cost.py trivial_augment=true

Steps with and without take turns of 15 in one process, on made-up pixels; the first turn of each is not counted. The
making of a batch, which a thread does beside the step, is timed apart: in time of one core, as other programs leave
that as it is.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from itertools import chain, islice, repeat
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from paddle_resnet import runtime
from paddle_resnet.cli import program

runtime.import_paddle()

import paddle

from paddle_resnet.config import Config
from paddle_resnet.data import MemorySplit, Normalize, TrainLoader
from paddle_resnet.data.augment.batch import Augment
from paddle_resnet.lessons.common.training_loop import apply_cpu_backend, train_batches
from paddle_resnet.models import create_model
from paddle_resnet.training.optim.optimizer import make_optimizer

BATCH, SIZE, STEPS = 128, 32, 15
PLAIN = ["augment.pad=4", "augment.flip=true"]


def main() -> None:
    """Time the turns and print both medians and their difference."""
    parser = program.command_parser(__doc__)
    parser.add_argument("augment", nargs="+", metavar="KEY=VALUE", help="of the config's augment group")
    parser.add_argument("--turns", type=int, default=9, metavar="N", help="that count, of each")
    program.run(parser, _measure)


def _measure(arguments: argparse.Namespace) -> None:
    paddle.set_device("cpu")
    print(f"paddle {paddle.__version__}; {runtime.prepare_process()}")
    plain = Config.from_values({}, PLAIN)
    changed = Config.from_values({}, [*PLAIN, *(f"augment.{each}" for each in arguments.augment)])
    network = create_model("resnet20", 10)
    apply_cpu_backend(network)
    optimizer = make_optimizer(network, plain.train, 1000)
    loaders = [_batches(config) for config in (plain, changed)]
    seconds: list[list[float]] = [[], []]
    for _ in range(1 + arguments.turns):
        for batches, measured in zip(loaders, seconds, strict=True):
            started = time.perf_counter()
            train_batches(network, optimizer, islice(batches, STEPS))
            measured.append((time.perf_counter() - started) / STEPS)
    without, with_it = ([1000 * value for value in measured[1:]] for measured in seconds)
    for name, config in (("without", plain), ("with", changed)):
        making = _making(config)
        print(
            f"ms to make a batch, {name:<8}{statistics.median(making):6.2f}   ({min(making):.2f} to {max(making):.2f})"
        )
    more = [100 * (one / other - 1) for one, other in zip(with_it, without, strict=True)]
    for name, values in (("ms a step, without", without), ("ms a step, with", with_it), ("% longer, by turn", more)):
        print(
            f"{name:<20}{statistics.median(values):7.1f}   ({min(values):.1f} to {max(values):.1f}, n = {len(values)})"
        )


def _batches(config: Config) -> Iterator[list[paddle.Tensor]]:
    """Batches of made-up pictures without end, prefetched as in a run."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40 * BATCH, SIZE, SIZE, 3), dtype=np.uint8)
    split = MemorySplit(images, generator.integers(0, 10, len(images)), "made up")
    normalize = Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    loader = TrainLoader(split, BATCH, SIZE, SIZE, normalize, config.augment, seed=0)
    return chain.from_iterable(repeat(loader))


def _making(config: Config) -> list[float]:
    """Milliseconds of one core for each of some batches, pixels to pixels."""
    generator = np.random.default_rng(0)
    augment = Augment(config.augment, SIZE, SIZE)
    pixels = generator.integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8)
    times = []
    for _ in range(60):
        changes = augment.draw(pixels.shape, generator)
        started = time.thread_time()
        augment.apply_on_host(pixels, changes)
        times.append(1000 * (time.thread_time() - started))
    return times[10:]


if __name__ == "__main__":
    main()
