"""Which names the tensors of a file have: a prefix, and a table of the names that another project uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from paddle_resnet.models.weights.layout import Names, to_paddle_names

Arrays = dict[str, np.ndarray]
AVERAGED = "ema"  # the word for a moving average of the weights, which is taken only where it is asked for
_DEPTH = 16  # dots of a name within which a prefix may end


class NamingTable(NamedTuple):
    """The names of one project's ResNets."""

    project: str
    rename: Callable[[Sequence[str]], Mapping[str, str]]
    """Takes the names of one file without their prefix; returns this project's name of each. A name that it does not
    know stays or is left out. BatchNorm's statistics may keep PyTorch's names."""


SAME_NAMES = NamingTable("torchvision", lambda names: {name: name for name in names})
TABLES: tuple[NamingTable, ...] = (SAME_NAMES,)
"""Tried in this order; of those that fit equally well the first counts."""


class NamedArrays(NamedTuple):
    """The arrays of a file by this project's names, in Paddle's layout."""

    arrays: Arrays
    table: NamingTable
    prefix: str
    left_out: tuple[str, ...]  # the file's names without the prefix
    rivals: tuple[str, ...] = ()  # other prefixes whose tensors fit as well


def fit_names(
    arrays: Mapping[str, np.ndarray],
    layout: Names,
    shapes: Mapping[str, Sequence[int]],
    tables: Sequence[NamingTable] = TABLES,
) -> NamedArrays:
    """Name the arrays by the prefix and the table with which most of them are tensors of the network.

    Args:
        arrays: a file's arrays by its names.
        layout: whose names BatchNorm's statistics have, and whose layout linear weights.
        shapes: the network's tensors.
        tables: the naming tables to try.
    """
    best, best_fit = None, (-1, -1)
    rivals: list[str] = []
    for prefix in _prefixes(arrays, len(shapes) // 2):
        inside = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        for table in tables:
            named = _renamed(inside, table, layout)
            known = [name for name in named if name in shapes]
            fit = (sum(list(named[name].shape) == list(shapes[name]) for name in known), len(known))
            if fit == best_fit and best and prefix != best.prefix:
                rivals.append(prefix)
            if fit > best_fit:
                left_out = tuple(name for name in arrays if not name.startswith(prefix))
                best, best_fit, rivals = NamedArrays(named, table, prefix, left_out), fit, []
    assert best is not None
    return best._replace(rivals=tuple(dict.fromkeys(rivals)) if best_fit[1] else ())


def _renamed(arrays: Arrays, table: NamingTable, layout: Names) -> Arrays:
    names = table.rename(list(arrays))
    return to_paddle_names({names.get(name, name): array for name, array in arrays.items()}, layout)


def _prefixes(names: Iterable[str], at_least: int) -> list[str]:
    """Return the prefixes of at least so many names, short ones first, averages last; if none is, the empty one."""
    counts = Counter(prefix for name in names for prefix in _prefixes_of(name))
    often = [prefix for prefix, count in counts.items() if count >= at_least]
    return sorted(often, key=lambda prefix: (has_word(prefix, AVERAGED), prefix.count("."))) or [""]


def _prefixes_of(name: str) -> list[str]:
    parts = name.split(".", _DEPTH)
    return ["".join(f"{part}." for part in parts[:length]) for length in range(len(parts))]


def has_word(name: str, word: str | None) -> bool:
    """Return whether `word` is `name` or one of its parts between dots and underscores; None is in every name."""
    return word is None or word in (name.strip("."), *name.split("."), *name.replace(".", "_").split("_"))


def without_common_prefix(arrays: Arrays) -> Arrays:
    """Remove what all names begin with, up to a dot, as wrappers of a whole network add it.

    The shortened names still have a dot: ``fc.weight`` and ``fc.bias`` alone are no wrapped network.
    """
    prefixes = _prefixes_of(next(iter(arrays), ""))
    common = [each for each in prefixes if all(n.startswith(each) and "." in n[len(each) :] for n in arrays)]
    longest = max(common, key=len, default="")
    return {name.removeprefix(longest): array for name, array in arrays.items()}
