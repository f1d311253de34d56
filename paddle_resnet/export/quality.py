"""How good an exported precision is: its top-1, and how often it says what the trained network says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import numpy as np

from paddle_resnet.evaluation import Scorer
from paddle_resnet.inference.inference_config import PrecisionFigures

Key = TypeVar("Key")


def compare(
    trained: Scorer,
    exported: Mapping[Key, Scorer],
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    progress: Callable[[int], None] | None = None,
) -> dict[Key, PrecisionFigures]:
    """Score the images of `batches` by all; each batch is read once.

    Args:
        trained: the trained network.
        exported: what is measured.
        batches: pairs of uint8 images `[n, S, S, 3]` and labels `[n]`; at least one image.
        progress: called after each batch with the number of images so far.
    """
    right = dict.fromkeys(exported, 0)
    agreeing = dict.fromkeys(exported, 0)
    images = 0
    for pixels, labels in batches:
        expected = trained.scores(pixels).argmax(axis=1)
        for key, scorer in exported.items():
            answers = scorer.scores(pixels).argmax(axis=1)
            right[key] += int((answers == labels).sum())
            agreeing[key] += int((answers == expected).sum())
        images += len(pixels)
        if progress is not None:
            progress(images)
    return {
        key: PrecisionFigures(top1=right[key] / images, agreement=agreeing[key] / images, images=images)
        for key in exported
    }
