"""Training layers on the oneDNN library inside Paddle's wheel: CPU, float32.

Eager Paddle never calls the oneDNN it carries; its convolution is several times slower. `accelerate(network)` gives a
network's layers to that library, called through ctypes: no compiler, no new dependency.
"""

from paddle_resnet.onednn.accelerate import accelerate, is_accelerated, restore
from paddle_resnet.onednn.availability import unavailable_reason

__all__ = ["accelerate", "is_accelerated", "restore", "unavailable_reason"]
