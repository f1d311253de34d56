"""The operations of a residual network's training step at the shapes of its layers, and how they are timed."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any, Literal, NamedTuple

from paddle_resnet.timing import seconds

WARM_UP = 3
PASSES = ("forward", "backward")

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


def time_kernels(
    job: dict[str, Any],
    prepare: Callable[[Kernel], tuple[Callable[..., Any], list[Any]]],
    ones_like: Callable[[Any], Any],
) -> dict[str, Any]:
    """Measure the median speed of both passes of each kernel over ``job["repeats"]`` runs, in the kernel's unit.

    Args:
        job: has the keys `kernels` and `repeats`.
        prepare: makes the operation and its inputs, which require gradients.
        ones_like: makes the gradient of a result.
    """
    speeds = {}
    for kernel in (Kernel(*fields) for fields in job["kernels"]):
        operation, inputs = prepare(kernel)
        gradient = ones_like(operation(*inputs))
        results: list[Any] = []
        taken: dict[str, list[float]] = {name: [] for name in PASSES}
        for _ in range(WARM_UP + job["repeats"]):
            taken["forward"].append(seconds(lambda: results.append(operation(*inputs))))  # noqa: B023 (called at once)
            taken["backward"].append(seconds(lambda: results.pop().backward(gradient)))  # noqa: B023
        speeds[kernel.name] = {
            name: work / median(taken[name][WARM_UP:]) for name, work in zip(PASSES, kernel.work(), strict=True)
        }
    return {"speeds": speeds}
