"""The pickle in a PyTorch file: names, shapes and layout, with every number elsewhere. Read without PyTorch."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, NamedTuple

from paddle_resnet import safe_pickle
from paddle_resnet.errors import shown

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
        rules=_RULES,
        persistent_load=_storage,
        remedy="where you trust the file, load it in PyTorch and save only model.state_dict()",
    )


def _storage(persistent_id: Any) -> Storage:
    """Read ``("storage", class, key, location, length)``, by which the pickle refers to a record."""
    if type(persistent_id) is not tuple or len(persistent_id) != 5:
        raise safe_pickle.Damaged("a record's reference is no tuple of five")
    kind, element_type, key, _location, length = persistent_id
    if kind != "storage" or type(element_type) is not safe_pickle.Named or element_type.name not in _ELEMENT_TYPES:
        raise safe_pickle.Damaged(f"an unknown kind of record, {shown(kind)}")
    if type(key) is not str or type(length) is not int or abs(length) >= 1 << 63:
        raise safe_pickle.Damaged("a record without a name or a length")
    return Storage(key, _ELEMENT_TYPES[element_type.name], length)


def _rebuild_tensor(_spend: Any, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    """Stand in for `torch._utils._rebuild_tensor_v2`; gradients and hooks do not matter here."""
    if type(storage) is not Storage or type(offset) is not int or abs(offset) >= 1 << 63:
        raise safe_pickle.Damaged("a tensor without a storage or an offset")
    return Tensor(storage, offset, safe_pickle.checked_shape(shape), safe_pickle.checked_shape(strides))


def _rebuild_parameter(_spend: Any, tensor: Any, *_: Any) -> Tensor:
    """Stand in for `torch._utils._rebuild_parameter`."""
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
    ("torch", "device"): safe_pickle.as_setting,
    ("argparse", "Namespace"): safe_pickle.as_setting,
}
