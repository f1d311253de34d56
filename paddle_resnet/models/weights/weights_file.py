"""A weights file of any format, read as data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paddle_resnet.models.weights.layout import Names, detect_names


@dataclass(frozen=True)
class WeightsFile:
    """The tensors of a file, with its names and layout."""

    entries: dict[str, np.ndarray]
    layout: Names  # whose names BatchNorm's statistics have, and whose layout linear weights
    format: str = ""  # in words
    place: str = ""  # the keys above the entries, such as ``state_dict``; empty: the file holds nothing else
    others: tuple[str, ...] = ()  # the places of other tensors, left out
    written_here: bool = False  # whether the file says that `write_state_dict` wrote it


def of_arrays(arrays: dict[str, np.ndarray]) -> WeightsFile:
    """Return arrays that come from no file, in the same form."""
    return WeightsFile(arrays, detect_names(arrays) or "paddle")
