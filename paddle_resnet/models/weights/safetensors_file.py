"""Read files of the safetensors library: a table of names, types and shapes, then the numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
from safetensors import SafetensorError, deserialize

from paddle_resnet.errors import UsageError, shown
from paddle_resnet.files import unique_keys
from paddle_resnet.models.weights.layout import Names, bfloat16_to_float32

_HEADER_LIMIT = 4 << 20  # bytes; a thousand layers take less than one megabyte
_NUMPY_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def read_safetensors(content: bytes, path: Path) -> tuple[dict[str, np.ndarray], Names | None]:
    """Read the tensors, and whose names and layout the metadata (``names``) says they have.

    Raises:
        UsageError: the file is damaged or cut short, or holds a type that weights do not have.
    """
    try:
        # The header's length; in a file of another kind, an arbitrary number.
        length = int.from_bytes(content[:8], "little")
        if _HEADER_LIMIT < length <= len(content):
            raise ValueError(f"a header of {length:,} bytes, expected at most {_HEADER_LIMIT:,}")
        # Not the library's numpy functions, which do not support bfloat16.
        tensors = dict(deserialize(content))
        header = json.loads(content[8 : 8 + length], object_pairs_hook=unique_keys)
    except (SafetensorError, ValueError) as error:
        raise UsageError(
            f"{path}: cannot be read as safetensors ({shown(str(error), 200)}): the file is damaged, cut short "
            "or of another kind; get it again"
        ) from error
    names = (header.get("__metadata__") or {}).get("names")
    # The library has its own order of names.
    arrays = {name: _array(tensors[name], name, path) for name in header if name in tensors}
    return arrays, names if names in get_args(Names) else None


def _array(tensor: dict[str, Any], name: str, path: Path) -> np.ndarray:
    element_type = tensor["dtype"]
    if element_type not in _NUMPY_TYPES:
        raise UsageError(
            f"{path}: {shown(name)} is of type {element_type}, expected one of {', '.join(_NUMPY_TYPES)}; "
            "save the tensors as float32"
        )
    try:
        array = np.frombuffer(tensor["data"], _NUMPY_TYPES[element_type]).reshape(tensor["shape"])
    except (ValueError, OverflowError):  # huge sizes of an empty tensor, or too many axes
        raise UsageError(
            f"{path}: {shown(name)} has the shape {shown(tensor['shape'])}, which no array can have; get the file again"
        ) from None
    return bfloat16_to_float32(array) if element_type == "BF16" else array
