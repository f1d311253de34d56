"""Measure a trained run, or its exported model, on every image of a split.

examples:
  paddle-resnet eval output/quickstart                       the best checkpoint, on the whole test split
  paddle-resnet eval output/quickstart --split validation
  paddle-resnet eval output/quickstart --checkpoint last
  paddle-resnet eval output/quickstart --exported            the model in output/quickstart/inference/
  paddle-resnet eval output/quickstart --exported --precision int8

Prints top-1, top-5, the mean cross-entropy (nats) and each class's precision, recall and F1. Writes metrics.json
(section "test"; "evaluation_<split>" for the other splits), evaluation_<split>.json with the confusion matrix, and
plots in figures/ and, for VisualDL, in vdl/. With --checkpoint last it draws no plots; the section is "last_<split>"
and the file last_<split>.json. With --exported it draws none either; the section is "exported_<split>", or with
--precision "exported_<split>_<precision>". The same code measures both. No split is augmented.

The images are those of the run's own splits: pictures that were added to a folder later are not used, and missing or
changed ones are an error. -o data.root=FOLDER says where the images are now.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from paddle_resnet.cli import program
from paddle_resnet.errors import UsageError, counted
from paddle_resnet.inference.options import BACKENDS, PRECISIONS

if TYPE_CHECKING:
    from paddle_resnet.evaluation import Evaluation
    from paddle_resnet.training.run_folder import Run


def main() -> None:
    """Parse the arguments and measure."""
    parser = program.command_parser(__doc__)
    program.add_run_options(parser)
    parser.add_argument("--split", choices=["train", "validation", "test"], default="test", help="default: test")
    parser.add_argument("--exported", action="store_true", help="measure the exported model in the run's inference/")
    parser.add_argument("--precision", choices=PRECISIONS, help="of the exported model; default: fp32")
    parser.add_argument("--backend", choices=BACKENDS, help="for the exported model; default: the faster")
    program.run(parser, _evaluate)


def _evaluate(arguments: argparse.Namespace) -> None:
    if (arguments.precision or arguments.backend) and not arguments.exported:
        raise UsageError("--precision and --backend are for an exported model: give --exported too")
    program.prepare()
    from paddle_resnet import runtime
    from paddle_resnet.console import share_bar
    from paddle_resnet.evaluation import details_path, evaluate
    from paddle_resnet.training.run_folder import Run

    run = Run.open_trained(arguments.run, arguments.overrides)
    device = runtime.select_device(arguments.device or run.config.device)
    if arguments.exported:
        _evaluate_exported(run, arguments, device)
        return
    with share_bar("evaluate") as progress:
        evaluation = evaluate(run, arguments.split, arguments.checkpoint, progress)
    _print_class_metrics(evaluation)
    _print_metrics(f"{arguments.split} split, checkpoint {arguments.checkpoint}", evaluation)
    print(f"numbers in {run.metrics_path}, details in {details_path(run, arguments.split, arguments.checkpoint)}")
    if arguments.checkpoint == "best":
        print(f"plots in {run.figures_path}")


def _evaluate_exported(run: Run, arguments: argparse.Namespace, device: str) -> None:
    """Measure the exported model, and compare it with the trained network where that has been measured."""
    from paddle_resnet.console import share_bar
    from paddle_resnet.evaluation import measure_split, metrics_section, warn_of_few_images
    from paddle_resnet.inference import Predictor

    split, precision = arguments.split, arguments.precision
    trained = run.metrics().get(metrics_section(split))
    with (
        Predictor(run.inference_path, device, precision, backend=arguments.backend) as predictor,
        share_bar("evaluate") as progress,
    ):
        what = f"{predictor.precision} by {predictor.backend}"
        evaluation = measure_split(run, predictor, split, progress)
    run.update_metrics(f"exported_{split}" + (f"_{precision}" if precision else ""), evaluation.summary())
    warn_of_few_images(split, evaluation)
    _print_class_metrics(evaluation)
    _print_metrics(f"{split} split, exported model, {what}", evaluation)
    if trained:
        points = 100 * (evaluation.top1 - trained["top1"])
        print(f"the trained network's top-1 was {trained['top1']:.2%}: a difference of {points:+.2f} points")
    print(f"numbers in {run.metrics_path}")


def _print_class_metrics(evaluation: Evaluation) -> None:
    from rich.table import Table

    from paddle_resnet.console import console

    table = Table("class", "precision", "recall", "F1", "images")
    for column in table.columns[1:]:
        column.justify = "right"
    for result in evaluation.per_class:
        metrics = (f"{value:.1%}" for value in (result.precision, result.recall, result.f1))
        table.add_row(result.name, *metrics, str(result.support))
    console.print(table)


def _print_metrics(what: str, evaluation: Evaluation) -> None:
    print(f"{what}: {counted(evaluation.images, 'image')} in {evaluation.seconds:.1f} s")
    print(f"top-1 {evaluation.top1:.2%}   top-5 {evaluation.top5:.2%}   mean loss {evaluation.loss:.4f} nats")
