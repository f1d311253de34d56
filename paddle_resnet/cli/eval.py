"""Measure a trained run, or its exported model, on every image of a split.

examples:
  paddle-resnet eval output/quickstart                       the best checkpoint, on the whole test split
  paddle-resnet eval output/quickstart --split validation
  paddle-resnet eval output/quickstart --checkpoint last
  paddle-resnet eval output/quickstart --exported            the model in output/quickstart/inference/
  paddle-resnet eval output/quickstart --exported --precision int8
  paddle-resnet eval output/dogs --data phone_pictures/      other pictures, in class folders or a list
  paddle-resnet eval output/dogs --choose-threshold 0.99     below it a prediction is of the class "unknown"

Prints top-1 (and of more than 5 classes top-5) with its 95% interval, the mean cross-entropy (nats), the macro averages
of F1 and ROC-AUC (one class against the others), the expected calibration error, the classes that are confused most,
and each class's precision, recall and F1. Writes metrics.json (section "test"; "evaluation_<split>" for the other
splits), evaluation_<split>.json with the confusion matrix, and plots in figures/ and, for VisualDL, in vdl/. With
--checkpoint last it draws no plots; the section is "last_<split>" and the file last_<split>.json. With --exported it
draws none either; the section is "exported_<split>", or with --precision "exported_<split>_<precision>". The same code
measures both. No split is augmented.

The images are those of the run's own splits: pictures that were added to a folder later are not used, and missing or
changed ones are an error. -o data.root=FOLDER says where the images are now.

  --data              measures other pictures: a folder of class folders (for image_names, of files that match its
                      pattern) or a list "path class", with all or some of the run's classes. Instead of the split the
                      section names "data_<name>", or "data_<name>_2" where others of that name were measured before
  --choose-threshold  measures the validation split, and chooses the lowest threshold at which this share of the
                      predictions that are kept is right. The next export writes it to inference.yml
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from paddle_resnet.cli import parsing, program
from paddle_resnet.errors import UsageError, command, counted, shown
from paddle_resnet.inference.options import BACKENDS, PRECISIONS

if TYPE_CHECKING:
    from paddle_resnet.evaluation import Evaluation
    from paddle_resnet.evaluation.report import NamedSplit
    from paddle_resnet.training.run_folder import Run

PRINTED_PAIRS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parsing.add_run_options(parser)
    parser.add_argument("--split", choices=["train", "validation", "test"], help="default: test")
    parser.add_argument("--data", type=parsing.path, metavar="FOLDER|LIST", help="measure these pictures, not a split")
    threshold = 'choose the threshold of the class "unknown" on validation; default: 0.99'
    parser.add_argument(
        "--choose-threshold", type=parsing.fraction, nargs="?", const=0.99, metavar="ACCURACY", help=threshold
    )
    parser.add_argument("--exported", action="store_true", help="measure the exported model in the run's inference/")
    parser.add_argument("--precision", choices=PRECISIONS, help="of the exported model; default: fp32")
    parser.add_argument("--backend", choices=BACKENDS, help="for the exported model; default: the faster")


def main(arguments: argparse.Namespace) -> None:
    if (arguments.precision or arguments.backend) and not arguments.exported:
        raise UsageError("--precision and --backend are for an exported model: give --exported too")
    chooses = arguments.choose_threshold is not None
    if bool(arguments.data) + bool(arguments.split) + chooses > 1:
        raise UsageError("--data, --split and --choose-threshold each say what is measured: give one of them")
    if chooses and (arguments.exported or arguments.checkpoint != "best"):
        raise UsageError("--choose-threshold is by the best checkpoint: give neither --exported nor --checkpoint last")
    if arguments.exported and arguments.checkpoint != "best":
        raise UsageError("--exported measures what was exported: leave out --checkpoint last, or export it")
    program.prepare()
    from paddle_resnet import runtime
    from paddle_resnet.console import share_bar
    from paddle_resnet.evaluation.report import choose_threshold, details_path, evaluate, other_pictures, split_of
    from paddle_resnet.results import accuracy_text
    from paddle_resnet.training.run_folder import Run

    run = Run.open_trained(arguments.run, arguments.overrides)
    device = runtime.select_device(arguments.device or run.config.device)
    name = "validation" if chooses else arguments.split or "test"
    split = other_pictures(run, arguments.data) if arguments.data else split_of(run, name)
    if arguments.exported:
        _evaluate_exported(run, split, arguments, device)
        return
    with share_bar("evaluate") as progress:
        evaluation = evaluate(run, split, arguments.checkpoint, progress)
    _print_metrics(f"{split.title}, checkpoint {arguments.checkpoint}", evaluation)
    print(f"numbers in {run.metrics_path}, details in {details_path(run, split.name, arguments.checkpoint)}")
    if arguments.checkpoint == "best":
        print(f"plots in {run.figures_path}")
    if chooses:
        chosen = choose_threshold(run, evaluation, arguments.choose_threshold)
        right = accuracy_text(chosen["right"] / chosen["kept"], chosen["kept"])
        kept = f"{chosen['kept']} of {chosen['images']} validation images are kept, {right} of them right"
        more = "" if chosen["threshold"] else "; none is needed for this accuracy: ask for a higher one"
        print(f"threshold {chosen['threshold']:.4f}: {kept}{more}")
        print(f"next: {command('export', run.path)}   writes it to inference.yml, for predict and serve")


def _evaluate_exported(run: Run, split: NamedSplit, arguments: argparse.Namespace, device: str) -> None:
    """Measure the exported model, and compare it with the trained network where that has been measured."""
    from paddle_resnet.console import share_bar
    from paddle_resnet.evaluation import measure_split, metrics_section, warn_of_few_images
    from paddle_resnet.inference import Predictor

    precision = arguments.precision
    trained = run.metrics().get(metrics_section(split.name))
    with (
        Predictor(run.inference_path, device, precision, backend=arguments.backend) as predictor,
        share_bar("evaluate") as progress,
    ):
        what = f"{predictor.precision} by {predictor.backend}"
        evaluation = measure_split(run, predictor, split, progress)
    section = f"exported_{split.name}" + (f"_{precision}" if precision else "")
    run.update_metrics(section, evaluation.summary() | ({"data": str(split.path)} if split.path else {}))
    warn_of_few_images(split, evaluation)
    _print_metrics(f"{split.title}, exported model, {what}", evaluation)
    if trained:
        points = 100 * (evaluation.top1 - trained["top1"])
        print(f"the trained network's top-1 was {trained['top1']:.2%}: a difference of {points:+.2f} points")
    print(f"numbers in {run.metrics_path}")


def _print_metrics(what: str, evaluation: Evaluation) -> None:
    from paddle_resnet.console import console
    from paddle_resnet.evaluation.metrics import confused_pairs
    from paddle_resnet.results import accuracy_text

    table = program.table("class", "precision", "recall", "F1", "images")
    for result in evaluation.per_class:
        metrics = (f"{value:.1%}" for value in (result.precision, result.recall, result.f1))
        table.add_row(result.name, *metrics, str(result.support))
    console.print(table)
    print(f"{what}: {counted(evaluation.images, 'image')} in {evaluation.seconds:.1f} s")
    print(f"top-1 {evaluation.top1_text()}")
    if "top5" in evaluation.summary():
        print(f"top-5 {accuracy_text(evaluation.top5, evaluation.images)}")
    area = "" if evaluation.roc_auc is None else f"   ROC-AUC {evaluation.roc_auc:.4f}"
    error = f"calibration error {evaluation.calibration.error:.2%}"
    print(f"mean loss {evaluation.loss:.4f} nats   macro F1 {evaluation.f1:.2%}{area}   {error}")
    for pair in confused_pairs(evaluation, PRINTED_PAIRS):
        true, predicted = (shown(evaluation.classes[label]) for label in pair[:2])
        print(f"  {true} taken for {predicted}: {pair.images} of {pair.support}")
