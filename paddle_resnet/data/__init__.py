"""Datasets divided into three splits, augmentation of whole batches, and loaders."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paddle_resnet.data.datasets.open_splits import open_splits
    from paddle_resnet.data.loader import TrainLoader, ValidationLoader, uint8_batches
    from paddle_resnet.data.normalize import Normalize
    from paddle_resnet.data.splits import MemorySplit, Split, Splits
    from paddle_resnet.data.user_data import Loader

__all__ = [
    "Loader",
    "MemorySplit",
    "Normalize",
    "Split",
    "Splits",
    "TrainLoader",
    "ValidationLoader",
    "open_splits",
    "uint8_batches",
]
_MODULES = {"Normalize": "normalize", "MemorySplit": "splits", "Split": "splits", "Splits": "splits"}
_MODULES |= dict.fromkeys(("TrainLoader", "ValidationLoader", "uint8_batches"), "loader")
_MODULES |= {"open_splits": "datasets.open_splits", "Loader": "user_data"}


def __getattr__(name: str) -> Any:
    """Import what needs paddle at its first use: processes that decode images do not wait for it."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
