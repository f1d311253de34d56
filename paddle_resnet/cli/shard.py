"""Write the images of any source to tar archives (WebDataset's format), for disks that are slow with many small files.

examples:
  paddle-resnet shard -c configs/finetune_folder.yaml -o data.root=photos --output photos-shards
  paddle-resnet shard -c configs/resnet20_cifar10.yaml --output cifar10-shards --megabytes 50

Writes train-000000.tar, ..., val-*.tar, test-*.tar and classes.txt: the same division as a training's, files copied as
they are, images of archives as PNG. Train on them with -o data.source=image_shards -o data.root=FOLDER.
"""

from __future__ import annotations

import argparse

from paddle_resnet.cli import parsing, program
from paddle_resnet.errors import command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", required=True, metavar="FILE", help="the config, a YAML file of configs/")
    parsing.add_overrides(parser)
    parser.add_argument("--output", required=True, type=parsing.path, metavar="DIR", help="a new folder for the shards")
    parsing.add_number(parser, "--megabytes", "of a shard (default: 256)", default=256)


def main(arguments: argparse.Namespace) -> None:
    from paddle_resnet.config import Config

    config = Config.load(arguments.config, arguments.overrides)
    program.prepare()
    from paddle_resnet.data import open_splits
    from paddle_resnet.data.datasets.image_shards import write_shards

    counts = write_shards(open_splits(config.data), arguments.output, arguments.megabytes, config.data.split_seed)
    print(f"{arguments.output}: {', '.join(f'{count:,} images in {name}' for name, count in counts.items())}")
    of_other_sources = ("pattern", "train_list", "validation_list", "test_list", "class_names")
    changed = {f"data.{key}": "null" for key in of_other_sources if getattr(config.data, key) is not None}
    changed |= {"data.source": "image_shards", "data.root": arguments.output}
    print(f"next: {command('train', '-c', arguments.config, *parsing.repeat_overrides(arguments.overrides, changed))}")
