"""From the moments at which steps began and ended to speed and waiting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class StepTimes:
    """Times of the steps of one run, those of the warm-up left out."""

    def __init__(self, begins: Sequence[float], ends: Sequence[float], warm_up: int) -> None:
        """Take the moments, in seconds, at which each step began and ended; `warm_up`, at least 1, are not counted."""
        begin, end = np.asarray(begins[warm_up:]), np.asarray(ends[warm_up - 1 :])
        self.whole = np.diff(end)
        """Seconds from the end of a step to the end of the next: waiting for its batch, and training."""
        self.waiting = begin - end[:-1]
        """Seconds of it in which the batch was waited for."""

    def measurement(self, batch: int) -> dict[str, Any]:
        """Median speed, the share of the time spent waiting for data, and every step's seconds."""
        return {
            "images_per_second": batch / float(np.median(self.whole)),
            "waiting_share": float(self.waiting.sum() / self.whole.sum()),
            "step_seconds": [round(value, 6) for value in self.whole.tolist()],
        }
