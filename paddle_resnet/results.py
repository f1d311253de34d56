"""What training and evaluation leave, as data: an epoch's record, and a split measured whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class ClassResult:
    """One class: precision, recall and F1 (fractions; 0 where undefined) and its number of images."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A split measured whole.

    Attributes:
        classes: the class names, in the order of the scores.
        top1: share of the images whose true class has the highest score; of equal scores the first class counts.
        top5: share whose true class is among the min(5, classes) highest.
        loss: mean cross-entropy over the images, in nats.
        confusion: int64 `[true, predicted]`, counts.
        per_class: precision, recall, F1 and support, in the order of `classes`.
        labels: int64 `[N]`; scores: float32 `[N, classes]`.
        seconds: wall-clock time of the scoring.
    """

    classes: tuple[str, ...]
    top1: float
    top5: float
    loss: float
    confusion: np.ndarray
    per_class: tuple[ClassResult, ...]
    labels: np.ndarray
    scores: np.ndarray
    seconds: float

    @property
    def images(self) -> int:
        """How many images were measured."""
        return len(self.labels)

    @property
    def predicted(self) -> np.ndarray:
        """The class of the highest score, int64 `[N]`; of equal scores the first."""
        return self.scores.argmax(axis=1)

    def summary(self) -> dict[str, Any]:
        """The figures of the whole split, as `metrics.json` holds them."""
        return {
            "top1": self.top1,
            "top5": self.top5,
            "loss": self.loss,
            "images": self.images,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class EpochRecord:
    """One row of ``history.csv``. Losses are cross-entropy in nats, top-1 a fraction; each a mean over samples."""

    epoch: int
    train_loss: float
    train_top1: float
    validation_loss: float
    validation_top1: float
    learning_rate: float
    images_per_second: float
    seconds: float

    @property
    def rank(self) -> tuple[float, float]:
        """The epoch of the highest rank is the best: by validation top-1, a tie by the lower loss."""
        return self.validation_top1, -self.validation_loss
