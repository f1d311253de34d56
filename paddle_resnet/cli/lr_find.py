"""Find a learning rate: train briefly at rates from tiny to far too large, and see where the loss falls and rises.

examples:
  paddle-resnet lr-find -c configs/quickstart.yaml
  paddle-resnet lr-find -c configs/resnet20_cifar10.yaml -o train.optimizer=adamw --to 1

The proposed rate is a tenth of the one with the least smoothed loss. It is meant for train.learning_rate, the peak of a
schedule. The sweep takes the steps of an epoch, at least 100, and ends when the loss diverges. Plot, table and VisualDL
curve are written to <output>/<name>_lr_find; no run changes.
"""

from __future__ import annotations

import argparse

from paddle_resnet.cli import parsing, program
from paddle_resnet.errors import UsageError, command, quoted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", required=True, metavar="FILE", help="the config, a YAML file of configs/")
    parsing.add_overrides(parser)
    rate = parsing.checked(float, lambda value: 0 < value < float("inf"), "a number above 0")
    parser.add_argument("--from", dest="lowest", type=rate, default=1e-5, help="the first rate (default: 1e-5)")
    parser.add_argument("--to", dest="highest", type=rate, default=10.0, help="the last rate (default: 10)")
    parsing.add_number(parser, "--steps", "steps of the sweep (default: an epoch's, at least 100)")


def main(arguments: argparse.Namespace) -> None:
    if arguments.lowest >= arguments.highest:
        raise UsageError(f"--from {arguments.lowest:g} must be below --to {arguments.highest:g}")
    from paddle_resnet.config import Config

    config = Config.load(arguments.config, arguments.overrides)
    program.prepare()
    from paddle_resnet.training.trials.lr_finder import find_learning_rate, sweep_folder, write_sweep

    sweep_folder(config)
    sweep = find_learning_rate(config, lowest=arguments.lowest, highest=arguments.highest, steps=arguments.steps)
    proposed = sweep.proposed
    print(f"proposed learning rate: {proposed:.2g} (a tenth of the one with the least smoothed loss)", flush=True)
    folder = write_sweep(sweep, config)
    print(f"plot: {folder / 'sweep.png'}; VisualDL: visualdl --logdir {quoted(str(folder))}")
    overrides = parsing.repeat_overrides(arguments.overrides, {"train.learning_rate": f"{proposed:.2g}"})
    print(f"next: {command('train', '-c', arguments.config, *overrides)}")
