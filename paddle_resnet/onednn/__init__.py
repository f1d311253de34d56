"""Layers on the oneDNN library inside Paddle's wheel: CPU, float32 or bfloat16; and whole networks for inference.

Eager Paddle never calls the oneDNN in its own wheel; its convolution is several times slower. `accelerate(network)`
replaces a network's layers by ones that call that library through ctypes: no compiler, no new dependency. `recording`
runs an exported network; it needs the library, but not Paddle, so that the names of this package are imported at their
first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paddle_resnet.onednn.acceleration import accelerate, accelerate_evaluation, replace_layers, restore
    from paddle_resnet.onednn.availability import bfloat16_unavailable_reason, platform_reason, unavailable_reason
    from paddle_resnet.onednn.layers import Precision

__all__ = [
    "Precision",
    "accelerate",
    "accelerate_evaluation",
    "bfloat16_unavailable_reason",
    "platform_reason",
    "replace_layers",
    "restore",
    "unavailable_reason",
]

_MODULES = {"Precision": "layers"} | dict.fromkeys(
    ("accelerate", "accelerate_evaluation", "replace_layers", "restore"), "acceleration"
)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'paddle_resnet.onednn' has no attribute {name!r}")
    return getattr(importlib.import_module(f"paddle_resnet.onednn.{_MODULES.get(name, 'availability')}"), name)
