"""Measure jobs in turn, each in a new Python process, so that libraries, thread pools and memory do not mix."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import psutil

from paddle_resnet import runtime
from paddle_resnet.console import logger
from paddle_resnet.errors import PaddleResNetError, RunFailure, UsageError
from paddle_resnet.files import scratch_folder
from paddle_resnet.timing import interleave

PROJECT = Path(__file__).resolve().parents[2]
WORKER = "from paddle_resnet.benchmark.runner import work; work()"
JOBS = {
    "train": "training_jobs.train",
    "train_torch": "torch_jobs.train",
    "load": "training_jobs.load",
    "predict": "inference_jobs.predict",
    "infer": "inference_jobs.infer",
    "infer_torch": "torch_jobs.infer",
}
"""Kinds of job, and the functions that do them. A process loads one module of them, so it has Paddle or PyTorch."""

Job = Mapping[str, Any]
Measurement = dict[str, Any]


def run_jobs(jobs: Mapping[str, Job], rounds: int, title: str = "") -> dict[str, list[Measurement]]:
    """Run the jobs in turn, `rounds` times; return the measurements of each job by round.

    Raises:
        UsageError: a job was refused.
        RunFailure: a job's process failed.
    """
    return interleave({name: partial(run_job, job, name) for name, job in jobs.items()}, rounds, log(rounds, title))


@contextmanager
def busy_programs(count: int) -> Iterator[None]:
    """Let so many endless loops run meanwhile, each on a core of its own."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        for loop, core in zip(loops, cycle(range(os.cpu_count() or 1)), strict=False):
            with suppress(AttributeError):  # macOS cannot bind a process to a core
                psutil.Process(loop.pid).cpu_affinity([core])
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def log(rounds: int, title: str = "") -> Callable[[object, int], None]:
    """Make a function that logs the beginning of a measurement, for `interleave`."""
    return lambda name, number: logger.info("%sround %d/%d, %s", title, number, rounds, name)


def run_job(job: Job, name: str, command: Sequence[str] = (sys.executable, "-c", WORKER)) -> Measurement:
    """Run one job in a new process, by `command`; `name` is for messages. Errors are those of `run_jobs`."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    setting = runtime.prepare_process().threads
    if not setting.preset:
        environment.pop(setting.variable, None)  # the job would take it for the user's choice
    with scratch_folder() as folder:
        output = folder / "measurement.json"
        process = subprocess.run(
            command,
            input=json.dumps({**job, "output": str(output)}),
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if process.returncode != 0 or not output.exists():
            last_line = (process.stderr.strip().splitlines() or ["it printed nothing"])[-1]
            raise RunFailure(f"{name}: the process ended with code {process.returncode}: {last_line}")
        measurement = json.loads(output.read_text(encoding="utf-8"))
    if "error" in measurement:
        kind = UsageError if measurement["exit_code"] == UsageError.exit_code else RunFailure
        raise kind(f"{name}: {measurement['error']}")
    return measurement


def work() -> None:
    """Run the job on standard input in this process, and write its measurement or its error."""
    job = json.load(sys.stdin)
    module, _, function = JOBS[job["kind"]].rpartition(".")
    if module != "torch_jobs":
        runtime.import_paddle()
    try:
        measurement = getattr(importlib.import_module(f"paddle_resnet.benchmark.{module}"), function)(job)
    except PaddleResNetError as error:
        measurement = {"error": str(error), "exit_code": error.exit_code}
    Path(job["output"]).write_text(json.dumps(measurement), encoding="utf-8")
