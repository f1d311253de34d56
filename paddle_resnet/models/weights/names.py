"""Two ways to name the tensors of a network, Paddle's and PyTorch's, and the way from each to the other.

PyTorch's (torchvision's and timm's) differ from Paddle's in three things: a linear weight is ``[out, in]`` where
Paddle's is ``[in, out]``; BatchNorm's statistics are called ``running_mean`` and ``running_var``; and BatchNorm counts
its batches in ``num_batches_tracked``, which Paddle does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

Names = Literal["paddle", "torch"]

_PADDLE_STATISTICS = {"running_mean": "_mean", "running_var": "_variance"}
_TORCH_STATISTICS = {paddle: torch for torch, paddle in _PADDLE_STATISTICS.items()}
_COUNTER = "num_batches_tracked"

# What DataParallel, torch.compile and modules that wrap a network put before each of its names.
_WRAPPERS = ("module.", "_orig_mod.", "model.")


class StoredWeights(NamedTuple):
    """The tensors of a file, as it names and lays them out.

    Attributes:
        arrays: by name.
        names: whose names they are.
        ours: whether the file says that `write_state_dict` made it.
    """

    arrays: dict[str, np.ndarray]
    names: Names
    ours: bool = False


def names_of(state: Mapping[str, np.ndarray]) -> Names | None:
    """Tell by BatchNorm's statistics whose names these are; None: there are no statistics."""
    last_parts = {name.rpartition(".")[2] for name in state}
    if last_parts & {*_PADDLE_STATISTICS, _COUNTER}:
        return "torch"
    return "paddle" if last_parts & set(_TORCH_STATISTICS) else None


def in_paddle_names(weights: StoredWeights) -> dict[str, np.ndarray]:
    """Name and lay out the tensors as Paddle does; the arrays are shared, not copied."""
    if weights.names == "paddle":
        return weights.arrays
    return {
        _renamed(name, _PADDLE_STATISTICS): _transposed_if_linear(name, array)
        for name, array in _unwrapped(weights.arrays).items()
        if not name.endswith(_COUNTER)
    }


def in_torch_names(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Name and lay out Paddle's tensors as PyTorch does, for ``load_state_dict(strict=True)``.

    BatchNorm's counters are 0: PyTorch uses them only where momentum is None.
    """
    torch_state = {}
    for name, array in state.items():
        torch_state[_renamed(name, _TORCH_STATISTICS)] = _transposed_if_linear(name, array)
        layer, _, last_part = name.rpartition(".")
        if last_part == "_variance":
            torch_state[f"{layer}.{_COUNTER}"] = np.zeros((), np.int64)
    return torch_state


def _unwrapped(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Take away what wrappers put before every name."""
    for wrapper in _WRAPPERS:
        if state and all(name.startswith(wrapper) for name in state):
            return _unwrapped({name.removeprefix(wrapper): array for name, array in state.items()})
    return state


def _renamed(name: str, statistics: Mapping[str, str]) -> str:
    layer, dot, last_part = name.rpartition(".")
    return layer + dot + statistics.get(last_part, last_part)


def _transposed_if_linear(name: str, array: np.ndarray) -> np.ndarray:
    """Swap in and out of a linear weight: in these networks the only tensor of two dimensions."""
    return array.T if array.ndim == 2 and name.endswith("weight") else array
