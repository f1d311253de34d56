"""What a list of measurements says: its middle, its spread, and its ratio to another list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Summary(NamedTuple):
    """The median of some measurements, the smallest and the largest, and how many there are."""

    median: float
    smallest: float
    largest: float
    number: int

    def as_json(self) -> dict[str, float]:
        """As a JSON object."""
        return {"median": self.median, "smallest": self.smallest, "largest": self.largest, "count": self.number}


def summarise(values: Sequence[float]) -> Summary:
    """Summarise at least one measurement."""
    return Summary(float(np.median(values)), float(min(values)), float(max(values)), len(values))


def paired_ratios(values: Sequence[float], references: Sequence[float]) -> list[float]:
    """Divide round by round: what slows the whole machine for a while slows both sides of a pair."""
    return [value / reference for value, reference in zip(values, references, strict=True)]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` percent of the measurements do not exceed, linear between neighbours."""
    return float(np.percentile(values, share))
