"""Read Paddle's weight files (``.pdparams``) as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from paddle_resnet import safe_pickle
from paddle_resnet.errors import UsageError, shown
from paddle_resnet.models.weights.layout import bfloat16_to_float32, check_claimed_size, detect_names
from paddle_resnet.models.weights.weights_file import WeightsFile


def read_paddle(path: Path) -> WeightsFile:
    """Read a file of `paddle.save` (Paddle 2 or 3). Names are taken as Paddle's unless BatchNorm's are PyTorch's.

    Raises:
        UsageError: the file is damaged, not a pickle, asks for code, or holds anything but tensors.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        # As in paddle.load: latin1 reads arrays written under Python 2.
        content = safe_pickle.load(file, str(path), encoding="latin1")
    if not isinstance(content, dict) or not content:
        raise UsageError(f"{path}: expected a state dict (names and tensors), found {safe_pickle.kind_of(content)}")
    content = dict(content)
    content.pop("StructuredToParameterName@@", None)  # paddle.save's table of parameter names; the keys are structured
    found = {name: _tensor_array(value, name, path) for name, value in _joined(content, path).items()}
    check_claimed_size(sum(array.nbytes for array in found.values()), path)
    # paddle.save writes bfloat16 as uint16, a type that no tensor of a network has.
    arrays = {name: bfloat16_to_float32(array) if array.dtype == np.uint16 else array for name, array in found.items()}
    return WeightsFile(arrays, detect_names(arrays) or "paddle", "Paddle")


def _joined(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Join the tensors that paddle.save splits, as pickle protocols 2 and 3 hold no more than 4 GB.

    A hostile file may list one array as many slices at the cost of few bytes, so their sum is checked.
    """
    cut = content.pop("UnpackBigParamInfor@@", {})  # spelled so in Paddle
    joined, left = {}, path.stat().st_size
    try:
        for name, entry in cut.items():
            pieces = [content.pop(piece) for piece in entry["slices"]]
            left -= sum(piece.nbytes for piece in pieces)
            if left < 0 or {(piece.ndim, piece.dtype) for piece in pieces} != {(1, pieces[0].dtype)}:
                raise ValueError
            joined[name] = np.concatenate(pieces).reshape(safe_pickle.check_shape(entry["OriginShape"]))
    except (AttributeError, LookupError, TypeError, ValueError, safe_pickle.Damaged):
        raise UsageError(f"{path}: its table of split tensors is damaged; copy or download the file again") from None
    return content | joined


def _tensor_array(value: Any, name: Any, path: Path) -> np.ndarray:
    """Return a saved tensor's array; Paddle saves the array alone, or (parameter name, array)."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        value = value[1]
    if not isinstance(name, str) or not isinstance(value, np.ndarray):
        what = f"'{shown(name)}'" if isinstance(name, str) else shown(name)
        raise UsageError(
            f"{path}: expected names and tensors, but {what} holds {safe_pickle.kind_of(value)}; "
            "a network's weights are a .pdparams file (an optimizer's state is .pdopt)"
        )
    return value
