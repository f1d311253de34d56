"""Results of training and evaluation as data: an epoch's record, and the metrics of a whole split."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass

TOP_K = 5


def wilson_interval(fraction: float, images: int) -> tuple[float, float]:
    """Return the 95% interval of an accuracy that was measured as `fraction` on so many images (Wilson 1927)."""
    z = 1.959964
    centre = fraction + z**2 / (2 * images)
    half = z * math.sqrt(fraction * (1 - fraction) / images + z**2 / (4 * images**2))
    low, high = ((centre + side) / (1 + z**2 / images) for side in (-half, half))
    return max(0.0, low), min(1.0, high)


def accuracy_text(fraction: float, images: int) -> str:
    """Return an accuracy with its interval: ``94.20% (95% interval 92.1% to 95.8%)``."""
    low, high = wilson_interval(fraction, images)
    return f"{fraction:.2%} (95% interval {low:.1%} to {high:.1%})"


@dataclass(frozen=True)
class ClassResult:
    """One class: precision, recall and F1 (fractions; 0 where undefined) and its number of images."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


class ConfusedPair(NamedTuple):
    """How many `images` of the class `true`, of all `support` of it, are taken for the class `predicted`."""

    true: int
    predicted: int
    images: int
    support: int


@dataclass(frozen=True, eq=False)
class PrecisionRecallCurve:
    """Precision and recall of one class against all others, by threshold on its probability.

    Points between two of one recall are left out.

    Attributes:
        name: of the class.
        precision: float64 `[n]`.
        recall: float64 `[n]`, falling from 1 to 0.
        average_precision: mean of the precision over the recall, in steps, not interpolated.
    """

    name: str
    precision: np.ndarray
    recall: np.ndarray
    average_precision: float


@dataclass(frozen=True, eq=False)
class Calibration:
    """Whether probabilities are what they say: images in bins of equal width by their best probability.

    Attributes:
        confidence: mean of the best probability in each bin, float64 `[bins]`; 0 in empty ones.
        accuracy: fraction of the bin's images that are right, float64 `[bins]`; 0 in empty ones.
        images: their number, int64 `[bins]`.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    images: np.ndarray

    @property
    def error(self) -> float:
        """Return the expected calibration error: the bins' mean of |accuracy - confidence|, weighted by images."""
        return float(np.average(np.abs(self.accuracy - self.confidence), weights=self.images))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Metrics of a whole split.

    Attributes:
        classes: the class names, in the order of the scores.
        top1: fraction of the images whose true class has the highest score; among equal scores the first class wins.
        top5: fraction whose true class is among the min(5, classes) highest scores.
        f1: mean of the F1 of the classes that have images (macro).
        roc_auc: mean area under the ROC curve of each class against all others (macro, one versus rest), over the
            classes that have images and are not alone; None: there is none.
        loss: mean cross-entropy over the images, in nats.
        per_class: precision, recall, F1 and support, in the order of `classes`.
        calibration: of the best probabilities.
        labels: int64 `[N]`; scores: float32 `[N, classes]`.
        seconds: wall-clock time of the scoring.
        single_view_top1: top-1 without averaging, where the scores are means over several views of each image.
    """

    classes: tuple[str, ...]
    top1: float
    top5: float
    f1: float
    roc_auc: float | None
    loss: float
    per_class: tuple[ClassResult, ...]
    calibration: Calibration
    labels: np.ndarray
    scores: np.ndarray
    seconds: float
    single_view_top1: float | None = None

    def __repr__(self) -> str:
        metrics = (
            (name, round(value, 4) if isinstance(value, float) else value) for name, value in self.summary().items()
        )
        return f"Evaluation({', '.join(f'{name}={value}' for name, value in metrics if name != 'top1_interval')})"

    @property
    def images(self) -> int:
        return len(self.labels)

    def top1_text(self) -> str:
        """Return top-1 with its interval, and where views were averaged, also without that."""
        text = accuracy_text(self.top1, self.images)
        if self.single_view_top1 is None:
            return text
        return f"{text}, averaged over views of each image; without averaging {self.single_view_top1:.2%}"

    @property
    def predicted(self) -> np.ndarray:
        """Return the class of the highest score, int64 `[N]`; among equal scores the first."""
        return self.scores.argmax(axis=1)

    @property
    def confusion(self) -> np.ndarray:
        """Return the confusion matrix, int64 `[true, predicted]`: counts of images."""
        matrix = np.zeros([len(self.classes)] * 2, np.int64)
        np.add.at(matrix, (self.labels, self.predicted), 1)
        return matrix

    def confusion_counts(self) -> np.ndarray:
        """Return the matrix's counts above 0, int64 `[n, 3]`: rows `(true, predicted, images)` in this order.

        There are no more of them than images, however many classes there are.
        """
        pairs, images = np.unique(np.stack([self.labels, self.predicted], axis=1), axis=0, return_counts=True)
        return np.column_stack([pairs, images])

    def summary(self) -> dict[str, Any]:
        """Return the metrics of the whole split, as in `metrics.json`."""
        more = {"top5": self.top5} if len(self.classes) > TOP_K else {}
        if self.single_view_top1 is not None:
            more["single_view_top1"] = self.single_view_top1
        return {
            "top1": self.top1,
            "top1_interval": list(wilson_interval(self.top1, self.images)),
            **more,
            "f1": self.f1,
            "roc_auc": self.roc_auc,
            "calibration_error": self.calibration.error,
            "loss": self.loss,
            "images": self.images,
            "seconds": round(self.seconds, 3),
        }


Real = Annotated[float, Field(strict=True)]
NotNegative = Annotated[float, Field(strict=True, ge=0)]
Fraction = Annotated[float, Field(strict=True, ge=0, le=1)]
Monitor: TypeAlias = Literal["top1", "loss", "macro_f1", "epoch"]


@checked_dataclass(frozen=True, config=ConfigDict(allow_inf_nan=False))
class EpochRecord:
    """A row of ``history.csv``: means over samples; losses are cross-entropy in nats, top-1 is a fraction.

    Raises:
        ValueError: a value has another type, is not finite or out of range, as in a damaged file.
    """

    epoch: Annotated[int, Field(strict=True, ge=1)]
    train_loss: Real
    train_top1: Fraction
    validation_loss: Real
    validation_top1: Fraction
    learning_rate: NotNegative
    images_per_second: NotNegative
    seconds: NotNegative
    threads: Annotated[int, Field(strict=True, ge=1)] | None = None
    """Threads of the epoch's operations; None: it ran on a GPU, or by a version that did not record them."""
    validation_macro_f1: Fraction | None = None  # the mean F1 over the classes, if it is what the run monitors

    def rank(self, monitor: Monitor) -> tuple[float, float]:
        """Return the sort key of epochs, highest is best: what is monitored, then the lower loss (or higher top-1)."""
        if monitor == "epoch":
            return self.epoch, 0.0
        if monitor == "loss":
            return -self.validation_loss, self.validation_top1
        return (self.validation_top1 if monitor == "top1" else self.validation_macro_f1 or 0.0), -self.validation_loss
