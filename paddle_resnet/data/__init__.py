"""Datasets divided into three splits, augmentation of whole batches, and loaders."""

from paddle_resnet.data.datasets.open_splits import open_splits
from paddle_resnet.data.loader import TrainLoader, ValidationLoader, uint8_batches
from paddle_resnet.data.normalize import Normalize
from paddle_resnet.data.splits import MemorySplit, Split, Splits

__all__ = [
    "MemorySplit",
    "Normalize",
    "Split",
    "Splits",
    "TrainLoader",
    "ValidationLoader",
    "open_splits",
    "uint8_batches",
]
