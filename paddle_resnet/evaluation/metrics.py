"""Metrics of a whole split: accuracy, cross-entropy, F1, ROC-AUC, calibration, confusion; a threshold."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    precision_recall_fscore_support,
    roc_auc_score,
)

from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.evaluation.scorer import SINGLE_VIEW, NetworkScorer, Scorer
from paddle_resnet.results import TOP_K, Calibration, ClassResult, ConfusedPair, Evaluation, PrecisionRecallCurve

BINS = 15


def measure(
    scorer: Scorer,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    classes: Sequence[str],
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Score every image of `batches` and compute the metrics.

    Args:
        scorer: the model to measure.
        batches: pairs of uint8 images `[n, S, S, 3]` and int64 labels `[n]`.
        classes: the class names, in the order of the scores.
        progress: called after each batch with the number of images scored so far.

    Raises:
        UsageError: there is no image to measure.
        RunFailure: a score is not finite, or an image has another number of scores than there are classes.
    """
    all_scores, all_labels = [], []
    images, single_view_right, seconds = 0, 0, 0.0
    averaging = scorer if isinstance(scorer, NetworkScorer) and scorer.views != SINGLE_VIEW else None
    for batch, labels in batches:
        start = time.perf_counter()
        scores = scorer.scores(batch)
        seconds += time.perf_counter() - start
        _check_scores(scores, len(batch), len(classes), images)
        all_scores.append(scores)
        all_labels.append(np.asarray(labels, np.int64).reshape(-1))
        if averaging is not None:
            single_view_right += int((averaging.single_view.argmax(axis=1) == all_labels[-1]).sum())
        images += len(batch)
        if progress is not None:
            progress(images)
    if images == 0:
        raise UsageError("there are no images to measure: the split is empty")
    evaluation = evaluation_of(np.concatenate(all_scores), np.concatenate(all_labels), classes, seconds)
    return evaluation if averaging is None else replace(evaluation, single_view_top1=single_view_right / images)


def evaluation_of(scores: np.ndarray, labels: np.ndarray, classes: Sequence[str], seconds: float) -> Evaluation:
    """Compute the metrics of scores `[N, classes]` against labels `[N]`."""
    number, predicted = len(classes), scores.argmax(axis=1)
    ranks = rank_of_truth(scores, labels)
    by_class = precision_recall_fscore_support(labels, predicted, labels=np.arange(number), zero_division=0)
    return Evaluation(
        classes=tuple(classes),
        top1=float(np.mean(ranks < 1)),
        top5=float(np.mean(ranks < min(TOP_K, number))),
        f1=float(by_class[2][by_class[3] > 0].mean()),
        roc_auc=macro_roc_auc(scores, labels),
        loss=cross_entropy(scores, labels),
        per_class=tuple(
            ClassResult(name, float(precision), float(recall), float(f1), int(support))
            for name, precision, recall, f1, support in zip(classes, *by_class, strict=True)
        ),
        calibration=calibration_of(scores, labels),
        labels=labels,
        scores=scores,
        seconds=seconds,
    )


def rank_of_truth(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return how many classes rank above the true one, int64 `[N]`; among equal scores the first class ranks first."""
    truth = scores[np.arange(len(labels)), labels][:, None]
    comes_first = np.arange(scores.shape[1])[None, :] < labels[:, None]
    return np.sum((scores > truth) | ((scores == truth) & comes_first), axis=1)


def cross_entropy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of -ln(probability of the true class) over the images, in nats.

    A probability of zero counts as the smallest normal float32 (87.3 nats), so the mean is finite.
    """
    truth = scores[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(truth, np.finfo(np.float32).tiny)).mean())


def macro_roc_auc(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the mean area under the ROC curves of `Evaluation.roc_auc`."""
    classes = [label for label in np.unique(labels) if not (labels == label).all()]
    areas = [roc_auc_score(labels == label, scores[:, label]) for label in classes]
    return float(np.mean(areas)) if areas else None


def calibration_of(scores: np.ndarray, labels: np.ndarray) -> Calibration:
    """Sort the images into bins of equal width by their best probability (Guo et al. 2017, arXiv:1706.04599)."""
    confidence, right = scores.max(axis=1).astype(np.float64), scores.argmax(axis=1) == labels
    places = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence)
    images = np.bincount(places, minlength=BINS)
    means = [np.bincount(places, each, BINS) / np.maximum(images, 1) for each in (confidence, right)]
    return Calibration(means[0], means[1], images)


def lowest_threshold(scores: np.ndarray, labels: np.ndarray, accuracy: float) -> float | None:
    """Return the lowest threshold of the best probability above which at least `accuracy` of the images are right.

    It lies in the middle between two probabilities; 0 keeps all images. None: there is no such threshold.
    """
    confidence, right = scores.max(axis=1).astype(np.float64), scores.argmax(axis=1) == labels
    order = np.argsort(-confidence)
    confidence = np.append(confidence[order], 0.0)
    enough = np.cumsum(right[order]) >= accuracy * np.arange(1, len(order) + 1)
    (kept,) = np.nonzero(enough & (confidence[:-1] > confidence[1:]))  # images of equal probability go together
    if len(kept) == 0:
        return None
    return 0.0 if kept[-1] == len(labels) - 1 else float(confidence[kept[-1] : kept[-1] + 2].mean())


def confused_pairs(evaluation: Evaluation, number: int) -> list[ConfusedPair]:
    """Return the classes of the most frequent mistakes, the most frequent first."""
    counts = evaluation.confusion_counts()
    mistakes = counts[counts[:, 0] != counts[:, 1]]
    order = np.argsort(-mistakes[:, 2], kind="stable")[:number]
    return [
        ConfusedPair(true, predicted, images, evaluation.per_class[true].support)
        for true, predicted, images in mistakes[order].tolist()
    ]


def precision_recall_curves(evaluation: Evaluation) -> list[PrecisionRecallCurve]:
    """Compute the curve of each class that has images, in the order of the classes."""
    curves = []
    for label, name in enumerate(evaluation.classes):
        truth, scores = evaluation.labels == label, evaluation.scores[:, label]
        if truth.any():
            precision, recall, _ = precision_recall_curve(truth, scores, drop_intermediate=True)
            average = float(average_precision_score(truth, scores))
            curves.append(PrecisionRecallCurve(name, precision, recall, average))
    return curves


def _check_scores(scores: np.ndarray, images: int, classes: int, first: int) -> None:
    if scores.shape != (images, classes):
        raise RunFailure(
            f"the model returned scores of shape {list(scores.shape)}, expected [{images}, {classes}]: "
            f"was it made for these {classes} classes?"
        )
    broken = ~np.isfinite(scores).all(axis=1)
    if broken.any():
        raise RunFailure(
            f"the scores of image {first + int(broken.argmax())} are not finite: the network's weights have diverged; "
            "train again with a lower train.learning_rate"
        )
