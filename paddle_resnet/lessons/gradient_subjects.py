"""What the lesson on gradients measures: networks of two kinds and several depths, and batches of digits."""

from __future__ import annotations

from typing import TypeAlias

import paddle

from paddle_resnet.config import AugmentConfig, DataConfig
from paddle_resnet.data import Normalize, TrainLoader, open_splits
from paddle_resnet.lessons.gradient_norms import LayerGradients, without_batch_norm
from paddle_resnet.lessons.page import Page
from paddle_resnet.models import ImageClassifier, create_model

KINDS = ("plain", "resnet")
BATCH_SIZE = 32
IMAGE_SIZE = 32
SEED = 0

Key: TypeAlias = tuple[str, int]
"""A network: its kind and its depth."""


def digit_batches() -> TrainLoader:
    """Batches of the digits in a random order that is always the same."""
    config = DataConfig(source="digits", image_size=IMAGE_SIZE)
    splits = open_splits(config)
    return TrainLoader(
        splits.train,
        batch_size=BATCH_SIZE,
        image_size=IMAGE_SIZE,
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


def record_gradients(page: Page, name: str, gradients: LayerGradients) -> None:
    """Record what was measured of one network under names that begin with `name`."""
    page.record(
        **{
            f"{name}_relative": gradients.relative.tolist(),
            f"{name}_first_to_last": gradients.first_to_last,
            f"{name}_growth": gradients.growth,
            f"{name}_loss": gradients.loss,
        }
    )
