"""Draw training images as the config's augmentation changes them, before training.

examples:
  paddle-resnet preview -c configs/resnet18_cifar10.yaml
  paddle-resnet preview -c configs/finetune_folder.yaml -o data.root=photos -o augment.rotate=15 --output preview.png

Each row is an image, as it is stored and in eight draws. Mixup and CutMix mix these images with each other.
"""

from __future__ import annotations

import argparse

from paddle_resnet.cli import parsing, program

IMAGES, DRAWS = 8, 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", required=True, metavar="FILE", help="the config, a YAML file of configs/")
    parsing.add_overrides(parser)
    drawn = "the picture; default: <output>/<name>_preview.png"
    parser.add_argument("--output", metavar="FILE.png", type=parsing.file_with(".png"), help=drawn)


def main(arguments: argparse.Namespace) -> None:
    from paddle_resnet.config import Config

    config = Config.load(arguments.config, arguments.overrides)
    program.prepare()
    import numpy as np

    from paddle_resnet import runtime
    from paddle_resnet.data import Normalize, TrainLoader, open_splits
    from paddle_resnet.images.decode import resize_and_crop_batch
    from paddle_resnet.plots.image_grids import draw_augmentations
    from paddle_resnet.plots.style import save_figure

    runtime.select_device(config.device)
    splits = open_splits(config.data)
    train, size = splits.train, config.data.image_size
    _, firsts = np.unique(train.labels, return_index=True)
    others = np.setdiff1d(np.arange(min(len(train), IMAGES + len(firsts))), firsts)
    chosen = np.concatenate([firsts, others])[:IMAGES]  # of as many classes as possible
    normalize = Normalize(splits.mean, splits.std)
    loader = TrainLoader(train, IMAGES, size, splits.resize, normalize, config.augment, config.train.seed)
    originals = resize_and_crop_batch(train.batch(chosen), splits.resize, size)
    draws = list(loader.preview(chosen, DRAWS))
    path = arguments.output or config.run_folder.with_name(f"{config.run_folder.name}_preview.png")
    title = f"{config.data.source}: {len(chosen)} training images, {DRAWS} augmentations of each"
    save_figure(path, lambda: draw_augmentations(originals, draws, title))
    print(f"{len(chosen)} training images in {DRAWS} draws: {path}")
