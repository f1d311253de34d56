"""PyTorch's weight files (``.pth``, ``.pt``), read without PyTorch: the pickle as data, the numbers by numpy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from paddle_resnet.errors import UsageError, shown
from paddle_resnet.models.weights import torch_pickle
from paddle_resnet.models.weights.element_types import limit_sharing, widened_bfloat16
from paddle_resnet.models.weights.names import StoredWeights
from paddle_resnet.models.weights.torch_archive import TorchArchive, open_archive
from paddle_resnet.models.weights.torch_pickle import Storage, Tensor
from paddle_resnet.safe_pickle import kind_of

# Where checkpoints keep the state dict, beside the optimizer's and the epoch.
_KEYS_OF_STATE_DICT = ("state_dict", "model_state_dict", "model_state", "model", "network", "net")


def read_torch(path: Path) -> StoredWeights:
    """Read the state dict in a file of `torch.save` (PyTorch 1.6 or later), alone or inside a checkpoint.

    Raises:
        UsageError: the file is damaged, too old, asks for code, or holds no state dict.
        OSError: the file cannot be read.
    """
    with open_archive(path) as archive:
        tensors = _state_dict(torch_pickle.load(archive.pickle(), str(path)), path)
        # Without the sign, lest a negative size makes up for an endless one.
        limit_sharing(sum(abs(math.prod(each.shape)) * _item_size(each.storage) for each in tensors.values()), path)
        storages: dict[Storage, np.ndarray] = {}
        arrays = {}
        for name, tensor in tensors.items():
            if tensor.storage not in storages:
                storages[tensor.storage] = _numbers(tensor.storage, archive)
            arrays[name] = _window(storages[tensor.storage], tensor, name, path)
    return StoredWeights(arrays, "torch")


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """Find the names and tensors in what the pickle holds."""
    if isinstance(content, dict):
        # A checkpoint may hold tensors beside it, such as the best accuracy in PyTorch's own ImageNet example.
        nested = [content[key] for key in _KEYS_OF_STATE_DICT if isinstance(content.get(key), dict)]
        content = nested[0] if nested else content
    if not isinstance(content, dict) or not content:
        raise UsageError(f"{path}: expected a state dict (names and tensors), found {kind_of(content)}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UsageError(
                f"{path}: expected names and tensors, but '{shown(name)}' holds {kind_of(value)}; "
                "save model.state_dict() with torch.save"
            )
    return dict(content)


def _numbers(storage: Storage, archive: TorchArchive) -> np.ndarray:
    """Read a storage: one dimension; bfloat16 as uint16."""
    dtype = _numpy_type(storage).newbyteorder(archive.byte_order)
    content = archive.storage(storage.key, storage.length * dtype.itemsize)
    return np.frombuffer(content, dtype).astype(dtype.newbyteorder("="), copy=False)


def _window(numbers: np.ndarray, tensor: Tensor, name: str, path: Path) -> np.ndarray:
    """See a storage as its tensor; numpy checks that the window is inside."""
    size = numbers.itemsize
    try:
        array: np.ndarray = np.ndarray(
            tensor.shape, numbers.dtype, numbers, tensor.offset * size, [stride * size for stride in tensor.strides]
        )
    except (TypeError, ValueError, OverflowError):
        raise UsageError(
            f"{path}: {shown(name)} does not lie inside its storage; the file is damaged: get it again"
        ) from None
    return widened_bfloat16(array) if tensor.storage.element_type == "bfloat16" else array


def _numpy_type(storage: Storage) -> np.dtype:
    return np.dtype("uint16" if storage.element_type == "bfloat16" else storage.element_type)


def _item_size(storage: Storage) -> int:
    return _numpy_type(storage).itemsize
