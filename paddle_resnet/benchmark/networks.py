"""The networks of He et al. 2015 as plain data, from which the same networks are made in PyTorch. Needs no torch."""

from __future__ import annotations

from typing import Any

from paddle_resnet.errors import UsageError

IMAGENET_DEPTHS = {
    "resnet18": [2, 2, 2, 2],
    "resnet34": [3, 4, 6, 3],
    "resnet50": [3, 4, 6, 3],
    "resnet101": [3, 4, 23, 3],
    "resnet152": [3, 8, 36, 3],
}
"""Table 1; from resnet50 on the blocks are bottlenecks."""


CIFAR_BLOCKS = {f"resnet{6 * n + 2}": n for n in (1, 2, 3, 5, 7, 9, 18)}
"""Section 4.2: blocks in each of three stages."""


def describe(name: str) -> dict[str, Any]:
    """Describe a network; JSON can hold it.

    Raises:
        UsageError: it is none of the paper's.
    """
    if name in CIFAR_BLOCKS:
        depths = 3 * [CIFAR_BLOCKS[name]]
        cifar = {"widths": [16, 32, 64], "stem": "cifar", "zero_pad": True, "bottleneck": False, "num_classes": 10}
        return {"depths": depths, **cifar}
    if name in IMAGENET_DEPTHS:
        imagenet = {"widths": [64, 128, 256, 512], "stem": "imagenet", "zero_pad": False, "num_classes": 1000}
        return {"depths": IMAGENET_DEPTHS[name], "bottleneck": name not in ("resnet18", "resnet34"), **imagenet}
    known = ", ".join([*IMAGENET_DEPTHS, *CIFAR_BLOCKS])
    raise UsageError(f"{name} has no twin in PyTorch: take one of {known}, or leave --against out")
