"""What the lesson on gradients measures: networks of two kinds and several depths, and batches of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import paddle

from paddle_resnet.config import AugmentConfig, Config
from paddle_resnet.data import Normalize, TrainLoader, open_splits
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import Number, Page
from paddle_resnet.lessons.gradients.norms import LayerGradients, without_batch_norm
from paddle_resnet.models import ImageClassifier, create_model

KINDS = ("plain", "resnet")
BATCH_SIZE = 32
IMAGE_SIZE = 32
SEED = 0

Key: TypeAlias = tuple[str, int]
"""A network: its kind and its depth."""


def image_batches(effort: Effort) -> TrainLoader:
    """Batches of the digits, or of CIFAR-10 in the full form, in a random order that is always the same.

    Raises:
        UsageError: CIFAR-10 is asked for and cannot be got.
    """
    source = "cifar10" if effort.full else "digits"
    data = {"source": source, "image_size": IMAGE_SIZE}
    config = Config.from_values({"data": data}, effort.overrides).data
    splits = open_splits(config)
    return TrainLoader(
        splits.train,
        batch_size=BATCH_SIZE,
        image_size=config.image_size,
        resize=splits.resize,
        normalize=Normalize(splits.mean, splits.std),
        augment=AugmentConfig(),
        seed=SEED,
    )


def make_network(key: Key, *, batch_norm: bool = True) -> ImageClassifier:
    """Make a network with its first weights, of one seed; without `batch_norm`, the identity stands in its places."""
    kind, depth = key
    paddle.seed(SEED)
    network = create_model(f"{kind}{depth}")
    return network if batch_norm else without_batch_norm(network)


def scientific(value: float) -> str:
    """A number in two digits and a power of ten."""
    return f"{value:.1e}"


def multiple(value: float) -> str:
    """How many times: three digits, and a power of ten where the number is large."""
    return f"{value:.3g}" if value < 1000 else scientific(value)


def listed(names: Sequence[str], *, zh: bool = False) -> str:
    """Names in a row, or that there is none."""
    return ("、" if zh else ", ").join(names) or ("无" if zh else "none of them")


def recordable(value: float | np.ndarray) -> Number:
    """A number or numbers as JSON can hold them: "not finite" for what is none."""
    if isinstance(value, np.ndarray):
        return [recordable(float(each)) for each in value]
    return value if math.isfinite(value) else "not finite"


def record_gradients(page: Page, name: str, gradients: LayerGradients) -> None:
    """Record what was measured of one network under names that begin with `name`."""
    page.record(
        **{
            f"{name}_norms": recordable(gradients.norms),
            f"{name}_relative": recordable(gradients.relative),
            f"{name}_first_to_last": recordable(gradients.first_to_last),
            f"{name}_growth": recordable(gradients.growth),
            f"{name}_loss": recordable(gradients.loss),
        }
    )
