"""Paddle's BatchNorm warns at each step of training that it tracks its statistics, which is what it is for."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_batch_norm() -> Iterator[None]:
    """Hide that one warning; also a decorator."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "When training, we now always track", UserWarning)
        yield
