"""Which names the tensors of a file have: a prefix, the names of a project, and those of Paddle or PyTorch.

PyTorch's state dicts (torchvision's and timm's) differ from Paddle's in three points: a linear weight is ``[out, in]``,
in Paddle ``[in, out]``; BatchNorm's statistics are called ``running_mean`` and ``running_var``; and BatchNorm has a
counter ``num_batches_tracked``, which Paddle has not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from paddle_resnet.models.weights.projects import PROJECTS, SAME_NAMES, Project

Names = Literal["paddle", "torch"]
Arrays = dict[str, np.ndarray]
AVERAGED = "ema"  # the word for a moving average of the weights, which is taken only where it is asked for
_DEPTH = 16  # dots of a name within which a prefix may end
_PADDLE_STATISTICS = {"running_mean": "_mean", "running_var": "_variance"}
_TORCH_STATISTICS = {paddle: torch for torch, paddle in _PADDLE_STATISTICS.items()}
_COUNTER = "num_batches_tracked"
_COUNTERS = (_COUNTER, "total_ops", "total_params")  # the last two are thop's, a profiler


class NamedArrays(NamedTuple):
    """The arrays of a file by this project's names, in Paddle's layout."""

    arrays: Arrays
    project: Project
    prefix: str
    left_out: tuple[str, ...]  # the file's names without the prefix
    rivals: tuple[str, ...] = ()  # other prefixes whose tensors fit as well


def fit_names(arrays: Mapping[str, np.ndarray], layout: Names, shapes: Mapping[str, Sequence[int]]) -> NamedArrays:
    """Name a file's arrays by the prefix and the project with which most of them are tensors of the network.

    `layout` is whose names BatchNorm's statistics have, and whose layout linear weights. `shapes` are the network's.
    """
    best, best_fit = None, (-1, -1)
    rivals: list[str] = []
    for candidate in candidates(arrays, layout, min(len(shapes) // 2, len(arrays) // 4)):
        named = candidate.arrays
        known = [name for name in named if name in shapes]
        fit = (sum(list(named[name].shape) == list(shapes[name]) for name in known), len(known))
        if fit == best_fit and best and any(named[name] is not best.arrays.get(name) for name in known[:1]):
            rivals.append(candidate.prefix)
        if fit > best_fit:
            best, best_fit, rivals = candidate, fit, []
    assert best is not None
    return best._replace(rivals=tuple(dict.fromkeys(rivals)) if best_fit[1] else ())


def candidates(arrays: Mapping[str, np.ndarray], layout: Names, at_least: int) -> Iterator[NamedArrays]:
    """Yield the arrays under each prefix of at least so many names, by the names of each project that they may have."""
    for prefix in _prefixes(arrays, at_least):
        inside = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        if not any(array.ndim == 2 for array in inside.values()):
            inside |= _head_beside(arrays, prefix)
        left_out = tuple(name for name in arrays if name.removeprefix(prefix) not in inside)
        for project in PROJECTS:
            names = project.rename(list(inside))
            if names or project is SAME_NAMES:
                renamed = {names.get(name, name): array for name, array in inside.items()}
                if len(renamed) == len(inside):
                    yield NamedArrays(to_paddle_names(renamed, layout), project, prefix, left_out)


def _head_beside(arrays: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    """Return the only linear layer beside the prefix, as ``head.fc`` beside ``backbone.``; of several, none."""
    for parent in reversed(_prefixes_of(prefix)):
        beside = [name for name in arrays if name.startswith(parent) and not name.startswith(prefix)]
        weights = [name for name in beside if arrays[name].ndim == 2]
        bias = "".join(weights).removesuffix("weight") + "bias"
        if len(weights) == 1 and bias in beside:
            return {name: arrays[name] for name in (*weights, bias)}
    return {}


def _prefixes(names: Iterable[str], at_least: int) -> list[str]:
    """Return the prefixes of at least so many names, short ones first, averages last; if none is, the empty one.

    Of several prefixes of the same names, only the longest.
    """
    counts = Counter(prefix for name in names for prefix in _prefixes_of(name))
    often = [prefix for prefix, count in counts.items() if count >= at_least]
    longer = [(each, counts[each]) for each in often]
    often = [p for p in often if not any(each != p and each.startswith(p) and n == counts[p] for each, n in longer)]
    return sorted(often, key=lambda prefix: (has_word(prefix, AVERAGED), prefix.count("."))) or [""]


def _prefixes_of(name: str) -> list[str]:
    """Return what may stand before a layer's name; ``fc.weight`` has nothing before it."""
    parts = name.split(".", _DEPTH)
    return ["".join(f"{part}." for part in parts[:length]) for length in range(max(1, len(parts) - 1))]


def has_word(name: str, word: str | None) -> bool:
    """Return whether `word` is in `name` between dots and underscores, or the beginning of it; None always is."""
    if word is None or f"{name}.".startswith(f"{word}."):
        return True
    return word in (*name.split("."), *name.replace(".", "_").split("_"))


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
