"""Networks as plain data, from which `torch_models` makes the same ones, and their number of operations."""

from __future__ import annotations

from typing import Any

from paddle_resnet.errors import UsageError
from paddle_resnet.models import create_model
from paddle_resnet.models.summary import summarize
from paddle_resnet.zoo.registry import ResNetEntry, model_entry

TRAINING_PASSES = 3
"""One product forward, and two backward: for the gradients of the images and of the weights."""


def describe(name: str) -> dict[str, Any]:
    """Describe a network of He et al. 2015 as JSON.

    Raises:
        UsageError: the name is unknown, or the network is none of the paper's.
    """
    entry = model_entry(name)
    if not (
        isinstance(entry, ResNetEntry)
        and entry.block in ("basic", "bottleneck")
        and entry.stem in ("imagenet", "cifar")
        and entry.shortcut in ("zero_pad", "projection")
        and (entry.groups, entry.group_width, entry.first_projection) == (1, 64, False)
    ):
        raise UsageError(
            f"{name}: not available in PyTorch here; choose a network of He et al. 2015, such as resnet20 or resnet50, "
            "or leave --against out"
        )
    return {
        "depths": entry.depths,
        "widths": entry.widths,
        "stem": entry.stem,
        "zero_pad": entry.shortcut == "zero_pad",
        "bottleneck": entry.block == "bottleneck",
        "num_classes": entry.num_classes,
    }


def training_operations(name: str, size: int) -> int:
    """Return the floating-point operations of training on an image ``[3, size, size]``; a multiply-accumulate is two.

    Those of convolutions and linear layers count.
    """
    return 2 * TRAINING_PASSES * summarize(create_model(name), (1, 3, size, size)).macs
