"""Which names the tensors of a file have: a prefix, and the names of a project."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from paddle_resnet.models.weights.layout import Names, to_paddle_names
from paddle_resnet.models.weights.projects import PROJECTS, SAME_NAMES, Project

Arrays = dict[str, np.ndarray]
AVERAGED = "ema"  # the word for a moving average of the weights, which is taken only where it is asked for
_DEPTH = 16  # dots of a name within which a prefix may end


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
