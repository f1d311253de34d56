"""From a config to three splits: ``open_splits(config.data)``."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from paddle_resnet.config.schema import DataConfig
from paddle_resnet.config.value_types import PerChannel
from paddle_resnet.data.datasets.cifar import CIFAR10, CIFAR100, load_cifar
from paddle_resnet.data.datasets.fashion_mnist import load_fashion_mnist
from paddle_resnet.data.datasets.open_files import FILE_SOURCES, open_files
from paddle_resnet.data.normalize import IMAGENET_MEAN, IMAGENET_STD
from paddle_resnet.data.splits import MemorySplit, OfficialSplits, Split, Splits, hold_out, within_limit
from paddle_resnet.download import ProgressFn
from paddle_resnet.errors import UsageError
from paddle_resnet.images import Indices, Pixels

MEAN_AND_STD: dict[str, tuple[PerChannel, PerChannel]] = {
    # Over scikit-learn's 1,797 images.
    "digits": ((0.3053, 0.3053, 0.3053), (0.3760, 0.3760, 0.3760)),
    # Over the training images, as published everywhere.
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "fashion_mnist": ((0.2860, 0.2860, 0.2860), (0.3530, 0.3530, 0.3530)),
    **dict.fromkeys(FILE_SOURCES, (IMAGENET_MEAN, IMAGENET_STD)),
}


def open_splits(config: DataConfig, progress: ProgressFn | None = None) -> Splits:
    """Open a source and divide it into three splits; the same config always gives the same division.

    Args:
        config: the `data` group of a run's config.
        progress: called with (bytes so far, bytes in all) during a download.

    Raises:
        UsageError: missing, damaged or other data; the line says what to do.
        RunFailure: a download cannot be written.
    """
    train, validation, test, classes = _open(config, progress)
    for part in (train, validation, test):
        if config.limit is not None and isinstance(part, MemorySplit):
            part.keep(within_limit(part.labels, config.limit))
    return Splits(train, validation, test, classes, *mean_and_std(config), resize_size(config))


def mean_and_std(config: DataConfig) -> tuple[PerChannel, PerChannel]:
    """Return the mean and standard deviation in 0..1: the config's own, or the source's."""
    mean, std = MEAN_AND_STD[config.source]
    return config.mean or mean, config.std or std


def resize_size(config: DataConfig) -> int:
    """Return the pixels of the shorter side before the crop: for photographs ImageNet's 256 to 224, else no crop."""
    if config.resize is not None:
        return config.resize
    if config.source in FILE_SOURCES and config.image_size >= 96:
        return round(config.image_size * 256 / 224)
    return config.image_size


def load_digits() -> tuple[Pixels, Indices]:
    """Load the 1,797 handwritten digits inside scikit-learn (UCI, Alpaydin and Kaynak 1998).

    Its file is read as its `load_digits` reads it, as its import takes a second.

    Returns:
        Images uint8 ``[1797, 8, 8, 3]``, the 17 grey levels spread over 0..255, and labels int64 ``[1797]``.

    Raises:
        UsageError: scikit-learn is not installed, or has no such file.
    """
    spec, name = importlib.util.find_spec("sklearn"), "datasets/data/digits.csv.gz"
    file = Path(spec.origin).parent / name if spec and spec.origin else None
    if file is None or not file.is_file():
        raise UsageError(f"data.source digits: no sklearn/{name} is installed: pip install scikit-learn")
    rows = np.loadtxt(file, delimiter=",")
    grey = np.rint(rows[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return np.repeat(grey[..., np.newaxis], 3, axis=-1), rows[:, -1].astype(np.int64)


def _open(config: DataConfig, progress: ProgressFn | None) -> tuple[Split, Split, Split, tuple[str, ...]]:
    root = config.root
    if config.source in FILE_SOURCES:
        return open_files(config, resize_size(config))
    if config.source == "digits":
        return _open_digits(config)
    if config.source == "fashion_mnist":
        return _hold_out_validation(load_fashion_mnist(root, config.verify, progress), config)
    edition = CIFAR10 if config.source == "cifar10" else CIFAR100
    return _hold_out_validation(load_cifar(edition, root, config.verify, progress), config)


def _open_digits(config: DataConfig) -> tuple[Split, Split, Split, tuple[str, ...]]:
    if config.root is not None:
        raise UsageError(
            f"data.root {config.root}: source digits is embedded and has no folder; leave it out, or set data.source "
            "(image_folder for a folder of pictures)"
        )
    images, labels = load_digits()
    rest, test = hold_out(labels, config.test_fraction, config.split_seed)
    kept, held = hold_out(labels[rest], config.validation_fraction, config.split_seed)
    train, validation, test_split = (
        MemorySplit(images, labels, "digit", positions) for positions in (rest[kept], rest[held], test)
    )
    return train, validation, test_split, tuple(str(digit) for digit in range(10))


def _hold_out_validation(official: OfficialSplits, config: DataConfig) -> tuple[Split, Split, Split, tuple[str, ...]]:
    kept, held = hold_out(official.train_labels, config.validation_fraction, config.split_seed)
    train, validation = (
        MemorySplit(official.train_images, official.train_labels, "train", positions) for positions in (kept, held)
    )
    test = MemorySplit(official.test_images, official.test_labels, "test")
    return train, validation, test, official.classes
