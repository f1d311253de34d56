#!/usr/bin/env python3
"""Train a network as a config says, then measure it once on the whole test split.

examples:
  python tools/train.py -c configs/resnet18_cifar10.yaml
  python tools/train.py -c configs/resnet20_cifar10.yaml -o train.epochs=3 -o data.root=/path/to/archives
  python tools/train.py -c configs/finetune_folder.yaml -o data.root=photos -o name=my-photos
  python tools/train.py -c output/run/config.yaml          (the same run once more)

-o takes any key of the config (--print-config shows them all). Everything is written to the run's folder,
<output>/<name>: config.yaml, metrics.json, history.csv, train.log, vdl/, checkpoints/{last,best}/, figures/.
An earlier run of that name is kept beside it. Watch the curves with: visualdl --logdir output
"""

from __future__ import annotations

import argparse

import cli
from paddle_resnet.config import Config


def main() -> None:
    """Parse the arguments and train."""
    parser = cli.described(__doc__)
    parser.add_argument("-c", "--config", required=True, metavar="FILE", help="the config, a YAML file of configs/")
    parser.add_argument(
        "-o", "--override", action="append", default=[], metavar="KEY=VALUE", help="change one key; may be repeated"
    )
    parser.add_argument("--print-config", action="store_true", help="print the resolved config and stop")
    cli.run_tool(parser, _train)


def _train(arguments: argparse.Namespace) -> None:
    config = Config.load(arguments.config, arguments.override)
    if arguments.print_config:
        print(config.to_yaml(), end="")
        return
    cli.prepare()
    from paddle_resnet.evaluation import evaluate_run
    from paddle_resnet.training import train

    run = train(config)
    evaluation = evaluate_run(run, split="test")
    print(f"test: top-1 {evaluation.top1:.2%} on {evaluation.images} images, mean loss {evaluation.loss:.4f}")
    print(f"everything is in {run.path}")
    print(f"next: python tools/export.py {run.path}")


if __name__ == "__main__":
    main()
