"""In which order an epoch takes its images, and how often each."""

from __future__ import annotations

import numpy as np

from paddle_resnet.images import Indices


def balanced_order(labels: Indices, generator: np.random.Generator) -> Indices:
    """Draw as many images as there are, each of the K classes equally often: ``N // K`` times, or once more.

    A class's images are drawn in turns, without putting back: none is drawn twice before each of them was drawn once,
    so those of a rare class come about ``N / (K n)`` times each, n being their number, and of a frequent class each
    epoch sees others. Which classes get what is left over of N changes from epoch to epoch.

    Args:
        labels: int64 ``[N]``; a class without images does not count.
        generator: what is drawn from.

    Returns:
        Positions in `labels`, int64 ``[N]``, in random order.
    """
    classes = np.unique(labels)
    quotas = np.full(len(classes), len(labels) // len(classes))
    quotas[generator.permutation(len(classes))[: len(labels) % len(classes)]] += 1
    drawn = [
        _in_turns(np.flatnonzero(labels == label), quota, generator)
        for label, quota in zip(classes, quotas, strict=True)
    ]
    return generator.permutation(np.concatenate(drawn))


def _in_turns(members: Indices, count: int, generator: np.random.Generator) -> Indices:
    turns = -(-count // len(members))
    return np.concatenate([generator.permutation(members) for _ in range(turns)])[:count]
