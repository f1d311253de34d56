"""Whether threads that share one predictor get right answers, and whether it holds on to memory: not part of the suite.

For each backend and precision that a model offers here, 8 threads ask one predictor for a minute, with batches of
different sizes; every answer is compared with the one a single thread got before. Ends with status 1 if one differs by
more than float32's rounding, or if the resident memory grew by more than 5% in the second half: in the first, the
libraries make what each thread needs for each size of batch.

    python tests/soak/predictor_soak.py output/quickstart
    python tests/soak/predictor_soak.py output/quickstart --seconds 10 --threads 4
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

import paddle_resnet  # noqa: F401, I001  (prepares the process before paddle is imported)
import numpy as np

from paddle_resnet.inference import Predictor
from paddle_resnet.inference.inference_config import InferenceConfig
from paddle_resnet.errors import UsageError

BATCHES = 24
LARGEST_BATCH = 8
TOLERANCE = 1e-6
TOLERATED_GROWTH = 0.05


def resident_megabytes() -> float:
    """What this process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def ask(predictor: Predictor, threads: int, seconds: float) -> tuple[int, int, float]:
    """Ask from many threads; return the number of answers, of wrong ones, and the growth of memory."""
    side = predictor.config.input.image_size
    generator = np.random.default_rng(0)
    batches = [
        generator.integers(0, 256, (1 + number % LARGEST_BATCH, side, side, 3), dtype=np.uint8)
        for number in range(BATCHES)
    ]
    expected = [predictor.scores(batch) for batch in batches]
    answers = [0] * threads
    wrong = [0] * threads
    end = time.monotonic() + seconds

    def work(index: int) -> None:
        order = np.random.default_rng(index)
        while time.monotonic() < end:
            number = int(order.integers(BATCHES))
            answers[index] += 1
            wrong[index] += not np.allclose(predictor.scores(batches[number]), expected[number], rtol=0, atol=TOLERANCE)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    time.sleep(seconds / 2)
    held = resident_megabytes()
    for worker in workers:
        worker.join()
    return sum(answers), sum(wrong), resident_megabytes() / held - 1


def main() -> int:
    """Ask each backend in each precision; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL_DIR", help="an exported model, or the run's folder that holds one")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60, help="for each backend and precision")
    options = parser.parse_args()
    failed = False
    offered = InferenceConfig.load(options.model).precisions
    for precision, backends in offered.items():
        for backend in (*backends, "onednn"):
            try:
                predictor = Predictor(options.model, "cpu", precision, 1, backend=backend)
            except UsageError as error:
                print(f"{backend} {precision}: left out: {error}", flush=True)
                continue
            with predictor:
                answers, wrong, growth = ask(predictor, options.threads, options.seconds)
            failed |= wrong > 0 or growth > TOLERATED_GROWTH
            print(f"{backend} {precision}: {answers} answers, {wrong} wrong, memory grew by {growth:.2%}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
