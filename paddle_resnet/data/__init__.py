"""Sources of images, augmentation of batches on the device, and loaders. Nothing here prints.

Each name is imported when it is first asked for: a process that only decodes pictures needs no paddle.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paddle_resnet.data.augment import Augment
    from paddle_resnet.data.decode import decode_image
    from paddle_resnet.data.loader import TrainLoader, ValidationLoader, uint8_batches
    from paddle_resnet.data.normalize import Normalize
    from paddle_resnet.data.sources import open_splits
    from paddle_resnet.data.splits import MemorySplit, Split, Splits
    from paddle_resnet.data.walk import EXTENSIONS

__all__ = [
    "EXTENSIONS",
    "Augment",
    "MemorySplit",
    "Normalize",
    "Split",
    "Splits",
    "TrainLoader",
    "ValidationLoader",
    "decode_image",
    "open_splits",
    "uint8_batches",
]

MODULES = {
    "EXTENSIONS": "walk",
    "Augment": "augment",
    "MemorySplit": "splits",
    "Normalize": "normalize",
    "Split": "splits",
    "Splits": "splits",
    "TrainLoader": "loader",
    "ValidationLoader": "loader",
    "decode_image": "decode",
    "open_splits": "sources",
    "uint8_batches": "loader",
}
"""Where each name stands."""


def __getattr__(name: str) -> Any:
    """Import the module of a name, and keep what it gave."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{MODULES[name]}"), name)
    return value
