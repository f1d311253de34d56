"""Train a network as a config says, then measure it once on the whole test split.

examples:
  paddle-resnet train -c configs/resnet18_cifar10.yaml
  paddle-resnet train -c configs/resnet20_cifar10.yaml -o train.epochs=3 -o data.root=/path/to/archives
  paddle-resnet train -c configs/finetune_folder.yaml -o data.root=photos -o name=my-photos
  paddle-resnet train -c output/run/config.yaml          (the same run once more)
  paddle-resnet train --resume output/run                (go on with a run that was stopped)
  paddle-resnet train -c configs/quickstart.yaml --resume auto       (go on with it if it has begun)
  paddle-resnet train -c configs/quickstart.yaml -o "train.seeds=[0, 1, 2]"
  python -m paddle.distributed.launch --nproc_per_node 2 tools/train.py -c configs/quickstart.yaml

-o takes any key of the config (--print-config shows them all). Everything is written to the run's folder,
<output>/<name>: config.yaml, data.json, metrics.json, history.csv, train.log, vdl/, checkpoints/{last,best}/, figures/.
An earlier run of that name is kept beside it. Watch the curves with: visualdl --logdir output
Ctrl-C, SIGTERM or SIGHUP ends the step, saves, and exits with 130, 143 or 129; a second one ends it at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from paddle_resnet.cli import program
from paddle_resnet.config import Config
from paddle_resnet.errors import UsageError, command, counted

if TYPE_CHECKING:
    from paddle_resnet.training import RunFolder, SeedReport


def main() -> None:
    """Parse the arguments and train."""
    parser = program.command_parser(__doc__)
    parser.add_argument("-c", "--config", metavar="FILE", help="the config, a YAML file of configs/")
    parser.add_argument(
        "-o", "--override", action="append", default=[], metavar="KEY=VALUE", help="change one key; may be repeated"
    )
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with the run in this folder; auto: with the one that the config names, if it has begun",
    )
    parser.add_argument("--print-config", action="store_true", help="print the resolved config and stop")
    program.run(parser, _train, results_in_files=True)


def _train(arguments: argparse.Namespace) -> None:
    goes_on = arguments.resume is not None
    named = goes_on and arguments.resume != "auto"
    if named == (arguments.config is not None):
        raise UsageError("expected -c FILE, -c FILE --resume auto, or --resume RUN")
    config = None if named else Config.load(arguments.config, arguments.override)
    if arguments.print_config:
        config = config or Config.load(Path(arguments.resume) / "config.yaml", arguments.override)
        print(config.to_yaml(), end="")
        return
    program.prepare(multi_process=True)
    from paddle_resnet.training import RunFolder, report_seeds, train, train_or_resume, train_seeds

    if config is None:
        run = RunFolder.open(arguments.resume, arguments.override)
    else:
        run = RunFolder(config.run_folder, config)
    if run.config.train.seeds is not None:
        runs = train_seeds(run, go_on=goes_on)
        for each in runs:
            _test_once(each)
        _print_seeds(run, report_seeds(run, runs))
    else:
        _test_once(train_or_resume(run) if goes_on else train(run.config))


def _test_once(run: RunFolder) -> None:
    """Measure a trained run on the test split, unless it was, and show its mistakes on the validation split.

    Several processes do so together.
    """
    from paddle_resnet import distributed
    from paddle_resnet.evaluation import evaluate_run, show_validation_mistakes

    tested = bool(distributed.all_reduce_max(distributed.is_main_process() and "test" in run.metrics()))
    evaluation = None
    if not tested:
        show_validation_mistakes(run)
        evaluation = evaluate_run(run, split="test")
    if not distributed.is_main_process():
        return
    if evaluation is None:
        print(f"{run.path} is finished; its figures are in {run.metrics_path}")
        return
    print(
        f"test: top-1 {evaluation.top1:.2%} on {counted(evaluation.images, 'image')}, mean loss {evaluation.loss:.4f}"
    )
    print(f"everything is in {run.path}")
    print(f"next: {command('export')} {run.path}")


def _print_seeds(run: RunFolder, report: SeedReport) -> None:
    """Print a line for each seed, then what they come to."""
    columns = (report.validation_top1, report.test_top1)
    print(f"{'seed':<16}{'validation top-1':>18}{'test top-1':>18}")
    for seed, *values in zip(report.seeds, *(column.values for column in columns), strict=True):
        print(f"{seed:<16}" + "".join(f"{value:>18.2%}" for value in values))
    print(f"{'mean':<16}" + "".join(f"{column.mean:>18.2%}" for column in columns))
    deviations = ["-" if column.std is None else f"{column.std:.2%}" for column in columns]
    print(f"{'std (n - 1)':<16}" + "".join(f"{deviation:>18}" for deviation in deviations))
    print(f"n = {len(report.seeds)}; figures in {run.metrics_path}")
