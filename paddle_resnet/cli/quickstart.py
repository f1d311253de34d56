"""Train, measure, export and predict on the 1,797 handwritten digits that ship inside scikit-learn.

Needs no download and no GPU. The result is in output/quickstart/. The same steps for your own data:
`paddle-resnet train`, `paddle-resnet eval`, `paddle-resnet export`, `paddle-resnet predict`, `paddle-resnet serve`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from paddle_resnet.cli import program
from paddle_resnet.errors import command

if TYPE_CHECKING:
    from paddle_resnet.inference import Prediction
    from paddle_resnet.training import Run

SAMPLES = 10


def main() -> None:
    """Parse the arguments and run the four steps."""
    parser = program.command_parser(__doc__)
    program.add_overrides(parser)
    program.run(parser, _quickstart, results_in_files=True)


def _quickstart(arguments: argparse.Namespace) -> None:
    started = time.monotonic()
    from paddle_resnet.config import Config

    config = Config.load("quickstart", arguments.overrides)
    program.prepare()
    from paddle_resnet.evaluation import evaluate
    from paddle_resnet.exporting import export
    from paddle_resnet.inference import Predictor
    from paddle_resnet.training import train

    print("1/4 train")
    run = train(config)
    print("2/4 evaluate on the whole test split")
    evaluation = evaluate(run, split="test")
    print("3/4 export for Paddle Inference, and check the exported model against the network")
    export(run)
    print("4/4 predict test images with the exported model")
    with Predictor(run.inference_path, device=config.device) as predictor:
        predictions = list(predictor.predict(_write_samples(run)))
    _print_summary(run, evaluation.top1, evaluation.images, predictions, time.monotonic() - started)


def _write_samples(run: Run) -> list[Path]:
    """Write the first test image of each class as a PNG named by its class."""
    from PIL import Image

    test = run.splits().test
    folder = run.path / "samples"
    folder.mkdir(exist_ok=True)
    paths = []
    for index, name in enumerate(run.classes()[:SAMPLES]):
        first = (test.labels == index).nonzero()[0][:1]
        path = folder / f"{name}.png"
        Image.fromarray(test.batch(first)[0]).save(path)
        paths.append(path)
    return paths


def _print_summary(run: Run, top1: float, images: int, predictions: list[Prediction], seconds: float) -> None:
    from rich.table import Table

    from paddle_resnet.console import console
    from paddle_resnet.results import accuracy_text

    first = ", ".join(f"{Path(each.name).name} is {each.top[0].label}" for each in predictions[:3])
    table = Table(show_header=False, title="quickstart")
    for what, value in (
        ("test top-1", accuracy_text(top1, images)),
        ("test images", str(images)),
        ("training", f"{run.metrics()['train']['seconds']:.0f} s"),
        ("in all", f"{seconds:.0f} s"),
        ("exported model says", f"{first}, ..."),
        ("figures", str(run.figures_path)),
        ("curves", str(run.vdl_path)),
        ("checkpoints", str(run.path / "checkpoints")),
        ("exported model", str(run.inference_path)),
    ):
        table.add_row(what, value)
    console.print(table)
    print("next:")
    print(f"  visualdl --logdir {run.config.output}                             the curves, in a browser")
    print(f"  {command('predict')} {run.inference_path} {run.path / 'samples'}   classify pictures")
    print(f"  {command('serve')} {run.inference_path}     a page to drop pictures on: http://127.0.0.1:8000/")
    print(f"  {command('eval')} {run.path}                       per-class metrics")
    print(f"  {command('train')} -c configs/resnet18_cifar10.yaml    the main job, on CIFAR-10")
