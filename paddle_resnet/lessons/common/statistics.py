"""What a few runs with different seeds say together: mean, spread, and what they can tell apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STUDENT_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Student's t of a two-sided interval of 95%, by the number of runs."""


@dataclass(frozen=True)
class Spread:
    """A quantity over runs that differ in their seed only.

    Attributes:
        mean: over the runs.
        deviation: sample standard deviation, of one run about the mean.
        runs: how many there were, 2 to 10.
    """

    mean: float
    deviation: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise one value a run."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)), len(values))

    @property
    def margin(self) -> float:
        """Half of the mean's 95% interval, by Student's t: it takes the runs as normally distributed."""
        return STUDENT_95[self.runs] * self.deviation / math.sqrt(self.runs)

    @property
    def sign(self) -> int:
        """1 or -1 where the whole 95% interval is on one side of zero, otherwise 0: the runs cannot tell."""
        if abs(self.mean) <= self.margin:
            return 0
        return 1 if self.mean > 0 else -1

    def percent(self) -> str:
        """Of fractions: mean and deviation in percent, ``97.21 ± 0.43``."""
        return f"{100 * self.mean:.2f} ± {100 * self.deviation:.2f}"

    def points(self) -> str:
        """Of differences of fractions: mean and margin in percentage points, ``+1.3 ± 2.0``."""
        return f"{100 * self.mean:+.1f} ± {100 * self.margin:.1f}"
