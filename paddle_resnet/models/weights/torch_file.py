"""Read PyTorch's weight files (``.pth``, ``.pt``) without PyTorch: the pickle as data, the numbers with numpy."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from paddle_resnet import safe_pickle
from paddle_resnet.errors import UsageError, shown
from paddle_resnet.models.weights.layout import bfloat16_to_float32, check_claimed_size
from paddle_resnet.models.weights.torch_archive import TorchArchive, open_archive
from paddle_resnet.models.weights.weights_file import WeightsFile
from paddle_resnet.safe_pickle import kind_of

# Keys of the state dict in checkpoints, beside the optimizer's state and the epoch.
_STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net")


def read_torch(path: Path) -> WeightsFile:
    """Read the state dict in a file of `torch.save` (PyTorch 1.6 or later), alone or inside a checkpoint.

    Raises:
        UsageError: the file is damaged, too old, asks for code, or holds no state dict.
        OSError: the file cannot be read.
    """
    with open_archive(path) as archive:
        tensors = _state_dict(load_pickle(archive.pickle(), str(path)), path)
        # abs: a negative size must not cancel out a huge one.
        sizes = (abs(math.prod(each.shape)) * _numpy_type(each.storage).itemsize for each in tensors.values())
        check_claimed_size(sum(sizes), path)
        storages: dict[Storage, np.ndarray] = {}
        arrays = {}
        for name, tensor in tensors.items():
            if tensor.storage not in storages:
                storages[tensor.storage] = _read_storage(tensor.storage, archive)
            arrays[name] = _view(storages[tensor.storage], tensor, name, path)
    return WeightsFile(arrays, "torch", "PyTorch")


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """Find the names and tensors in the pickle's content."""
    if isinstance(content, dict):
        # A checkpoint may hold tensors beside it, such as the best accuracy in PyTorch's own ImageNet example.
        nested = [content[key] for key in _STATE_DICT_KEYS if isinstance(content.get(key), dict)]
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


def _read_storage(storage: Storage, archive: TorchArchive) -> np.ndarray:
    """Read a storage as a one-dimensional array; bfloat16 as uint16."""
    dtype = _numpy_type(storage).newbyteorder(archive.byte_order)
    content = archive.storage(storage.key, storage.length * dtype.itemsize)
    return np.frombuffer(content, dtype).astype(dtype.newbyteorder("="), copy=False)


def _view(numbers: np.ndarray, tensor: Tensor, name: str, path: Path) -> np.ndarray:
    """View a storage as its tensor; numpy checks the bounds."""
    size = numbers.itemsize
    try:
        array: np.ndarray = np.ndarray(
            tensor.shape, numbers.dtype, numbers, tensor.offset * size, [stride * size for stride in tensor.strides]
        )
    except (TypeError, ValueError, OverflowError):
        raise UsageError(
            f"{path}: {shown(name)} is not inside its storage; the file is damaged: get it again"
        ) from None
    return bfloat16_to_float32(array) if tensor.storage.element_type == "bfloat16" else array


def _numpy_type(storage: Storage) -> np.dtype:
    return np.dtype("uint16" if storage.element_type == "bfloat16" else storage.element_type)


# PyTorch's storage classes in a pickle, and numpy's names of their element types.
_ELEMENT_TYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


class Storage(NamedTuple):
    """The reference to one record of numbers in the archive."""

    key: str  # the record's name is ``data/<key>``
    element_type: str  # numpy's name, or ``bfloat16``
    length: int  # in elements


class Tensor(NamedTuple):
    """A view of a storage, as the pickle describes it, unchecked."""

    storage: Storage
    offset: int  # elements before its first one
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # elements between neighbours along each axis


def load_pickle(content: bytes, name: str) -> Any:
    """Read ``data.pkl``: plain containers, with a `Tensor` for each tensor.

    Args:
        content: the pickle.
        name: the file's name in errors.

    Raises:
        UsageError: the pickle is damaged, or asks for a global that is not a tensor, container or setting.
    """
    return safe_pickle.load(
        io.BytesIO(content),
        name,
        rules=_RULES,
        persistent_load=_storage,
        remedy="if you trust the file, load it in PyTorch and save only model.state_dict()",
    )


def _storage(persistent_id: Any) -> Storage:
    """Read the reference to a record, ``("storage", class, key, location, length)``."""
    if type(persistent_id) is not tuple or len(persistent_id) != 5:
        raise safe_pickle.Damaged("a record's reference is no tuple of five")
    kind, element_type, key, _location, length = persistent_id
    if kind != "storage" or type(element_type) is not safe_pickle.Named or element_type.name not in _ELEMENT_TYPES:
        raise safe_pickle.Damaged(f"an unknown kind of record, {shown(kind)}")
    if type(key) is not str or type(length) is not int or abs(length) >= 1 << 63:
        raise safe_pickle.Damaged("a record without a name or a length")
    return Storage(key, _ELEMENT_TYPES[element_type.name], length)


def _rebuild_tensor(_spend: Any, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    """Replace `torch._utils._rebuild_tensor_v2`; ignore gradients and hooks."""
    if type(storage) is not Storage or type(offset) is not int or abs(offset) >= 1 << 63:
        raise safe_pickle.Damaged("a tensor without a storage or an offset")
    return Tensor(storage, offset, safe_pickle.check_shape(shape), safe_pickle.check_shape(strides))


def _rebuild_parameter(_spend: Any, tensor: Any, *_: Any) -> Tensor:
    """Replace `torch._utils._rebuild_parameter`."""
    if type(tensor) is not Tensor:
        raise safe_pickle.Damaged("a parameter without a tensor")
    return tensor


_RULES: Mapping[tuple[str, str], safe_pickle.Rule | None] = {
    **safe_pickle.RULES,
    **{("torch", storage): None for storage in _ELEMENT_TYPES},
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): safe_pickle.as_tuple,
    ("torch", "device"): safe_pickle.as_ignored,
    ("argparse", "Namespace"): safe_pickle.as_ignored,
}
