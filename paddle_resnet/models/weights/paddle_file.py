"""Paddle's weight files (``.pdparams``), read as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from paddle_resnet import safe_pickle
from paddle_resnet.errors import UsageError, shown
from paddle_resnet.models.weights.element_types import limit_sharing, widened_bfloat16
from paddle_resnet.models.weights.names import StoredWeights, names_of


def read_paddle(path: Path) -> StoredWeights:
    """Read a file of `paddle.save` (Paddle 2 or 3). Paddle's own names, unless BatchNorm's are PyTorch's.

    Raises:
        UsageError: the file is damaged, no pickle, asks for code, or holds something else than tensors.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        # As paddle.load: latin1 reads the arrays of a file written under Python 2.
        content = safe_pickle.load(file, str(path), encoding="latin1")
    if not isinstance(content, dict) or not content:
        raise UsageError(f"{path}: expected a state dict (names and tensors), found {safe_pickle.kind_of(content)}")
    content = dict(content)
    content.pop("StructuredToParameterName@@", None)  # paddle.save's table of parameter names; the keys are structured
    found = {name: _plain(value, name, path) for name, value in _joined(content, path).items()}
    limit_sharing(sum(array.nbytes for array in found.values()), path)
    arrays = {name: _widened(array) for name, array in found.items()}
    return StoredWeights(arrays, names_of(arrays) or "paddle")


def _joined(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Join the tensors that paddle.save cut up because pickle protocols 2 and 3 hold no more than 4 GB.

    A piece is of one tensor, but several may be the same array: a file names it often at the cost of few bytes.
    """
    cut = content.pop("UnpackBigParamInfor@@", {})  # spelled so in Paddle
    joined, left = {}, path.stat().st_size
    try:
        for name, entry in cut.items():
            pieces = [content.pop(piece) for piece in entry["slices"]]
            left -= sum(piece.nbytes for piece in pieces)
            if left < 0 or {(piece.ndim, piece.dtype) for piece in pieces} != {(1, pieces[0].dtype)}:
                raise ValueError
            joined[name] = np.concatenate(pieces).reshape(safe_pickle.checked_shape(entry["OriginShape"]))
    except (AttributeError, LookupError, TypeError, ValueError, safe_pickle.Damaged):
        raise UsageError(f"{path}: its table of cut-up tensors is damaged; copy or download the file again") from None
    return content | joined


def _plain(value: Any, name: Any, path: Path) -> np.ndarray:
    """Return a saved tensor's array; Paddle saves it as it is, or as (parameter name, array)."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        value = value[1]
    if not isinstance(name, str) or not isinstance(value, np.ndarray):
        what = f"'{shown(name)}'" if isinstance(name, str) else shown(name)
        raise UsageError(
            f"{path}: expected names and tensors, but {what} holds {safe_pickle.kind_of(value)}; "
            "a network's weights are a .pdparams file (an optimizer's state is .pdopt)"
        )
    return value


def _widened(array: np.ndarray) -> np.ndarray:
    """Widen bfloat16, which paddle.save writes as uint16, a type that no tensor of a network has."""
    return widened_bfloat16(array) if array.dtype == np.uint16 else array
