"""Operations on a BatchNorm's vectors, one number for each channel: numpy on the memory of float32 tensors."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_float
from typing import Any

import numpy as np


class VectorOperation:
    """A function of vectors, which is called with their addresses, as a primitive is."""

    def __init__(self, function: Callable[..., None], *lengths: int, **options: float) -> None:
        """`lengths` are those of the vectors; `options` are passed to `function`."""
        self._function, self._options = function, options
        self._kinds: list[Any] = [c_float * length for length in lengths]

    def __call__(self, *addresses: int) -> None:
        kinds = zip(self._kinds, addresses, strict=True)
        vectors = [np.frombuffer(kind.from_address(address), np.float32) for kind, address in kinds]
        with np.errstate(all="ignore"):  # a diverged training is reported by its loss
            self._function(*vectors, **self._options)


def update_running(running: np.ndarray, batch: np.ndarray, momentum: float) -> None:
    """``running = momentum * running + (1 - momentum) * batch``."""
    running *= momentum
    running += batch * (1.0 - momentum)


def tile(result: np.ndarray, vector: np.ndarray) -> None:
    """Repeat a vector until the result is full."""
    result.reshape(-1, len(vector))[:] = vector


def add_parts(result: np.ndarray, parts: np.ndarray) -> None:
    """Add up parts of the result's length."""
    parts.reshape(-1, len(result)).sum(0, out=result)


def pool_statistics(mean: np.ndarray, variance: np.ndarray, means: np.ndarray, variances: np.ndarray) -> None:
    """Mean and variance of all values, from those of parts of equal size."""
    means.reshape(-1, len(mean)).mean(0, out=mean)
    variances.reshape(-1, len(mean)).mean(0, out=variance)
    variance += np.square(means.reshape(-1, len(mean)) - mean).mean(0)


def statistics_terms(
    scale: np.ndarray,
    shift: np.ndarray,
    weight: np.ndarray,
    variance: np.ndarray,
    along_variance: np.ndarray,
    along_mean: np.ndarray,
    epsilon: float,
    count: float,
) -> None:
    """Scale and shift of the normalisation that gives the two terms of a gradient (see `normalization`).

    `along_variance` and `along_mean` are sums over `count` values.
    """
    factor = -weight / np.sqrt(variance + np.float32(epsilon))
    np.multiply(factor, along_variance / np.float32(count), out=scale)
    np.multiply(factor, along_mean / np.float32(count), out=shift)
