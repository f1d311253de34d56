"""Paddle's weight files (``.pdparams``), read as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from paddle_resnet import safe_pickle
from paddle_resnet.errors import UsageError, shown
from paddle_resnet.models.weights.element_types import widened_bfloat16
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
    arrays = {name: _array(value, name, path) for name, value in _joined(content, path).items()}
    return StoredWeights(arrays, names_of(arrays) or "paddle")


def _joined(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Join the tensors that paddle.save cut up because pickle protocols 2 and 3 hold no more than 4 GB."""
    cut = content.pop("UnpackBigParamInfor@@", {})  # spelled so in Paddle
    try:
        for name, pieces in cut.items():
            flat = np.concatenate([content.pop(piece) for piece in pieces["slices"]])
            content[name] = flat.reshape(pieces["OriginShape"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UsageError(f"{path}: its table of cut-up tensors is damaged; copy or download the file again") from None
    return content


def _array(value: Any, name: Any, path: Path) -> np.ndarray:
    """Return a saved tensor's array; Paddle saves it as it is, or as (parameter name, array)."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        value = value[1]
    if not isinstance(name, str) or not isinstance(value, np.ndarray):
        what = f"'{shown(name)}'" if isinstance(name, str) else shown(name)
        raise UsageError(
            f"{path}: expected names and tensors, but {what} holds {safe_pickle.kind_of(value)}; "
            "a network's weights are a .pdparams file (an optimizer's state is .pdopt)"
        )
    # paddle.save writes bfloat16 as uint16, a type that no tensor of a network has.
    return widened_bfloat16(value) if value.dtype == np.uint16 else value
