"""Training layers on the oneDNN library inside Paddle's wheel: CPU, float32 or bfloat16.

Eager Paddle never calls the oneDNN it carries; its convolution is several times slower. `accelerate(network)` gives a
network's layers to that library, called through ctypes: no compiler, no new dependency.
"""

from paddle_resnet.onednn.accelerate import accelerate, is_accelerated, restore
from paddle_resnet.onednn.availability import bfloat16_unavailable_reason, platform_reason, unavailable_reason
from paddle_resnet.onednn.layers import Precision

__all__ = [
    "Precision",
    "accelerate",
    "bfloat16_unavailable_reason",
    "is_accelerated",
    "platform_reason",
    "restore",
    "unavailable_reason",
]
