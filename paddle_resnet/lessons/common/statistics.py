"""Statistics of a few runs that differ only in their seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Student's t of a two-sided 95% interval, by the number of runs."""


@dataclass(frozen=True)
class SeedStatistics:
    """A quantity over 2 to 10 runs: its mean and sample standard deviation."""

    mean: float
    std: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> SeedStatistics:
        """Summarise one value a run."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)), len(values))

    @property
    def ci95(self) -> float:
        """Half the width of the mean's 95% interval by Student's t, which assumes normally distributed runs."""
        return T_95[self.runs] * self.std / math.sqrt(self.runs)

    @property
    def sign(self) -> int:
        """1 or -1 if the whole 95% interval lies on one side of zero, otherwise 0."""
        if abs(self.mean) <= self.ci95:
            return 0
        return 1 if self.mean > 0 else -1

    def percent(self) -> str:
        """Format fractions: mean and standard deviation in percent, ``97.21 ± 0.43``."""
        return f"{100 * self.mean:.2f} ± {100 * self.std:.2f}"

    def points(self) -> str:
        """Format differences of fractions: mean and 95% interval in percentage points, ``+1.3 ± 2.0``."""
        return f"{100 * self.mean:+.1f} ± {100 * self.ci95:.1f}"


def format_percent(fractions: Sequence[float]) -> str:
    """Format mean and standard deviation in percent, ``97.21 ± 0.43``; of a single run only its value."""
    return SeedStatistics.of(fractions).percent() if len(fractions) > 1 else f"{100 * fractions[0]:.2f}"
