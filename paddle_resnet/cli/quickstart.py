"""Train, measure, export and predict on the 1,797 handwritten digits that ship inside scikit-learn.

Needs no download and no GPU. The result is in output/quickstart/. The same steps for your own data:
`paddle-resnet train`, `paddle-resnet eval`, `paddle-resnet export`, `paddle-resnet predict`, `paddle-resnet serve`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from paddle_resnet.cli import parsing, program
from paddle_resnet.errors import command, quoted

if TYPE_CHECKING:
    from paddle_resnet.inference import Prediction
    from paddle_resnet.training import Run

SAMPLES = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parsing.add_overrides(parser)
    parsing.add_language(parser)


def main(arguments: argparse.Namespace) -> None:
    started = time.monotonic()
    from paddle_resnet.config import Config

    config = Config.load("quickstart", arguments.overrides)
    program.prepare()
    from paddle_resnet.evaluation import evaluate
    from paddle_resnet.exporting import export
    from paddle_resnet.inference import Predictor
    from paddle_resnet.results import wilson_interval
    from paddle_resnet.training import train

    say = program.messages(arguments.language)
    print(say("train"))
    run = train(config)
    print(say("evaluate"))
    evaluation = evaluate(run, split="test")
    print(say("export"))
    export(run)
    print(say("predict"))
    with Predictor(run.inference_path, device=config.device) as predictor:
        predictions = list(predictor.predict(_write_samples(run)))
    low, high = wilson_interval(evaluation.top1, evaluation.images)
    top1 = say("accuracy", top1=evaluation.top1, low=low, high=high)
    _print_summary(say, run, top1, predictions, time.monotonic() - started)
    _print_next_steps(say, run)


def _write_samples(run: Run) -> list[Path]:
    """Write the first test image of each class that has one as a PNG named by its class."""
    from PIL import Image

    from paddle_resnet.inference.prediction_folders import folder_names

    test = run.splits().test
    folder = run.path / "samples"
    folder.mkdir(exist_ok=True)
    paths = []
    names = folder_names(run.classes())
    for index, label in enumerate(run.classes()[:SAMPLES]):
        first = (test.labels == index).nonzero()[0][:1]
        if len(first) == 0:
            continue
        path = folder / f"{names[label]}.png"
        Image.fromarray(test.batch(first)[0]).save(path)
        paths.append(path)
    return paths


def _print_summary(say: program.Say, run: Run, top1: str, predictions: list[Prediction], seconds: float) -> None:
    from rich.table import Table

    from paddle_resnet.console import console

    first = [say("prediction", file=Path(each.name).name, label=each.top[0].label) for each in predictions[:3]]
    table = Table(show_header=False, title="quickstart")
    for what, value in (
        ("top1", top1),
        ("images", str(run.metrics()["test"]["images"])),
        ("training", say("seconds", seconds=run.metrics()["train"]["seconds"])),
        ("in_all", say("seconds", seconds=seconds)),
        ("predictions", say("and_so_on", first=first)),
        ("figures", str(run.figures_path)),
        ("curves", str(run.vdl_path)),
        ("checkpoints", str(run.path / "checkpoints")),
        ("exported", str(run.inference_path)),
    ):
        table.add_row(say(f"row_{what}"), value)
    console.print(table)


def _activation() -> str | None:
    """Return the command that activates this virtual environment; None if it is active, or there is none."""
    scripts = Path(sys.executable).parent
    script = scripts / "activate"
    if not script.is_file() or str(scripts) in os.environ.get("PATH", "").split(os.pathsep):
        return None
    name = str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)
    return quoted(name) if os.name == "nt" else f"source {quoted(name)}"


def _print_next_steps(say: program.Say, run: Run) -> None:
    activation = _activation()
    steps = {
        **({"activate": activation} if activation else {}),
        "curves": f"visualdl --logdir {quoted(str(run.config.output))}",
        "predict": command("predict", run.inference_path, run.path / "samples"),
        "serve": command("serve", run.inference_path),
        "eval": command("eval", run.path),
        "train": command("train", "-c", "configs/resnet18_cifar10.yaml"),
    }
    print(say("next"))
    for name, text in steps.items():
        print(f"  {text:{max(map(len, steps.values()))}}   {say(f'next_{name}')}")
