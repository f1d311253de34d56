#!/usr/bin/env python3
# ruff: noqa: T201
"""Measure what commands cost before their first result, in CPU seconds (user and system), for docs/performance.md.

python docs/experiments/cold_start.py output/quickstart [--rounds 5]

MODEL is a run of the quick start, exported with --onnx. The first step of a training is the end of its first
`train_batch`. The commands run in turn, each in a process of its own, with one thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

PROJECT = Path(__file__).resolve().parents[2]
FIRST_STEP = """
import os
import paddle_resnet
from paddle_resnet.cli import program
program.prepare()
from paddle_resnet.training.train_step import TrainStepModel
take_step = TrainStepModel.train_batch
TrainStepModel.train_batch = lambda *arguments: (take_step(*arguments), os._exit(0))
paddle_resnet.train(paddle_resnet.Config.load("quickstart", ["output=."]))
"""


def cpu_seconds(command: list[str], folder: str) -> float:
    """Run Python with these arguments in a folder; return the time of its process and of those it has waited for."""
    before = os.times()
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, check=True)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])


def main() -> None:
    """Print a row for each command: the median, and the smallest and the largest value."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", type=lambda name: Path(name).resolve())
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    predict = ["-m", "paddle_resnet", "predict", str(options.model), str(options.model / "samples" / "3.png")]
    commands = {
        "import paddle": ["-c", "import paddle"],
        "predict --help": ["-m", "paddle_resnet", "predict", "--help"],
        "models": ["-m", "paddle_resnet", "models"],
        **{f"predict, {name}": [*predict, "--backend", name] for name in ("onnxruntime", "onednn", "paddle")},
        "train, first step": ["-c", FIRST_STEP],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(options.rounds):
        for name, command in commands.items():
            with TemporaryDirectory() as folder:
                taken[name].append(cpu_seconds(command, folder))
    for name, seconds in taken.items():
        print(f"| {name} | {statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f}) |")


if __name__ == "__main__":
    main()
