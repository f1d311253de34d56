"""What is trained in a measurement: a network, the size of its images, the size of its batches."""

from __future__ import annotations

import re
from typing import NamedTuple

from paddle import nn

from paddle_resnet.errors import UsageError
from paddle_resnet.models.summary import summarize

LARGE_IMAGE = 96
"""From this size on, pictures are photographs: stored larger than they are seen, and cut by random-resized crops."""


class TrainCase(NamedTuple):
    """One combination, written ``resnet20@32x128``: the network at 32x32 pixels in batches of 128."""

    network: str
    size: int
    batch: int

    def __str__(self) -> str:
        return f"{self.network}@{self.size}x{self.batch}"

    @classmethod
    def parse(cls, text: str) -> TrainCase:
        """Read ``network@sizexbatch``.

        Raises:
            UsageError: it is written in another way, or the images have fewer than 8 pixels a side.
        """
        found = re.fullmatch(r"(\w+)@(\d+)x(\d+)", text)
        if not found or int(found[2]) < 8 or int(found[3]) < 1:
            raise UsageError(f"case {text}: expected network@sizexbatch with a size of at least 8, as resnet20@32x128")
        return cls(found[1], int(found[2]), int(found[3]))

    @property
    def stored_size(self) -> int:
        """Pixels a side of the stored pictures: 256 for 224, as for ImageNet."""
        return round(self.size * 256 / 224) if self.size >= LARGE_IMAGE else self.size

    @property
    def config(self) -> dict[str, dict[str, object]]:
        """The groups of a run's config: usual augmentation for the size, SGD with Nesterov momentum."""
        small: dict[str, object] = {"pad": self.size // 8, "flip": True}
        return {
            "data": {"image_size": self.size, "resize": self.stored_size},
            "augment": {"scale": [0.35, 1.0], "flip": True} if self.size >= LARGE_IMAGE else small,
            "model": {"name": self.network},
            "train": {"batch_size": self.batch, "learning_rate": LEARNING_RATE, "epochs": 1},
        }


LEARNING_RATE = 0.01
"""Small: the labels are random, and numbers that overflow are computed at another speed."""

TRAIN_CASES = tuple(map(TrainCase.parse, ("resnet20@32x128", "resnet18@64x64", "resnet18@224x16", "resnet50@64x32")))


TRAINING_PASSES = 3
"""The forward product, and in the backward pass one for the images' gradient and one for the weights'."""


def multiply_accumulates(network: nn.Layer, size: int) -> int:
    """Count those of the convolutions and the linear layers for one image ``[3, size, size]``, forward."""
    return summarize(network, (1, 3, size, size)).macs


def training_operations(network: nn.Layer, size: int) -> int:
    """Floating-point operations of one image in training: a multiply-accumulate is two, and there are three passes."""
    return 2 * TRAINING_PASSES * multiply_accumulates(network, size)
