"""Training, validation and test splits, and holding out a share of a split."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from paddle_resnet.config.value_types import PerChannel
from paddle_resnet.errors import UsageError
from paddle_resnet.images import Indices, Pixels

IMAGES_A_CLASS = 4  # enough to hold one out for validation and one for the test


class Split(ABC):
    """Labelled images, uint8 RGB."""

    labels: Indices  # the class of every image, int64 ``[N]``

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def batch(self, indices: Sequence[int] | Indices) -> Pixels:
        """Return the stored images at `indices`, uint8 ``[n, H, W, 3]``; raise `UsageError` if a file is unreadable."""

    def checksum(self, indices: Sequence[int] | Indices) -> int:
        """Return a checksum of the images at `indices`, the same on all machines."""
        return zlib.crc32(self.batch(indices).tobytes())

    @abstractmethod
    def names(self, indices: Sequence[int] | Indices) -> list[str]:
        """Return the names of the images at `indices`: their files, or such as ``train 123``."""


class MemorySplit(Split):
    """Images in memory at their own size; several splits may share one array.

    Args:
        images: ``[N, H, W, 3]``.
        labels: ``[N]``.
        origin: the official split; names are ``<origin> <position>``.
        positions: the images of this split; None: all.
    """

    def __init__(self, images: Pixels, labels: Indices, origin: str, positions: Indices | None = None) -> None:
        self._images = images
        self._origin = origin
        self._positions = np.arange(len(images)) if positions is None else positions
        self.labels = labels[self._positions].astype(np.int64)

    def keep(self, indices: Indices) -> None:
        """Leave out all other images."""
        self._positions, self.labels = self._positions[indices], self.labels[indices]

    def batch(self, indices: Sequence[int] | Indices) -> Pixels:
        return self._images[self._positions[np.asarray(indices, dtype=np.int64)]]

    def names(self, indices: Sequence[int] | Indices) -> list[str]:
        return [f"{self._origin} {position}" for position in self._positions[np.asarray(indices, dtype=np.int64)]]


@dataclass(frozen=True)
class Splits:
    """The three splits of a source, and the preprocessing of its images."""

    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    mean: PerChannel
    std: PerChannel
    resize: int


@dataclass(frozen=True)
class OfficialSplits:
    """A dataset as published: images uint8 ``[N, H, W, 3]``, labels int64 ``[N]``, class names."""

    train_images: Pixels
    train_labels: Indices
    test_images: Pixels
    test_labels: Indices
    classes: tuple[str, ...]


def within_limit(labels: Iterable[Hashable], limit: int) -> Indices:
    """Return at most `limit` positions, sorted: at least `IMAGES_A_CLASS` of a class, and so of some classes only."""
    labels = list(labels)
    classes = list(dict.fromkeys(labels))
    kept = min(len(classes), limit, max(2, limit // IMAGES_A_CLASS))
    left = {classes[round(index * (len(classes) - 1) / max(1, kept - 1))]: limit // kept for index in range(kept)}
    positions = []
    for position, label in enumerate(labels):
        if left.get(label, 0) > 0:
            left[label] -= 1
            positions.append(position)
    return np.array(positions, dtype=np.int64)


def hold_out(labels: Indices, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Divide positions ``0..N-1`` into (kept, held out), each sorted, every class in the same proportion.

    ``round(fraction * N)`` images are held out; the classes with the largest remainders get what rounding leaves over.
    A class always keeps one image. The same seed gives the same division.

    Raises:
        UsageError: there are too few images to hold any out.
    """
    generator = np.random.default_rng(seed)
    classes, counts = np.unique(labels, return_counts=True)
    held_counts = _largest_remainder(counts, fraction)
    if held_counts.sum() == 0:
        raise UsageError(
            f"{len(labels)} images in {len(classes)} classes are too few to hold out a share of {fraction:g}: "
            "give at least two images a class, or a larger share"
        )
    held = np.zeros(len(labels), dtype=bool)
    members_of_each = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    for members, count in zip(members_of_each, held_counts, strict=True):
        held[generator.permutation(members)[:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _largest_remainder(counts: Indices, fraction: float) -> Indices:
    """Round ``counts * fraction`` to integers whose sum is the rounded total (Hamilton's method)."""
    shares = counts * fraction
    held = np.floor(shares).astype(np.int64)
    missing = max(1, round(float(shares.sum()))) - held.sum()
    by_remainder = np.argsort(held - shares, kind="stable")
    held[by_remainder[:missing]] += 1
    return np.minimum(held, counts - 1)
