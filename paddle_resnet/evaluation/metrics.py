"""Metrics of a whole split: top-1, top-5, cross-entropy, confusion, precision and recall by class."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve, precision_recall_fscore_support

from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.evaluation.scorer import Scorer
from paddle_resnet.results import ClassResult, Evaluation, PrecisionRecallCurve

TOP_K = 5


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
    images, seconds = 0, 0.0
    for batch, labels in batches:
        start = time.perf_counter()
        scores = scorer.scores(batch)
        seconds += time.perf_counter() - start
        _check_scores(scores, len(batch), len(classes), images)
        all_scores.append(scores)
        all_labels.append(np.asarray(labels, np.int64).reshape(-1))
        images += len(batch)
        if progress is not None:
            progress(images)
    if images == 0:
        raise UsageError("there are no images to measure: the split is empty")
    return evaluation_of(np.concatenate(all_scores), np.concatenate(all_labels), classes, seconds)


def evaluation_of(scores: np.ndarray, labels: np.ndarray, classes: Sequence[str], seconds: float) -> Evaluation:
    """Compute the metrics of scores `[N, classes]` against labels `[N]`."""
    number, predicted = len(classes), scores.argmax(axis=1)
    ranks = rank_of_truth(scores, labels)
    by_class = precision_recall_fscore_support(labels, predicted, labels=np.arange(number), zero_division=0)
    return Evaluation(
        classes=tuple(classes),
        top1=float(np.mean(ranks < 1)),
        top5=float(np.mean(ranks < min(TOP_K, number))),
        loss=cross_entropy(scores, labels),
        confusion=np.bincount(labels * number + predicted, minlength=number**2).reshape(number, number),
        per_class=tuple(
            ClassResult(name, float(precision), float(recall), float(f1), int(support))
            for name, precision, recall, f1, support in zip(classes, *by_class, strict=True)
        ),
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


def precision_recall_curves(evaluation: Evaluation) -> list[PrecisionRecallCurve]:
    """Compute the curve of each class that has images, in the order of the classes."""
    curves = []
    for label, name in enumerate(evaluation.classes):
        truth, scores = evaluation.labels == label, evaluation.scores[:, label]
        if truth.any():
            precision, recall, _ = precision_recall_curve(truth, scores)
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
