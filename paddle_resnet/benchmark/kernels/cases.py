"""The operations of a residual network's step, at the shapes that its layers have."""

from __future__ import annotations

from typing import Literal, NamedTuple

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
        """What a table calls it."""
        shape = f"{self.batch}x{self.channels}x{self.side}x{self.side}"
        titles = {"bn_relu": "BN + ReLU", "add_relu": "add + ReLU", "max_pool": "max pool 3x3 /2"}
        if self.operation == "convolution":
            strided = f" /{self.stride}" if self.stride > 1 else ""
            return f"conv {self.size}x{self.size}{strided} to {self.out_channels}, {shape} ({self.where})"
        return f"{titles[self.operation]}, {shape} ({self.where})"

    @property
    def unit(self) -> Literal["GFLOP/s", "GB/s"]:
        """What limits it: arithmetic, or memory."""
        return "GFLOP/s" if self.operation == "convolution" else "GB/s"

    def work(self) -> tuple[float, float]:
        """What the forward and the backward pass do, in 10^9 operations or bytes.

        A convolution's backward pass is two products as large as the forward one. Of the others, each float32 tensor
        that must be read or written counts once.
        """
        images = self.batch * self.channels * self.side**2
        if self.operation == "convolution":
            outputs = self.batch * self.out_channels * (self.side // self.stride) ** 2
            forward = 2 * outputs * self.channels * self.size**2 / 1e9
            return forward, 2 * forward
        if self.operation == "max_pool":
            moved = 4 * (images + images // 4) / 1e9
            return moved, moved
        # bn_relu reads x and writes y; add_relu reads two. Backward, both read two tensors and write one.
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
