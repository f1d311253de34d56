"""Sources of images, augmentation of batches on the device, and loaders. Nothing here prints."""

from paddle_resnet.data.augment import Augment
from paddle_resnet.data.decode import decode_image
from paddle_resnet.data.image_folder import EXTENSIONS
from paddle_resnet.data.loader import TrainLoader, ValidationLoader, uint8_batches
from paddle_resnet.data.normalize import Normalize
from paddle_resnet.data.sources import open_splits
from paddle_resnet.data.splits import MemorySplit, Split, Splits

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
