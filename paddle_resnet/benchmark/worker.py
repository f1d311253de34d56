"""The other end of `runner`: reads a job from standard input, does it, writes what it measured."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from paddle_resnet import runtime
from paddle_resnet.errors import PaddleResNetError

JOBS = {
    "train": "train.paddle",
    "train_torch": "train.torch",
    "load": "data.loader",
    "kernels": "kernels.paddle",
    "kernels_torch": "kernels.torch",
    "predict": "predict.files",
    "infer": "infer.exported",
    "infer_torch": "infer.torch",
}
"""Kinds of job, and the modules whose `measure` does them: each process loads one, and paddle or torch with it."""


def work() -> None:
    """Do the job on standard input; a failure that is one line is an answer too."""
    job = json.load(sys.stdin)
    module = JOBS[job["kind"]]
    if not module.endswith(".torch"):
        runtime.import_paddle()
    try:
        answer = importlib.import_module(f"paddle_resnet.benchmark.{module}").measure(job)
    except PaddleResNetError as error:
        answer = {"error": str(error), "exit_code": error.exit_code}
    Path(job["answer"]).write_text(json.dumps(answer), encoding="utf-8")
