"""Measure speed and memory on the CPU: training, loading, single operations, inference, a running service.

examples:
  paddle-resnet benchmark train                                    four networks, oneDNN and Paddle's own layers
  paddle-resnet benchmark train --case resnet20@32x128 --rounds 3 --against torch
  paddle-resnet benchmark data                                     the loader alone, and its share of a step
  paddle-resnet benchmark kernels --against torch                  convolution, BN + ReLU, add + ReLU, max pool
  paddle-resnet benchmark infer output/quickstart --batch 1 32 --threads 1 2
  paddle-resnet benchmark predict output/quickstart photos/        files to answers, against the network alone
  paddle-resnet benchmark infer output/quickstart --precision fp32 int8 --against torch
  paddle-resnet benchmark serve http://127.0.0.1:8000 --clients 32 --images 1 8

Each run but serve's is a process of its own, and what is compared takes turns, round by round: medians over the
rounds, with the smallest and the largest in brackets; ratios are of runs of the same round. Let nothing else run
meanwhile. Each command prints a table, and writes <command>.json and <command>.png to output/benchmarks/<command>/.

train goes through paddle.Model.fit with the real loader on random pictures; PyTorch (--against torch) trains the
same network, channels last, on tensors that lie in memory. "waiting" is the share of the time in which a step waits for
its batch; "of GEMM rate" sets the network's products against the fastest large matrix product measured here.

infer compares what inference.yml offers on a CPU; "of ONNX fp32" is the throughput in parts of ONNX Runtime's in
float32; PyTorch (--against torch) answers eagerly.

serve asks a running `paddle-resnet serve` from this process: each client keeps its connection and asks again when it is
answered. Of each request the answers are compared with the first one; "wrong" counts those that differ.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from paddle_resnet.benchmark.train.backends import OURS, TORCH, check_backends, require_torch
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
    parser.add_argument("--backends", nargs="+", default=["onednn", "native"], help=f"of {_in_words(OURS)}")
    parser.add_argument("--against", nargs="+", choices=list(TORCH), default=[], help="compare with PyTorch")
    _add_common(parser, rounds=5)
    parser.add_argument(
        "--steps", type=program.positive_int, default=20, metavar="N", help="counted steps of a run; default: 20"
    )
    parser.add_argument(
        "--warm-up", type=program.positive_int, default=5, metavar="N", help="steps before them; default: 5"
    )
    parser.set_defaults(measure=_train)


def _add_data(commands: Commands) -> None:
    parser = commands.add_parser("data", help="the loader alone, and its share of a training step")
    _add_common(parser, rounds=3)
    parser.add_argument(
        "--steps", type=program.positive_int, default=20, metavar="N", help="counted batches; default: 20"
    )
    parser.set_defaults(measure=_data)


def _add_kernels(commands: Commands) -> None:
    parser = commands.add_parser("kernels", help="single operations, forward and backward")
    parser.add_argument("--against", nargs="+", choices=["torch"], default=[], help="compare with PyTorch")
    _add_common(parser, rounds=3)
    parser.add_argument(
        "--repeats", type=program.positive_int, default=20, metavar="N", help="of each pass; default: 20"
    )
    parser.set_defaults(measure=_kernels)


def _add_infer(commands: Commands) -> None:
    parser = commands.add_parser("infer", help="latency and throughput of an exported model")
    parser.add_argument("model", metavar="MODEL_DIR", type=Path, help="an exported model, or the run that holds one")
    parser.add_argument(
        "--batch", nargs="+", type=program.positive_int, default=[1, 8, 32], metavar="N", help="default: 1 8 32"
    )
    parser.add_argument(
        "--threads", nargs="+", type=program.positive_int, metavar="N", help="default: 1, and all cores"
    )
    parser.add_argument("--precision", nargs="+", choices=CPU_PRECISIONS, help="default: all that were exported")
    parser.add_argument("--backend", nargs="+", choices=list(CPU_SUPPORT), help="default: both, where exported")
    parser.add_argument("--against", nargs="+", choices=list(TORCH), default=[], help="compare with PyTorch")
    _add_common(parser, rounds=3)
    parser.add_argument(
        "--calls",
        type=program.positive_int,
        default=50,
        metavar="N",
        help="timed calls of a run, at least; default: 50",
    )
    parser.set_defaults(measure=_infer)


def _add_predict(commands: Commands) -> None:
    parser = commands.add_parser("predict", help="picture files to answers, against the network alone")
    parser.add_argument("model", metavar="MODEL_DIR", type=Path, help="an exported model, or the run that holds one")
    parser.add_argument("pictures", metavar="PICTURES", nargs="+", help="files, folders, or patterns in quotes")
    parser.add_argument("--batch", type=program.positive_int, default=32, metavar="N", help="default: 32")
    parser.add_argument("--threads", type=program.positive_int, metavar="N", help="default: all cores")
    parser.add_argument("--precision", choices=CPU_PRECISIONS, help="default: fp32")
    parser.add_argument("--backend", choices=list(CPU_SUPPORT), help="default: as docs/deployment.md says")
    _add_common(parser, rounds=3)
    parser.set_defaults(measure=_predict)


def _add_serve(commands: Commands) -> None:
    parser = commands.add_parser("serve", help="a running service: throughput, latency, answers")
    parser.add_argument("url", metavar="URL", help="such as http://127.0.0.1:8000")
    parser.add_argument(
        "--clients", nargs="+", type=program.positive_int, default=[32], metavar="N", help="default: 32"
    )
    parser.add_argument(
        "--images",
        nargs="+",
        type=program.positive_int,
        default=[1, 8],
        metavar="N",
        help="pictures in a request; default: 1 8",
    )
    parser.add_argument(
        "--rate", type=program.positive_int, metavar="N", help="requests/s to offer; default: as many as are answered"
    )
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="send these; default: drawn, of the model's size")
    parser.add_argument(
        "--seconds",
        type=program.positive_int,
        default=20,
        metavar="N",
        help="of a run, after 1 s of warm-up; default: 20",
    )
    _add_common(parser, rounds=3)
    parser.set_defaults(measure=_serve)


def _add_common(parser: argparse.ArgumentParser, rounds: int) -> None:
    parser.add_argument("--rounds", type=program.positive_int, default=rounds, metavar="N", help=f"default: {rounds}")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help=f"default: output/benchmarks/{parser.prog.split()[-1]}"
    )
    # Also behind the command; what `cli` adds stands before it.
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
    )


def _benchmark(arguments: argparse.Namespace) -> None:
    if getattr(arguments, "against", []):
        require_torch()
    report: Report = arguments.measure(arguments)
    from rich.console import Console

    from paddle_resnet.console import console

    # A narrow window would cut figures off, and a file has no width of its own.
    Console(width=max(console.width, TABLE_WIDTH), highlight=False).print(report.table())
    for path in report.write(arguments.output or Path("output", "benchmarks", arguments.command)):
        print(path)


def _train(arguments: argparse.Namespace) -> Report:
    cases = [TrainCase.parse(text) for text in arguments.case] if arguments.case else list(TRAIN_CASES)
    check_backends(arguments.backends)
    program.prepare()
    from paddle_resnet.benchmark.train.report import benchmark_training

    backends = [*arguments.backends, *arguments.against]
    return benchmark_training(cases, backends, arguments.rounds, arguments.steps, arguments.warm_up, _command_line())


def _data(arguments: argparse.Namespace) -> Report:
    program.prepare()
    from paddle_resnet.benchmark.data.report import benchmark_loading

    return benchmark_loading(arguments.rounds, arguments.steps, warm_up=4, command_line=_command_line())


def _kernels(arguments: argparse.Namespace) -> Report:
    program.prepare()
    from paddle_resnet.benchmark.kernels.report import benchmark_kernels

    backends = ["onednn", "native", *arguments.against]
    return benchmark_kernels(backends, arguments.rounds, arguments.repeats, _command_line())


def _infer(arguments: argparse.Namespace) -> Report:
    program.prepare()
    from paddle_resnet.benchmark.infer.report import benchmark_inference

    return benchmark_inference(
        arguments.model,
        arguments.batch,
        arguments.threads or sorted({1, physical_cores()}),
        arguments.rounds,
        arguments.calls,
        _command_line(),
        precisions=arguments.precision,
        backends=arguments.backend,
        against=arguments.against,
    )


def _predict(arguments: argparse.Namespace) -> Report:
    program.prepare()
    from paddle_resnet.benchmark.predict.report import benchmark_prediction

    threads = arguments.threads or physical_cores()
    return benchmark_prediction(
        arguments.model,
        arguments.pictures,
        arguments.batch,
        threads,
        arguments.rounds,
        _command_line(),
        precision=arguments.precision,
        backend=arguments.backend,
    )


def _serve(arguments: argparse.Namespace) -> Report:
    program.require("serve.txt", "httptools", "uvloop")
    program.prepare()
    from paddle_resnet.benchmark.serve.report import LoadCase, benchmark_service

    cases = [LoadCase(clients, images, arguments.rate) for clients in arguments.clients for images in arguments.images]
    return benchmark_service(
        arguments.url, cases, arguments.rounds, arguments.seconds, _command_line(), arguments.pictures
    )


def _command_line() -> str:
    return f"{command('benchmark')} {shlex.join(sys.argv[1:])}"


def _in_words(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
