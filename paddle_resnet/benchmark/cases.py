"""What is measured, as plain data: trainings, and the backends that are compared."""

from __future__ import annotations

import importlib.util
import re
from typing import NamedTuple

from paddle_resnet.errors import UsageError, require_one_of
from paddle_resnet.project_files import requirements_file

PADDLE: dict[str, dict[str, str]] = {
    "onednn": {"cpu_backend": "onednn", "cpu_precision": "float32"},
    "onednn-bf16": {"cpu_backend": "onednn", "cpu_precision": "bfloat16"},
    "native": {"cpu_backend": "native"},
}
"""Backends of this project, and the keys of the config's group `train` that each sets."""

TORCH = {"torch": "float32", "torch-bf16": "bfloat16"}  # PyTorch, and the type of its autocast


def paddle_backend(name: str) -> str:
    """Return the name of one of this project's backends; raise `UsageError` for another one."""
    require_one_of("backend", name, list(PADDLE))
    return name


def require_torch() -> None:
    """Raise `UsageError` if PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise UsageError(f"--against torch: PyTorch is not installed: pip install -r {requirements_file('bench.txt')}")


LARGE_IMAGE = 96
"""From this size on, images are stored larger than the input and cut by random-resized crops, as photographs are."""

LEARNING_RATE = 0.01  # small, as the labels are random: after an overflow, arithmetic has another speed


class TrainCase(NamedTuple):
    """A combination, written ``resnet20@32x128``: resnet20 on images of 32x32 pixels in batches of 128."""

    network: str
    size: int
    batch: int

    def __str__(self) -> str:
        return f"{self.network}@{self.size}x{self.batch}"

    @classmethod
    def parse(cls, text: str) -> TrainCase:
        """Read ``network@sizexbatch``; raise `UsageError` for another form, and for fewer than 8 pixels a side."""
        found = re.fullmatch(r"(\w+)@(\d{1,6})x(\d{1,6})", text)
        if not found or int(found[2]) < 8 or int(found[3]) < 1:
            raise UsageError(f"case {text}: expected network@sizexbatch with a size of at least 8, as resnet20@32x128")
        return cls(found[1], int(found[2]), int(found[3]))

    @property
    def stored_size(self) -> int:
        """Pixels a side of the stored images: 256 for 224, as for ImageNet."""
        return round(self.size * 256 / 224) if self.size >= LARGE_IMAGE else self.size

    @property
    def config(self) -> dict[str, dict[str, object]]:
        """The groups of a run's config, with the usual augmentation for the size."""
        small: dict[str, object] = {"pad": self.size // 8, "flip": True}
        return {
            "data": {"image_size": self.size, "resize": self.stored_size},
            "augment": {"scale": [0.35, 1.0], "flip": True} if self.size >= LARGE_IMAGE else small,
            "model": {"name": self.network},
            "train": {"batch_size": self.batch, "learning_rate": LEARNING_RATE, "epochs": 1},
        }


TRAIN_CASES = tuple(map(TrainCase.parse, ("resnet20@32x128", "resnet18@64x64", "resnet18@224x16", "resnet50@64x32")))
