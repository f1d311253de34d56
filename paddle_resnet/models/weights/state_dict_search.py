"""Find the weights in what a file holds: a state dict, alone or anywhere in a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from paddle_resnet import safe_pickle
from paddle_resnet.errors import UsageError, shown
from paddle_resnet.models.weights.naming import AVERAGED, has_word
from paddle_resnet.models.weights.torch_pickle import Tensor

_DEPTH = 8
_CONTAINERS = (dict, list, tuple)
_SPLIT = "UnpackBigParamInfor@@"  # paddle.save's table of split tensors, spelled so in Paddle


class Found(NamedTuple):
    """The names and tensors that were chosen, and what else there is."""

    tensors: dict[str, Tensor | np.ndarray]
    place: str  # the keys that lead there, joined by dots; empty: the whole file
    others: tuple[str, ...]  # the places of other weights
    left_out: tuple[str, ...]  # entries that are no tensors, and objects, with their classes


def find_state_dict(content: Any, path: Path, take: str | None = None) -> Found:
    """Choose the mapping with the most layers' weights, then the most tensors, of those that hold mostly tensors.

    An optimizer may hold more tensors than the network, but not under names such as ``conv1.weight``.

    Args:
        content: what a file holds: mappings, lists and other data.
        path: the file's name in errors.
        take: a word of the place to choose; None: none that is a moving average, if there is another.

    Raises:
        UsageError: there are no names and tensors, or the file is a whole pickled module.
    """
    tensors: dict[str, dict[str, Tensor | np.ndarray]] = {}
    dropped: dict[str, list[str]] = {}
    objects = []
    for place, mapping in _mappings(content):
        entries = {name: value for name, value in _joined(mapping, path).items() if not is_table(name)}
        found = {name: each for name, value in entries.items() if (each := _tensor(name, value)) is not None}
        if len(found) * 2 > len(entries):
            tensors[place] = found
            rest = {name: value for name, value in entries.items() if name not in found}
            dropped[place] = [shown(name) for name, value in rest.items() if type(value) is not safe_pickle.Opaque]
        objects += [
            f"{_below(place, name)} ({shown(value.kind)})"
            for name, value in mapping.items()
            if type(value) is safe_pickle.Opaque
        ]
    if not tensors:
        raise _without_weights(content, path)
    named = [place for place in tensors if place == take]
    wanted = named or [place for place in tensors if take is not None and has_word(place, take)]
    usual = wanted or [place for place in tensors if not has_word(place, AVERAGED)]
    layers = {each: sum(name.endswith("weight") for name in found) for each, found in tensors.items()}
    place = max(usual or tensors, key=lambda each: (layers[each], len(tensors[each])))
    others = [each for each in tensors if each != place]
    weights = tuple(each for each in others if layers[each] * 4 > layers[place])
    few = (each for each in others if each not in weights)
    return Found(tensors[place], place, weights, (*few, *dropped[place], *objects))


def _mappings(content: Any) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Yield the mappings in `content` with the keys that lead there; those nearer to the top come first.

    The items of a list have their numbers as keys.
    """
    level = [("", content)] if type(content) in _CONTAINERS else []
    for _ in range(_DEPTH):
        yield from ((place, value) for place, value in level if isinstance(value, dict))
        level = [
            (_below(place, key), value)
            for place, each in level
            for key, value in (each.items() if isinstance(each, dict) else enumerate(each))
            if type(value) in _CONTAINERS and value and (isinstance(key, str) or not isinstance(each, dict))
        ]


def _below(place: str, key: Any) -> str:
    name = str(key) if type(key) is int else shown(key, 200)  # `shown` takes long for a million items of a list
    return f"{place}.{name}" if place else name


def is_table(name: Any) -> bool:
    """Return whether an entry is one that paddle.save adds, as ``StructuredToParameterName@@``."""
    return isinstance(name, str) and name.endswith("@@")


def _tensor(name: Any, value: Any) -> Tensor | np.ndarray | None:
    """Return a saved tensor; Paddle saves an array alone, or (parameter name, array). None: it is something else."""
    if not isinstance(name, str):
        return None
    if type(value) is tuple and len(value) == 2 and isinstance(value[0], str):
        value = value[1]
    return value if type(value) is Tensor or isinstance(value, np.ndarray) else None


def _joined(mapping: dict[Any, Any], path: Path) -> dict[Any, Any]:
    """Join the tensors that paddle.save splits, as pickle protocols 2 and 3 hold no more than 4 GB.

    A hostile file may list one array as many slices at the cost of few bytes, so their sum is checked.
    """
    if _SPLIT not in mapping:
        return mapping
    content = dict(mapping)
    cut = content.pop(_SPLIT)
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


def _without_weights(content: Any, path: Path) -> UsageError:
    """Say what a file without a state dict holds, and what to do."""
    values = content.values() if isinstance(content, dict) else [content]
    for value in values:
        if type(value) is safe_pickle.Opaque and not value.kind.startswith(safe_pickle.UNREAD_ARRAY):
            return UsageError(
                f"{path}: a whole pickled module or other object ({shown(value.kind)}), no state dict; "
                "load it where its class is known, and save its state_dict()"
            )
    if not isinstance(content, dict) or not content:
        return UsageError(f"{path}: expected a state dict (names and tensors), found {safe_pickle.kind_of(content)}")
    key, value = next(iter(content.items()))
    return UsageError(
        f"{path}: expected a state dict (names and tensors), but '{shown(key)}' holds {safe_pickle.kind_of(value)}, "
        "and nothing else in the file is one; save model.state_dict(), not an optimizer's state (.pdopt)"
    )
