#!/usr/bin/env python3
# ruff: noqa: E402, T201
"""Measure a training step with and without an augmentation: resnet20, batches of 128 at 32x32, on this CPU.

    OMP_NUM_THREADS=2 python docs/experiments/augmentation_cost.py trivial_augment=true

Turns of 15 steps with and without it alternate in one process, on random pixels; the first turn of each does not count.
A batch is made by a thread beside the step. That is measured alone, as CPU time, which other programs do not change.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice, repeat
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from paddle_resnet import runtime
from paddle_resnet.cli import parsing, program

runtime.import_paddle()

import paddle

from paddle_resnet.config import Config
from paddle_resnet.data import MemorySplit, Normalize, TrainLoader
from paddle_resnet.data.augment import host
from paddle_resnet.data.augment.batch import Augment
from paddle_resnet.lessons.common.training_loop import apply_cpu_backend, train_batches
from paddle_resnet.models import create_model
from paddle_resnet.timing import interleave, seconds
from paddle_resnet.training.optim.optimizer import make_optimizer

BATCH, SIZE, STEPS = 128, 32, 15
PLAIN = ["augment.pad=4", "augment.flip=true"]


def main() -> None:
    """Time the turns; print both medians and their difference."""
    parser = parsing.command_parser(__doc__)
    parser.add_argument("augment", nargs="+", metavar="KEY=VALUE", help="a key of the config's augment group")
    parser.add_argument("--turns", type=int, default=9, metavar="N", help="turns of each that count")
    program.run(parser, _measure)


def _measure(arguments: argparse.Namespace) -> None:
    paddle.set_device("cpu")
    print(f"paddle {paddle.__version__}; {runtime.prepare_process()}")
    plain = Config.from_values({}, PLAIN)
    changed = Config.from_values({}, [*PLAIN, *(f"augment.{each}" for each in arguments.augment)])
    network = create_model("resnet20", 10)
    apply_cpu_backend(network)
    optimizer = make_optimizer(network, plain.train, 1000)

    def milliseconds_a_step(config: Config) -> Callable[[], float]:
        batches = _batches(config)
        return lambda: 1000 * seconds(lambda: train_batches(network, optimizer, islice(batches, STEPS))) / STEPS

    turns = {"without": milliseconds_a_step(plain), "with": milliseconds_a_step(changed)}
    without, with_it = (taken[1:] for taken in interleave(turns, 1 + arguments.turns).values())
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
    """Yield batches of random images for ever, prefetched as in a run."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40 * BATCH, SIZE, SIZE, 3), dtype=np.uint8)
    split = MemorySplit(images, generator.integers(0, 10, len(images)), "random")
    normalize = Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    loader = TrainLoader(split, BATCH, SIZE, SIZE, normalize, config.augment, seed=0)
    return chain.from_iterable(repeat(loader))


def _making(config: Config) -> list[float]:
    """Return the CPU milliseconds of augmenting each of some batches."""
    generator = np.random.default_rng(0)
    augment = Augment(config.augment, SIZE, SIZE)
    pixels = generator.integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8)
    times = []
    for _ in range(60):
        changes = augment.draw(len(pixels), generator)
        started = time.thread_time()
        host.augment(pixels, changes)
        times.append(1000 * (time.thread_time() - started))
    return times[10:]


if __name__ == "__main__":
    main()
