"""Training layers on the oneDNN library inside Paddle's wheel: CPU, float32 or bfloat16.

Eager Paddle never calls the oneDNN in its own wheel; its convolution is several times slower. `accelerate(network)`
replaces a network's layers by ones that call that library through ctypes: no compiler, no new dependency.
"""

from paddle_resnet.onednn.acceleration import accelerate, replace_layers, restore
from paddle_resnet.onednn.availability import bfloat16_unavailable_reason, platform_reason, unavailable_reason
from paddle_resnet.onednn.layers import Precision

__all__ = [
    "Precision",
    "accelerate",
    "bfloat16_unavailable_reason",
    "platform_reason",
    "replace_layers",
    "restore",
    "unavailable_reason",
]
