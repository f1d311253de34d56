"""What is measured, as plain data: trainings, single operations, and the backends that are compared."""

from __future__ import annotations

import importlib.util
import re
from typing import Literal, NamedTuple

from paddle_resnet.errors import UsageError, did_you_mean
from paddle_resnet.project_files import requirements_file

PASSES = ("forward", "backward")

PADDLE: dict[str, dict[str, str]] = {
    "onednn": {"cpu_backend": "onednn", "cpu_precision": "float32"},
    "onednn-bf16": {"cpu_backend": "onednn", "cpu_precision": "bfloat16"},
    "native": {"cpu_backend": "native"},
}
"""Backends of this project, and the keys of the config's group `train` that each sets."""

TORCH = {"torch": "float32", "torch-bf16": "bfloat16"}
"""PyTorch, and the type of its autocast."""


def paddle_backend(name: str) -> str:
    """Return the name of one of this project's backends; raise `UsageError` for another one."""
    if name not in PADDLE:
        raise UsageError(f"backend {name}: expected one of {', '.join(PADDLE)}{did_you_mean(name, list(PADDLE))}")
    return name


def require_torch() -> None:
    """Raise `UsageError` if PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise UsageError(f"--against torch: PyTorch is not installed: pip install -r {requirements_file('bench.txt')}")


LARGE_IMAGE = 96
"""From this size on, images are stored larger than the input and cut by random-resized crops, as photographs are."""

LEARNING_RATE = 0.01
"""Small, as the labels are random: after an overflow, arithmetic has another speed."""


class TrainCase(NamedTuple):
    """A combination, written ``resnet20@32x128``: resnet20 on images of 32x32 pixels in batches of 128."""

    network: str
    size: int
    batch: int

    def __str__(self) -> str:
        return f"{self.network}@{self.size}x{self.batch}"

    @classmethod
    def parse(cls, text: str) -> TrainCase:
        """Read ``network@sizexbatch``; raise `UsageError` for another form or fewer than 8 pixels a side."""
        found = re.fullmatch(r"(\w+)@(\d+)x(\d+)", text)
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


Operation = Literal["convolution", "bn_relu", "add_relu", "max_pool"]


class Kernel(NamedTuple):
    """One operation on images ``[batch, channels, side, side]``."""

    operation: Operation
    where: str
    batch: int
    channels: int
    side: int
    out_channels: int = 0
    size: int = 1
    stride: int = 1

    @property
    def name(self) -> str:
        shape = f"{self.batch}x{self.channels}x{self.side}x{self.side}"
        titles = {"bn_relu": "BN + ReLU", "add_relu": "add + ReLU", "max_pool": "max pool 3x3 /2"}
        if self.operation == "convolution":
            strided = f" /{self.stride}" if self.stride > 1 else ""
            return f"conv {self.size}x{self.size}{strided} to {self.out_channels}, {shape} ({self.where})"
        return f"{titles[self.operation]}, {shape} ({self.where})"

    @property
    def inputs(self) -> int:
        """The number of tensors that it takes."""
        return 2 if self.operation == "add_relu" else 1

    @property
    def convolution_sizes(self) -> tuple[int, int, int, int, int]:
        """The arguments of a convolution layer: channels in and out, size, stride, padding."""
        return self.channels, self.out_channels, self.size, self.stride, self.size // 2

    @property
    def unit(self) -> Literal["GFLOP/s", "GB/s"]:
        """The unit of what limits the operation: arithmetic, or memory."""
        return "GFLOP/s" if self.operation == "convolution" else "GB/s"

    def work(self) -> tuple[float, float]:
        """Return the work of the forward and of the backward pass, in 10^9 operations or bytes.

        A convolution's backward pass is two products as large as the forward one. The work of the other operations is
        every float32 tensor that must be read or written, once.
        """
        images = self.batch * self.channels * self.side**2
        if self.operation == "convolution":
            outputs = self.batch * self.out_channels * (self.side // self.stride) ** 2
            forward = 2 * outputs * self.channels * self.size**2 / 1e9
            return forward, 2 * forward
        if self.operation == "max_pool":
            moved = 4 * (images + images // 4) / 1e9
            return moved, moved
        # Forward, bn_relu reads one tensor and add_relu two, and both write one; backward, both read two and write one.
        tensors = 2 if self.operation == "bn_relu" else 3
        return 4 * tensors * images / 1e9, 4 * 3 * images / 1e9


KERNELS = (
    Kernel("convolution", "resnet20 stage 1", 128, 16, 32, 16, 3),
    Kernel("convolution", "resnet20 stage 2", 128, 16, 32, 32, 3, 2),
    Kernel("convolution", "resnet18@64 stage 1", 64, 64, 16, 64, 3),
    Kernel("convolution", "resnet18@224 stage 1", 16, 64, 56, 64, 3),
    Kernel("convolution", "resnet18@224 stage 2", 16, 64, 56, 128, 3, 2),
    Kernel("convolution", "resnet18@224 shortcut", 16, 64, 56, 128, 1, 2),
    Kernel("convolution", "resnet50@64 stage 1", 32, 64, 16, 256, 1),
    Kernel("convolution", "stem@224", 16, 3, 224, 64, 7, 2),
    Kernel("bn_relu", "resnet20 stage 1", 128, 16, 32),
    Kernel("bn_relu", "resnet18@224 stage 1", 16, 64, 56),
    Kernel("add_relu", "resnet20 stage 1", 128, 16, 32),
    Kernel("add_relu", "resnet18@224 stage 1", 16, 64, 56),
    Kernel("max_pool", "stem@224", 16, 64, 112),
)
