"""Measure speed and memory on the CPU: training, loading, inference, a running service.

examples:
  paddle-resnet benchmark train                                    four networks, by oneDNN and by Paddle's own layers
  paddle-resnet benchmark train --case resnet20@32x128 --rounds 3 --against torch
  paddle-resnet benchmark data                                     the loader alone, and its share of a training step
  paddle-resnet benchmark data --against torch paddle              files to batches, beside other DataLoaders
  paddle-resnet benchmark infer output/quickstart --batch 1 32 --threads 1 2
  paddle-resnet benchmark infer output/quickstart --precision fp32 int8 --against torch
  paddle-resnet benchmark infer output/quickstart --threads auto 1 2 --beside 1
  paddle-resnet benchmark predict output/quickstart photos/        image files to predictions, and the network alone
  paddle-resnet benchmark serve http://127.0.0.1:8000 --clients 32 --images 1 8

Each run, except those of serve, is a process of its own. What is compared runs in turn, round by round. Results are
medians over the rounds, with the smallest and the largest in brackets; ratios are of runs of the same round. Run
nothing else meanwhile. Each command prints a table and writes <command>.json and <command>.png to
output/benchmarks/<command>/.

train: paddle.Model.fit with the real loader on random images. PyTorch (--against torch) trains the same network,
channels last, on tensors in memory. "waiting" is the fraction of the time that steps wait for their batch. "of GEMM
rate" compares the network's products with the fastest large matrix product measured here.

infer: what inference.yml offers on a CPU. "of ONNX fp32" is the throughput divided by that of ONNX Runtime in float32.
PyTorch (--against torch) runs eagerly.

serve: requests from this process to a running `paddle-resnet serve`. Each client keeps its connection and sends the
next request after each response. Responses are compared with the first one to the same request; "wrong" counts those
that differ.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddle_resnet.benchmark.cases import PADDLE, TORCH, TRAIN_CASES, TrainCase, paddle_backend, require_torch
from paddle_resnet.cli import parsing, program
from paddle_resnet.errors import command
from paddle_resnet.files import require_writable
from paddle_resnet.inference.options import CPU_PRECISIONS, CPU_SUPPORT
from paddle_resnet.system.machine import physical_cores

if TYPE_CHECKING:
    from paddle_resnet.benchmark.report import Report

TABLE_WIDTH = 200


class Command:
    """A command's parser. An argument's `dest` is that of the function which measures, ``<module>.<function>``."""

    def __init__(self, commands: Any, name: str, function: str, about: str, rounds: int = 3) -> None:
        self.parser = commands.add_parser(name, help=about)
        self.parser.set_defaults(function=function)
        self.add = self.parser.add_argument
        self.number("--rounds", rounds)
        parsing.add_number(self.parser, "--beside", "other programs that keep a core busy; default: 0", default=0)
        self.add("--output", type=parsing.path, metavar="DIR", help=f"default: output/benchmarks/{name}")
        # `program.run` accepts it before the command, this after the command.
        self.add("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")

    def number(self, flag: str, default: int | list[int], text: str = "", **options: Any) -> None:
        """Add a whole number of at least 1, or several where `default` is a list."""
        several, words = ("+", " ".join(map(str, default))) if isinstance(default, list) else (None, default)
        parsing.add_number(self.parser, flag, f"{text}default: {words}", nargs=several, default=default, **options)

    def threads(self, default: Sequence[int | None]) -> None:
        """Add numbers of threads; `auto` is None."""
        text = "or auto, chosen by measurement; default: " + " ".join(str(count or "auto") for count in default)
        parsing.add_number(self.parser, "--threads", text, nargs="+", default=default, type=parsing.count_or("auto"))

    def model(self) -> None:
        self.add("model", metavar="MODEL_DIR", type=parsing.path, help="an exported model, or the run that holds one")

    def against(self, choices: Iterable[str]) -> None:
        self.add("--against", nargs="+", choices=list(choices), default=[], help="compare with PyTorch")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", required=True, metavar="train | data | infer | predict | serve")
    _add_training(commands)
    _add_inference(commands)


def _add_training(commands: Any) -> None:
    about = "whole training steps, through paddle.Model.fit"
    train = Command(commands, "train", "train.benchmark_training", about, rounds=5)
    cases = f"network@sizexbatch; default: {_in_words(TRAIN_CASES)}"
    options = {"dest": "cases", "type": TrainCase.parse, "default": list(TRAIN_CASES)}
    train.add("--case", nargs="+", metavar="CASE", help=cases, **options)
    backends = ["onednn", "native"]
    train.add("--backends", nargs="+", type=paddle_backend, default=backends, help=f"of {_in_words(PADDLE)}")
    train.against(TORCH)
    train.threads([None])
    train.number("--steps", 20, "timed steps of a run; ")
    train.number("--warm-up", 5, "steps before them; ")
    about = "the loader alone, and its share of a training step"
    data = Command(commands, "data", "data.benchmark_loading", about)
    data.number("--steps", 20, "timed batches; ")
    data.parser.set_defaults(warm_up=4)
    data.against(["torch", "paddle"])
    data.add("--torch-python", default=sys.executable, metavar="FILE", help="an interpreter that has torchvision")


def _add_inference(commands: Any) -> None:
    about = "latency and throughput of an exported model"
    infer = Command(commands, "infer", "infer.benchmark_inference", about)
    infer.model()
    infer.number("--batch", [1, 8, 32], dest="batches")
    infer.threads(sorted({1, physical_cores()}))
    infer.add("--precision", dest="precisions", nargs="+", choices=CPU_PRECISIONS, help="default: all exported ones")
    infer.add("--backend", dest="backends", nargs="+", choices=list(CPU_SUPPORT), help="default: all, where exported")
    infer.against(TORCH)
    infer.number("--calls", 50, "minimum number of timed calls of a run; ")
    about = "image files to predictions, compared with the network alone"
    predict = Command(commands, "predict", "predict.benchmark_prediction", about)
    predict.model()
    predict.add("pictures", metavar="PICTURES", nargs="+", help="files, folders, or patterns in quotes")
    predict.number("--batch", 32)
    predict.number("--threads", physical_cores())
    predict.add("--precision", choices=CPU_PRECISIONS, help="default: fp32")
    predict.add("--backend", choices=list(CPU_SUPPORT), help="default: see docs/deployment.md")
    about = "a running service: throughput, latency, responses"
    serve = Command(commands, "serve", "serve.report.benchmark_service", about)
    serve.add("url", metavar="URL", help="such as http://127.0.0.1:8000")
    serve.number("--clients", [32])
    serve.number("--images", [1, 8], "pictures in a request; ")
    parsing.add_number(serve.parser, "--rate", "offered requests/s; default: as many as get responses")
    serve.add("--pictures", type=parsing.path, metavar="DIR", help="send these; default: synthetic ones")
    serve.number("--seconds", 20, "of a run, after 1 s of warm-up; ")


def main(arguments: argparse.Namespace) -> None:
    options = vars(arguments)
    name, function, output, beside = (options.pop(key) for key in ("command", "function", "output", "beside"))
    options.pop("debug")
    folder = output or Path("output", "benchmarks", name)
    require_writable(folder)
    if options.get("against") and name != "data":  # whose PyTorch may be another interpreter's
        require_torch()
    if name == "serve":
        program.require("serve.txt", "httptools")
    program.prepare()
    if name == "serve":
        from paddle_resnet.benchmark.serve.report import LoadCase

        shapes = product(options.pop("clients"), options.pop("images"), [options.pop("rate")])
        options["cases"] = [LoadCase(*shape) for shape in shapes]
    module, _, function = function.rpartition(".")
    measure: Callable[..., Report] = getattr(importlib.import_module(f"paddle_resnet.benchmark.{module}"), function)
    from paddle_resnet.benchmark.runner import busy_programs

    with busy_programs(beside):
        report = measure(**options)
    command_line = f"{command('benchmark')} {shlex.join(sys.argv[1:])}"
    report = replace(report, settings={"command_line": command_line, **report.settings})
    from rich.console import Console

    from paddle_resnet.console import console

    # A narrow window would cut columns off, and a file has no width.
    Console(width=max(console.width, TABLE_WIDTH), highlight=False).print(report.table())
    for path in report.write(folder):
        print(path)


def _in_words(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
