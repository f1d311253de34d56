"""Convert between the state dicts of Paddle and PyTorch, and between number types.

PyTorch's (torchvision's and timm's) differ in three points: a linear weight is ``[out, in]``, in Paddle ``[in, out]``;
BatchNorm's statistics are called ``running_mean`` and ``running_var``; and BatchNorm has a counter
``num_batches_tracked``, which Paddle has not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from paddle_resnet.errors import UsageError, shown

Names = Literal["paddle", "torch"]

_PADDLE_STATISTICS = {"running_mean": "_mean", "running_var": "_variance"}
_TORCH_STATISTICS = {paddle: torch for torch, paddle in _PADDLE_STATISTICS.items()}
_COUNTER = "num_batches_tracked"
_COUNTERS = (_COUNTER, "total_ops", "total_params")  # the last two are thop's, a profiler


def detect_names(state: Mapping[str, np.ndarray]) -> Names | None:
    """Tell from BatchNorm's statistics whose names these are; None: there are no statistics."""
    last_parts = {name.rpartition(".")[2] for name in state}
    if last_parts & {*_PADDLE_STATISTICS, _COUNTER}:
        return "torch"
    return "paddle" if last_parts & set(_TORCH_STATISTICS) else None


def to_paddle_names(arrays: Mapping[str, np.ndarray], names: Names) -> dict[str, np.ndarray]:
    """Convert arrays with the names and layout of `names` to Paddle's; they are shared, not copied."""
    if names == "paddle":
        return dict(arrays)
    return {
        _renamed(name, _PADDLE_STATISTICS): _transposed_if_linear(name, array)
        for name, array in arrays.items()
        if not name.endswith(_COUNTERS)
    }


def to_torch_names(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Convert to PyTorch's names and layout, for ``load_state_dict(strict=True)``.

    BatchNorm's counters are 0: PyTorch uses them only where momentum is None.
    """
    torch_state = {}
    for name, array in state.items():
        torch_state[_renamed(name, _TORCH_STATISTICS)] = _transposed_if_linear(name, array)
        layer, _, last_part = name.rpartition(".")
        if last_part == "_variance":
            torch_state[f"{layer}.{_COUNTER}"] = np.zeros((), np.int64)
    return torch_state


def _renamed(name: str, statistics: Mapping[str, str]) -> str:
    layer, dot, last_part = name.rpartition(".")
    return layer + dot + statistics.get(last_part, last_part)


def _transposed_if_linear(name: str, array: np.ndarray) -> np.ndarray:
    """Swap in and out of a linear weight, the only tensor of two dimensions in these networks."""
    return array.T if array.ndim == 2 and name.endswith("weight") else array


def check_claimed_size(needed: int, path: Path, times: int = 4) -> None:
    """Refuse tensors that claim many times the file's size, before any of them is copied.

    Tensors may share storage (tied weights), so together they may need more bytes than the file has.

    Raises:
        UsageError: they need more than `times` the file's size.
    """
    size = path.stat().st_size
    if needed > times * size:
        raise UsageError(
            f"{path}: its tensors need {shown(f'{needed:,}')} bytes, but the file has {size:,}; "
            "it is damaged or malicious"
        )


def bad_numbers(array: np.ndarray) -> int:
    """Return how many numbers of a tensor are NaN or infinite, or would be in float32."""
    return array.size - int((np.abs(array) <= np.finfo(np.float32).max).sum())


def bfloat16_to_float32(bits: np.ndarray) -> np.ndarray:
    """Convert bfloat16, given as uint16, to float32 exactly: they are the upper halves of float32 numbers."""
    return np.asarray(np.left_shift(bits, 16, dtype=np.uint32)).view(np.float32)
