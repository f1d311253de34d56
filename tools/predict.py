#!/usr/bin/env python3
"""Classify picture files with an exported model: the most probable classes of each, in a table.

examples:
  python tools/predict.py output/quickstart/inference seven.png
  python tools/predict.py output/quickstart photos/                      the folder and all folders in it
  python tools/predict.py output/quickstart photos/ --top-k 1 --csv answers.csv --json answers.json

Pictures may have any size, mode and rotation: they are scaled and cropped as inference.yml says. A file that is no
picture is reported, and the others are still answered. Folders are answered batch by batch, in bounded memory.

  --csv   columns file, class, probability, class_2, probability_2 ... up to --top-k
  --json  a list of {"file": ..., "top": [{"class": ..., "probability": ...}, ...]}

exit code: 0 all pictures answered; 1 some could not be read; 2 none could, or the command was wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import cli
from paddle_resnet import runtime
from paddle_resnet.errors import RunFailure, UsageError

if TYPE_CHECKING:
    from paddle_resnet.deploy import Prediction, Predictor

LONGEST_CLASS = 24


def main() -> None:
    """Parse the arguments and classify."""
    parser = cli.described(__doc__)
    parser.add_argument("model", metavar="MODEL_DIR", help="an exported model, or the run's folder that holds one")
    parser.add_argument("pictures", metavar="FILE_OR_FOLDER", nargs="+", type=Path, help="what to classify")
    parser.add_argument(
        "--top-k", type=cli.positive, default=5, metavar="K", help="classes for each picture; default: 5"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the answers as CSV too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the answers as JSON too")
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu, gpu or gpu:<i>; default: auto")
    parser.add_argument(
        "--batch-size", type=cli.positive, default=32, metavar="N", help="pictures at once; default: 32"
    )
    parser.add_argument(
        "--threads",
        type=cli.positive,
        metavar="N",
        help="CPU threads; default: OMP_NUM_THREADS, else the physical cores",
    )
    cli.run_tool(parser, _predict)


def _predict(arguments: argparse.Namespace) -> None:
    # Not cli.prepare(): its log lines would stand in the table, which is read by programs too.
    runtime.import_paddle()
    from paddle_resnet.deploy import Predictor
    from paddle_resnet.deploy.answer_files import csv_answers, json_answers

    with ExitStack() as open_files:
        predictor = open_files.enter_context(
            Predictor(arguments.model, arguments.device, arguments.threads, arguments.batch_size)
        )
        top_k = min(arguments.top_k, len(predictor.classes))
        takers = [_table(predictor, top_k)]
        if arguments.csv:
            takers.append(open_files.enter_context(csv_answers(arguments.csv, top_k)).add)
        if arguments.json:
            takers.append(open_files.enter_context(json_answers(arguments.json)).add)
        answered, failed = _classify(predictor, arguments.pictures, top_k, takers)
        if answered == 0:
            # Each picture's own line has said why.
            sys.exit(UsageError.exit_code)
    if failed:
        raise RunFailure(f"{failed} of {answered + failed} pictures could not be read; the others are answered")


def _classify(
    predictor: Predictor, pictures: list[Path], top_k: int, takers: list[Callable[[Prediction], None]]
) -> tuple[int, int]:
    """Give each answer to all takers and report what cannot be read; return how many were answered and how many not."""
    from paddle_resnet.deploy.classify import Unreadable, classify_files

    answered = failed = 0
    for answer in classify_files(predictor, pictures, top_k):
        if isinstance(answer, Unreadable):
            failed += 1
            sys.stdout.flush()
            print(f"error: {_printable(answer.reason)}", file=sys.stderr)
            continue
        answered += 1
        for take in takers:
            take(answer)
    return answered, failed


def _table(predictor: Predictor, top_k: int) -> Callable[[Prediction], None]:
    """Make what prints a row for each prediction as it comes; the columns are as wide as the class names."""
    width = min(LONGEST_CLASS, max(map(len, predictor.classes)))
    ranks = [f"{'top-' + str(rank):{width + 7}}" for rank in range(1, top_k + 1)]
    header = ["  ".join([*ranks, "file"])]

    def print_row(prediction: Prediction) -> None:
        if header:
            print(header.pop())
        cells = [f"{_printable(label)[:width]:{width}} {probability:6.1%}" for label, probability in prediction.top]
        print("  ".join([*cells, _printable(prediction.name)]))

    return print_row


def _printable(text: str) -> str:
    """Escape what a terminal would obey or cannot show (a file's name is any bytes)."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


if __name__ == "__main__":
    main()
