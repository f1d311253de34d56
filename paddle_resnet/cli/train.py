"""Train a network from a config, then measure it once on the whole test split.

examples:
  paddle-resnet train -c configs/resnet18_cifar10.yaml
  paddle-resnet train -c configs/resnet20_cifar10.yaml -o train.epochs=3 -o data.root=/path/to/archives
  paddle-resnet train -c configs/finetune_folder.yaml -o data.root=photos -o name=my-photos
  paddle-resnet train -c output/run/config.yaml                (repeat a run)
  paddle-resnet train --resume output/run                      (resume a stopped run)
  paddle-resnet train --resume output/run -o train.epochs=30   (extend a run, finished or not, to 30 epochs)
  paddle-resnet train -c configs/quickstart.yaml --resume auto (resume it, or begin it)
  paddle-resnet train -c configs/quickstart.yaml --check       (try everything on 32 images, and keep nothing)
  paddle-resnet train -c configs/quickstart.yaml -o "train.seeds=[0, 1, 2]"
  python -m paddle.distributed.launch --nproc_per_node 2 tools/train.py -c configs/quickstart.yaml

-o changes any key of the config (--print-config shows them all). All files are in the run's folder,
<output>/<name>: config.yaml, data.json, metrics.json, history.csv, train.log, vdl/, checkpoints/{last,best}/, figures/.
An earlier run of that name is kept beside it. Watch the curves with: visualdl --logdir output
Ctrl-C, SIGTERM or SIGHUP finishes the step, saves, and exits with 130, 143 or 129; a second one exits at once.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddle_resnet.cli import parsing, program
from paddle_resnet.errors import UsageError, command, counted
from paddle_resnet.system import streams

CHECKED_IMAGES = 32

if TYPE_CHECKING:
    from paddle_resnet.config import Config
    from paddle_resnet.training import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", metavar="FILE", help="the config, a YAML file of configs/")
    parsing.add_overrides(parser)
    resumed = "resume the run in this folder; auto: the run of the config, if it has begun"
    parser.add_argument("--resume", metavar="RUN", help=resumed)
    tried = f"train, measure, export and predict with {CHECKED_IMAGES} images in a temporary folder, in seconds"
    parser.add_argument("--check", action="store_true", help=tried)
    parser.add_argument("--print-config", action="store_true", help="print the resolved config and stop")


def main(arguments: argparse.Namespace) -> None:
    resumes = arguments.resume is not None
    has_folder = resumes and arguments.resume != "auto"
    if arguments.check and resumes:
        raise UsageError("--check tries a config, -c FILE, and resumes no run")
    if has_folder == (arguments.config is not None):
        raise UsageError("expected -c FILE, -c FILE --resume auto, or --resume RUN")
    from paddle_resnet.config import Config

    if arguments.print_config:
        streams.set_output_may_be_lost(False)
        file = Path(arguments.resume) / "config.yaml" if has_folder else arguments.config
        print(Config.load(file, arguments.overrides).to_yaml(), end="")
        return
    config = None if has_folder else Config.load(arguments.config, arguments.overrides)
    program.prepare(multi_process=not arguments.check)
    from paddle_resnet.training import Run, SeedsFailed, train, train_or_resume, train_seeds

    run = Run.open(arguments.resume, arguments.overrides) if config is None else Run(config.run_folder, config)
    if "tensorboard" in run.config.tracking:
        program.require("tensorboard", "tensorboard")
    if arguments.check:
        _check(run.config)
        return
    if run.config.train.seeds is not None:
        try:
            runs = train_seeds(run, resume=resumes)
        except SeedsFailed as failure:
            _test_seeds(run, failure.runs)
            raise
        _test_seeds(run, runs)
    else:
        _test_once(train_or_resume(run) if resumes else train(run.config))


def _check(config: Config) -> None:
    """Train two steps, measure, export and predict as `config` says, with a few images and in a temporary folder."""
    from PIL import Image

    from paddle_resnet.console import least_log_level
    from paddle_resnet.data import open_splits
    from paddle_resnet.evaluation import evaluate
    from paddle_resnet.exporting import export
    from paddle_resnet.inference import Predictor
    from paddle_resnet.training import train

    began = time.monotonic()

    def report(what: str) -> None:
        print(f"{time.monotonic() - began:5.1f} s  {what}")

    data = config.data.model_copy(update={"limit": CHECKED_IMAGES, "check": False})
    with tempfile.TemporaryDirectory(prefix="paddle-resnet-check-") as folder, least_log_level(logging.ERROR):
        images = len(open_splits(data).train)
        report(f"{images} training images are read")
        small: dict[str, Any] = {"epochs": 1, "batch_size": max(1, images // 2), "accumulate": 1, "freeze_epochs": 0}
        small |= {"minutes": None, "extended_from": (), "seeds": None, "patience": None, "stop_mixing": 0.0}
        if config.train.class_weights == "balanced":  # some classes have no image among these
            small["class_weights"] = "none"
        trying = {"name": "check", "output": Path(folder), "data": data, "train": config.train.model_copy(update=small)}
        run = train(config.model_copy(update=trying))
        report("two steps are trained, and validation is measured")
        report(f"evaluation: {counted(evaluate(run, checkpoint='last').images, 'test image')}")  # without plots
        export(run)
        report("the exported model gives the network's probabilities")
        with Predictor(run.inference_path, device=config.device) as predictor:
            test = run.splits().test
            pictures = [Path(folder) / f"{index}.png" for index in range(len(test))]
            for index, picture in enumerate(pictures):
                Image.fromarray(test.batch([index])[0]).save(picture)
            predictions = list(predictor.predict(pictures))
        report(f"prediction: {counted(len(predictions), 'image')}")
    print(f"the check has passed, and nothing of it is kept; next: {command('train')} without --check")


def _test_once(run: Run) -> None:
    """Measure a trained run on the test split and draw its validation mistakes, unless that is done already."""
    from paddle_resnet import distributed
    from paddle_resnet.evaluation import evaluate, show_validation_mistakes

    if distributed.all_reduce_max(distributed.is_main_process() and "test" in run.metrics()):
        if distributed.is_main_process():
            print(f"{run.path} is finished; its metrics are in {run.metrics_path}")
        return
    show_validation_mistakes(run)
    found = evaluate(run, split="test")
    if distributed.is_main_process():
        print(f"test: top-1 {found.top1_text()}; {counted(found.images, 'image')}, mean loss {found.loss:.4f}")
        print(f"all files are in {run.path}")
        print(f"next: {command('export', run.path)}")


def _test_seeds(run: Run, seeds: list[Run]) -> None:
    """Measure the run of each seed on the test split, and print a table with mean and standard deviation."""
    from paddle_resnet.training import report_seeds

    if not seeds:
        return
    for each in seeds:
        _test_once(each)
    report = report_seeds(run, seeds)
    named = {"validation top-1": report.validation_top1, "test top-1": report.test_top1}
    if report.single_view_top1 is not None:
        named["not averaged"] = report.single_view_top1
    columns = list(named.values())
    print(f"{'seed':<16}" + "".join(f"{name:>18}" for name in named))
    for seed, *values in zip(report.seeds, *(column.values for column in columns), strict=True):
        print(f"{seed:<16}" + "".join(f"{value:>18.2%}" for value in values))
    print(f"{'mean':<16}" + "".join(f"{column.mean:>18.2%}" for column in columns))
    deviations = [f"{column.std:.2%}" if column.runs > 1 else "-" for column in columns]
    print(f"{'std (n - 1)':<16}" + "".join(f"{deviation:>18}" for deviation in deviations))
    print(f"n = {len(report.seeds)}; metrics in {run.metrics_path}")
