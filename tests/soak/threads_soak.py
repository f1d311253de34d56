"""Training and prediction with `threads: auto` while other programs come and go. Not part of the suite.

Endless loops occupy none, one or all of the cores, in phases whose lengths and loads are drawn from a seed. First each
fixed number of threads is measured beside each load, a few seconds by turns. Then `auto` runs through the phases, half
of the time a training of resnet8 on small pictures, half of the time a predictor. Ends with status 1 if `auto` is
slower in a phase than half of the best fixed number beside the same load. Run nothing else meanwhile.

    python tests/soak/threads_soak.py output/quickstart
    python tests/soak/threads_soak.py output/quickstart --minutes 3 --backend paddle --batch 1
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from tiny_run import SIZE, make_pictures

from paddle_resnet.benchmark.runner import busy_programs
from paddle_resnet.system import threads
from paddle_resnet.system.machine import physical_cores

LEAST_SHARE = 0.5
TURN_SECONDS = 4.0
"""Of the measurement of a fixed number beside a load."""
PHASES = 6
"""At least so many in each half, if they last no shorter than `SHORTEST_PHASE`."""
SHORTEST_PHASE = 30.0
"""Seconds. A training looks at the load between epochs, and an epoch may last 10 s while the threads wait."""
PICTURES = {"train": 200, "test": 4}
"""Of each of the three classes."""


def number_of(text: str) -> int | None:
    """Return a number of threads; None for auto."""
    return None if text == "auto" else int(text)


def train_for_ever(options: argparse.Namespace) -> None:
    """Train; print a line for each step: the number of images and of threads."""
    from paddle_resnet import runtime

    runtime.import_paddle()
    from paddle.callbacks import Callback

    from paddle_resnet.config import Config
    from paddle_resnet.training import train, trainer

    class Progress(Callback):
        def on_train_batch_end(self, step: int, logs: dict[str, object] | None = None) -> None:
            print(config.train.batch_size, threads.count(), flush=True)

    make_callbacks = trainer.thread_callbacks
    trainer.thread_callbacks = lambda *arguments: [*make_callbacks(*arguments), Progress()]
    data = {"source": "image_folder", "root": options.pictures, "image_size": SIZE}
    schedule = {"epochs": 100_000, "batch_size": 64, "threads": number_of(options.threads) or "auto"}
    config = Config.model_validate(
        {"output": options.output, "device": "cpu", "data": data, "model": {"name": "resnet8"}, "train": schedule}
    )
    train(config)


def predict_for_ever(options: argparse.Namespace) -> None:
    """Score random pixels; print a line for each batch: the number of images and of threads."""
    import numpy as np

    from paddle_resnet import runtime

    runtime.import_paddle()
    from paddle_resnet.inference import Predictor

    number = number_of(options.threads)
    predictor = Predictor(options.model, "cpu", threads=number, backend=options.backend)
    size = predictor.config.input.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (options.batch, size, size, 3), dtype=np.uint8)
    while True:
        predictor.scores(pixels)
        print(options.batch, number or getattr(predictor._model, "_loaded", [1])[0], flush=True)


class Worker:
    """A process that trains or predicts until the end of the block; counts its images."""

    def __init__(self, options: argparse.Namespace, kind: str, number: int | str) -> None:
        arguments = [options.model, "--work", kind, "--threads", number, "--batch", options.batch]
        arguments += ["--pictures", options.pictures, "--output", Path(options.output, f"{number}")]
        arguments += ["--backend", options.backend] if options.backend else []
        command = [sys.executable, __file__, *map(str, arguments)]
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        self.images = 0
        self.chosen: list[int] = []
        """Numbers of threads, without repetitions."""
        self._begun = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            words = line.split()
            if len(words) == 2 and all(map(str.isdecimal, words)):
                self.images += int(words[0])
                if self.chosen[-1:] != [int(words[1])]:
                    self.chosen.append(int(words[1]))
                self._begun.set()
        self._begun.set()

    def wait(self) -> None:
        """Wait for its first images."""
        self._begun.wait()
        if not self.images:
            raise RuntimeError("the worker ended; see its message above")

    def rate(self, seconds: float) -> float:
        """Return the images/s of the next seconds."""
        before, began = self.images, time.monotonic()
        self.chosen = self.chosen[-1:]
        time.sleep(seconds)
        return (self.images - before) / (time.monotonic() - began)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()


def measure_fixed(options: argparse.Namespace, kind: str, loads: list[int]) -> dict[int, dict[int, float]]:
    """Return images/s by load and by number of threads; all but one worker are stopped at a time."""
    rates: dict[int, dict[int, float]] = {load: {} for load in loads}
    with contextlib.ExitStack() as opened:
        numbers = threads.candidates(physical_cores())
        workers = {number: opened.enter_context(Worker(options, kind, number)) for number in numbers}
        for worker in workers.values():
            worker.wait()
            worker.process.send_signal(signal.SIGSTOP)
        for load in loads:
            with busy_programs(load):
                for number, worker in workers.items():
                    worker.process.send_signal(signal.SIGCONT)
                    rates[load][number] = worker.rate(TURN_SECONDS)
                    worker.process.send_signal(signal.SIGSTOP)
            shown = ", ".join(f"{number}: {rate:,.0f}" for number, rate in rates[load].items())
            print(f"{kind} beside {load} loops, images/s by threads: {shown}", flush=True)
    return rates


def run_phases(
    options: argparse.Namespace, kind: str, fixed: dict[int, dict[int, float]], seconds: float, draw: random.Random
) -> bool:
    """Run `auto` through phases; return whether it was fast enough in all of them."""
    longest = max(SHORTEST_PHASE, seconds / PHASES)
    load, passed = -1, True
    with Worker(options, kind, "auto") as worker:
        worker.wait()
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > SHORTEST_PHASE / 2:
            load = draw.choice([each for each in fixed if each != load])
            length = left if left < 2 * SHORTEST_PHASE else draw.uniform(SHORTEST_PHASE, longest)
            with busy_programs(load):
                rate = worker.rate(length)
            best = max(fixed[load].values())
            passed &= rate >= LEAST_SHARE * best
            print(
                f"{kind} beside {load} loops for {length:.0f} s: {rate:,.0f} images/s, {rate / best:.2f} of the best "
                f"fixed number; threads {' '.join(map(str, worker.chosen))}"
                f"{'' if rate >= LEAST_SHARE * best else ', TOO SLOW'}",
                flush=True,
            )
    return passed


def main() -> int:
    """Measure, and run the phases; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL_DIR", help="an exported model, or the run's folder that holds one")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", help="of the predictor")
    parser.add_argument("--batch", type=int, default=8, help="images of a prediction")
    work: dict[str, Callable[[argparse.Namespace], None]] = {"train": train_for_ever, "predict": predict_for_ever}
    parser.add_argument("--work", choices=work, help=argparse.SUPPRESS)
    parser.add_argument("--threads", default="auto", help=argparse.SUPPRESS)
    parser.add_argument("--output", help=argparse.SUPPRESS)
    parser.add_argument("--pictures", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work[options.work](options)
        return 0
    ends = time.monotonic() + 60 * options.minutes
    loads, draw, passed = sorted({0, 1, physical_cores()}), random.Random(options.seed), True
    with tempfile.TemporaryDirectory() as options.output:
        options.pictures = make_pictures(Path(options.output, "pictures"), PICTURES)
        fixed = {kind: measure_fixed(options, kind, loads) for kind in work}
        seconds = max(SHORTEST_PHASE, (ends - time.monotonic()) / len(work))
        for kind in work:
            passed &= run_phases(options, kind, fixed[kind], seconds, draw)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
