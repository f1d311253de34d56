"""Measure speed and memory on the CPU: training, loading, single operations, inference, a running service.

examples:
  paddle-resnet benchmark train                                    four networks, by oneDNN and by Paddle's own layers
  paddle-resnet benchmark train --case resnet20@32x128 --rounds 3 --against torch
  paddle-resnet benchmark data                                     the loader alone, and its share of a training step
  paddle-resnet benchmark kernels --against torch                  convolution, BN + ReLU, add + ReLU, max pool
  paddle-resnet benchmark infer output/quickstart --batch 1 32 --threads 1 2
  paddle-resnet benchmark infer output/quickstart --precision fp32 int8 --against torch
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
import shlex
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from paddle_resnet.benchmark.backends import PADDLE, TORCH, check_backends, require_torch
from paddle_resnet.benchmark.train.cases import TRAIN_CASES, TrainCase
from paddle_resnet.cli import program
from paddle_resnet.errors import command
from paddle_resnet.inference.options import CPU_PRECISIONS, CPU_SUPPORT
from paddle_resnet.machine import physical_cores

if TYPE_CHECKING:
    from paddle_resnet.benchmark.report import Report

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

TABLE_WIDTH = 200


def main() -> None:
    """Parse the arguments and measure."""
    parser = program.command_parser(__doc__)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="train | data | kernels | infer | predict | serve"
    )
    for add in (_add_train, _add_data, _add_kernels, _add_infer, _add_predict, _add_serve):
        add(commands)
    program.run(parser, _benchmark)


def _add_train(commands: Commands) -> None:
    parser = commands.add_parser("train", help="whole training steps, through paddle.Model.fit")
    parser.add_argument(
        "--case", nargs="+", metavar="CASE", help=f"network@sizexbatch; default: {_in_words(TRAIN_CASES)}"
    )
    parser.add_argument("--backends", nargs="+", default=["onednn", "native"], help=f"of {_in_words(PADDLE)}")
    _add_against(parser, list(TORCH))
    _add_number(parser, "--steps", 20, "timed steps of a run; ")
    _add_number(parser, "--warm-up", 5, "steps before them; ")
    _add_common(parser, _train, rounds=5)


def _add_data(commands: Commands) -> None:
    parser = commands.add_parser("data", help="the loader alone, and its share of a training step")
    _add_number(parser, "--steps", 20, "timed batches; ")
    _add_common(parser, _data)


def _add_kernels(commands: Commands) -> None:
    parser = commands.add_parser("kernels", help="single operations, forward and backward")
    _add_against(parser, ["torch"])
    _add_number(parser, "--repeats", 20, "of each pass; ")
    _add_common(parser, _kernels)


def _add_infer(commands: Commands) -> None:
    parser = commands.add_parser("infer", help="latency and throughput of an exported model")
    _add_model(parser)
    _add_number(parser, "--batch", [1, 8, 32])
    _add_number(parser, "--threads", sorted({1, physical_cores()}))
    parser.add_argument("--precision", nargs="+", choices=CPU_PRECISIONS, help="default: all that were exported")
    parser.add_argument("--backend", nargs="+", choices=list(CPU_SUPPORT), help="default: both, where exported")
    _add_against(parser, list(TORCH))
    _add_number(parser, "--calls", 50, "minimum number of timed calls of a run; ")
    _add_common(parser, _infer)


def _add_predict(commands: Commands) -> None:
    parser = commands.add_parser("predict", help="image files to predictions, compared with the network alone")
    _add_model(parser)
    parser.add_argument("pictures", metavar="PICTURES", nargs="+", help="files, folders, or patterns in quotes")
    _add_number(parser, "--batch", 32)
    _add_number(parser, "--threads", physical_cores())
    parser.add_argument("--precision", choices=CPU_PRECISIONS, help="default: fp32")
    parser.add_argument("--backend", choices=list(CPU_SUPPORT), help="default: see docs/deployment.md")
    _add_common(parser, _predict)


def _add_serve(commands: Commands) -> None:
    parser = commands.add_parser("serve", help="a running service: throughput, latency, responses")
    parser.add_argument("url", metavar="URL", help="such as http://127.0.0.1:8000")
    _add_number(parser, "--clients", [32])
    _add_number(parser, "--images", [1, 8], "pictures in a request; ")
    parser.add_argument(
        "--rate", type=program.positive_int, metavar="N", help="offered requests/s; default: as many as get responses"
    )
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="send these; default: synthetic ones")
    _add_number(parser, "--seconds", 20, "of a run, after 1 s of warm-up; ")
    _add_common(parser, _serve)


def _add_number(parser: argparse.ArgumentParser, flag: str, default: int | list[int], text: str = "") -> None:
    """Add a whole number of at least 1, or several where `default` is a list."""
    several, words = ("+", " ".join(map(str, default))) if isinstance(default, list) else (None, default)
    parser.add_argument(
        flag, nargs=several, type=program.positive_int, default=default, metavar="N", help=f"{text}default: {words}"
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL_DIR", type=Path, help="an exported model, or the run that holds one")


def _add_against(parser: argparse.ArgumentParser, choices: list[str]) -> None:
    parser.add_argument("--against", nargs="+", choices=choices, default=[], help="compare with PyTorch")


def _add_common(
    parser: argparse.ArgumentParser, measure: Callable[[argparse.Namespace], Report], rounds: int = 3
) -> None:
    _add_number(parser, "--rounds", rounds)
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help=f"default: output/benchmarks/{parser.prog.split()[-1]}"
    )
    # `program.run` accepts it before the command, this after the command.
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
    )
    parser.set_defaults(measure=measure)


def _benchmark(arguments: argparse.Namespace) -> None:
    if getattr(arguments, "against", []):
        require_torch()
    report: Report = arguments.measure(arguments)
    command_line = f"{command('benchmark')} {shlex.join(sys.argv[1:])}"
    report = replace(report, settings={"command_line": command_line, **report.settings})
    from rich.console import Console

    from paddle_resnet.console import console

    # A narrow window would cut columns off, and a file has no width.
    Console(width=max(console.width, TABLE_WIDTH), highlight=False).print(report.table())
    for path in report.write(arguments.output or Path("output", "benchmarks", arguments.command)):
        print(path)


def _train(arguments: argparse.Namespace) -> Report:
    cases = [TrainCase.parse(text) for text in arguments.case] if arguments.case else list(TRAIN_CASES)
    check_backends(arguments.backends)
    program.prepare()
    from paddle_resnet.benchmark.train.report import benchmark_training

    backends = [*arguments.backends, *arguments.against]
    return benchmark_training(cases, backends, arguments.rounds, arguments.steps, arguments.warm_up)


def _data(arguments: argparse.Namespace) -> Report:
    program.prepare()
    from paddle_resnet.benchmark.data.report import benchmark_loading

    return benchmark_loading(arguments.rounds, arguments.steps, warm_up=4)


def _kernels(arguments: argparse.Namespace) -> Report:
    program.prepare()
    from paddle_resnet.benchmark.kernels.report import benchmark_kernels

    return benchmark_kernels(["onednn", "native", *arguments.against], arguments.rounds, arguments.repeats)


def _infer(arguments: argparse.Namespace) -> Report:
    program.prepare()
    from paddle_resnet.benchmark.infer.report import benchmark_inference

    return benchmark_inference(
        arguments.model,
        arguments.batch,
        arguments.threads,
        arguments.rounds,
        arguments.calls,
        precisions=arguments.precision,
        backends=arguments.backend,
        against=arguments.against,
    )


def _predict(arguments: argparse.Namespace) -> Report:
    program.prepare()
    from paddle_resnet.benchmark.predict.report import benchmark_prediction

    return benchmark_prediction(
        arguments.model,
        arguments.pictures,
        arguments.batch,
        arguments.threads,
        arguments.rounds,
        precision=arguments.precision,
        backend=arguments.backend,
    )


def _serve(arguments: argparse.Namespace) -> Report:
    program.require("serve.txt", "httptools", "uvloop")
    program.prepare()
    from paddle_resnet.benchmark.serve.report import LoadCase, benchmark_service

    cases = [LoadCase(clients, images, arguments.rate) for clients in arguments.clients for images in arguments.images]
    return benchmark_service(arguments.url, cases, arguments.rounds, arguments.seconds, arguments.pictures)


def _in_words(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
