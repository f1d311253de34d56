"""The pickle in a PyTorch file: names, shapes and layout, with every number elsewhere. Read without PyTorch."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

from paddle_resnet import safe_pickle

# The storage classes that a pickle names, as numpy names their elements.
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
    """One record of numbers in the archive.

    Attributes:
        key: the record's name is ``data/<key>``.
        element_type: as numpy names it, or ``bfloat16``.
        length: elements.
    """

    key: str
    element_type: str
    length: int


class Tensor(NamedTuple):
    """A window on a storage, as the pickle describes it; nothing in it has been checked.

    Attributes:
        storage: where its numbers are.
        offset: elements before its first one.
        shape: elements along each axis.
        strides: elements between neighbours along each axis.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def load(content: bytes, name: str) -> Any:
    """Read ``data.pkl``: plain containers, with a `Tensor` for each tensor.

    Args:
        content: the pickle.
        name: what an error calls the file.

    Raises:
        UsageError: the pickle asks for a global that is no tensor, container or setting, or it is damaged.
    """
    return safe_pickle.load(
        io.BytesIO(content),
        name,
        allowed=_GLOBALS,
        persistent_load=_storage,
        remedy="where you trust the file, load it in PyTorch and save only model.state_dict()",
    )


class _Setting:
    """What a checkpoint tells of its run (options, devices): its place is kept, its content is not."""

    def __init__(self, *_content: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass


def _storage(persistent_id: Any) -> Storage:
    """Read ``("storage", class, key, location, length)``, by which the pickle refers to a record."""
    kind, element_type, key, _location, length = persistent_id
    if kind != "storage" or element_type not in _ELEMENT_TYPES.values():
        raise ValueError(f"an unknown kind of record, {kind!r}")
    if not isinstance(key, str) or not isinstance(length, int):
        raise ValueError("a record without a name or a length")
    return Storage(key, element_type, length)


def _rebuild_tensor(storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> Tensor:
    """Stand in for `torch._utils._rebuild_tensor_v2`; gradients and hooks do not matter here."""
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Tensor, *_: Any) -> Tensor:
    """Stand in for `torch._utils._rebuild_parameter`."""
    return tensor


_GLOBALS = {
    **safe_pickle.NUMPY_GLOBALS,
    **{("torch", storage): element_type for storage, element_type in _ELEMENT_TYPES.items()},
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): tuple,
    ("torch", "device"): _Setting,
    ("argparse", "Namespace"): _Setting,
}
