"""Metrics of scores in a table, against scikit-learn and closed forms."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics
from sklearn.calibration import calibration_curve

from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.evaluation import measure
from paddle_resnet.evaluation.metrics import confused_pairs, evaluation_of, lowest_threshold
from paddle_resnet.results import wilson_interval


class TableScorer:
    """Returns row i of a table for image i, whose first pixel's value is i."""

    def __init__(self, table):
        self.table = np.asarray(table, np.float32)
        self.batches = []

    def scores(self, batch):
        self.batches.append(len(batch))
        return self.table[batch[:, 0, 0, 0]]


def numbered_batches(labels, size):
    labels = np.asarray(labels, np.int64)
    images = np.zeros((len(labels), 1, 1, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(len(labels))
    return [(images[i : i + size], labels[i : i + size]) for i in range(0, len(labels), size)]


def random_case(images=200, classes=7, seed=0):
    generator = np.random.default_rng(seed)
    table = generator.dirichlet(np.full(classes, 0.3), images).astype(np.float32)
    labels = generator.integers(0, classes, images)
    return table, labels, [f"class {i}" for i in range(classes)]


def test_metrics_equal_scikit_learns():
    table, labels, classes = random_case()
    found = measure(TableScorer(table), numbered_batches(labels, 32), classes)
    every = np.arange(len(classes))
    assert found.images == 200
    assert found.top1 == pytest.approx(metrics.accuracy_score(labels, table.argmax(1)))
    assert found.top5 == pytest.approx(metrics.top_k_accuracy_score(labels, table, k=5, labels=every))
    # The probabilities are float32, so a table's rows sum to 1 only nearly.
    assert found.loss == pytest.approx(-np.log(table[np.arange(200), labels].astype(float)).mean(), rel=1e-6)
    assert found.f1 == pytest.approx(metrics.f1_score(labels, table.argmax(1), average="macro"))
    shares = table / table.sum(1, keepdims=True, dtype=float)  # as scikit-learn insists on sums of 1
    assert found.roc_auc == pytest.approx(metrics.roc_auc_score(labels, shares, multi_class="ovr"), rel=1e-6)
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(labels, table.argmax(1), labels=every))
    report = metrics.classification_report(
        labels, table.argmax(1), labels=every, target_names=classes, output_dict=True, zero_division=0
    )
    for result in found.per_class:
        expected = report[result.name]
        assert (result.precision, result.recall, result.f1, result.support) == pytest.approx(
            (expected["precision"], expected["recall"], expected["f1-score"], expected["support"])
        )


def test_averages_are_over_classes_with_images():
    table, labels, classes = random_case()
    labels = np.where(labels < 2, 4, labels)
    found = evaluation_of(table, labels, classes, 1.0)
    present = np.unique(labels)
    f1 = metrics.f1_score(labels, table.argmax(1), average="macro", labels=present)
    assert found.f1 == pytest.approx(f1)
    assert found.roc_auc == pytest.approx(np.mean([metrics.roc_auc_score(labels == c, table[:, c]) for c in present]))


def test_calibration_equals_scikit_learns():
    table, labels, classes = random_case(images=500)
    found = evaluation_of(table, labels, classes, 1.0).calibration
    right, confidence = table.argmax(1) == labels, table.max(1).astype(float)
    accuracies, confidences = calibration_curve(right, confidence, n_bins=15)
    used = found.images > 0
    np.testing.assert_allclose(found.accuracy[used], accuracies)
    np.testing.assert_allclose(found.confidence[used], confidences)
    assert found.images.sum() == 500
    assert found.error == pytest.approx(np.sum(found.images[used] / 500 * np.abs(accuracies - confidences)))


def test_calibration_error_of_equal_probabilities():
    """Of 10 images with a best probability of 3/4, 6 are right: 0.15."""
    table = np.tile(np.array([[0.75, 0.25]], np.float32), (10, 1))
    assert evaluation_of(table, np.array([0] * 6 + [1] * 4), "ab", 1.0).calibration.error == pytest.approx(0.15)


@pytest.mark.parametrize(("right", "images"), [(0, 1), (1, 1), (13, 20), (49, 49), (941, 1000)])
def test_the_interval_is_wilsons(right, images):
    expected = binomtest(right, images).proportion_ci(method="wilson")
    assert wilson_interval(right / images, images) == pytest.approx(expected, abs=1e-6)


def test_top5_is_told_of_more_than_five_classes():
    for classes in (5, 6):
        table, labels, names = random_case(classes=classes)
        assert ("top5" in evaluation_of(table, labels, names, 1.0).summary()) == (classes == 6)


@pytest.mark.parametrize("digits", [1, 7])  # with tenths, many images share a probability
def test_the_threshold_is_the_lowest_that_suffices(digits):
    table, labels, _ = random_case(images=300)
    table = table.round(digits)
    confidence, right = table.max(1), table.argmax(1) == labels
    for accuracy in (0.05, 0.2, 0.25, 0.3):
        found = lowest_threshold(table, labels, accuracy)
        enough = [value for value in np.unique(confidence) if right[confidence >= value].mean() >= accuracy]
        assert (found is None) == (not enough)
        if found is not None:
            np.testing.assert_array_equal(confidence >= found, confidence >= enough[0])
    assert lowest_threshold(table, labels, 0.01) == 0.0
    assert lowest_threshold(table, (table.argmax(1) + 1) % 7, 0.5) is None


def test_most_confused_classes_come_first():
    predicted, labels = np.array([1, 1, 0, 2, 2, 2, 2]), np.array([0, 0, 1, 1, 2, 1, 1])
    found = evaluation_of(np.eye(3, dtype=np.float32)[predicted], labels, ["cat", "dog", "eel"], 1.0)
    assert confused_pairs(found, 9) == [(1, 2, 3, 4), (0, 1, 2, 2), (1, 0, 1, 4)]
    assert confused_pairs(found, 2) == [(1, 2, 3, 4), (0, 1, 2, 2)]
    assert found.confusion.tolist() == metrics.confusion_matrix(labels, predicted).tolist()
    assert found.confusion_counts().tolist() == [[0, 1, 2], [1, 0, 1], [1, 2, 3], [2, 2, 1]]


def test_a_smaller_last_batch_counts_by_its_images():
    # Two images right in the first batch of two, one wrong in the last batch of one: 2/3, not (1 + 0) / 2.
    table = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]
    found = measure(TableScorer(table), numbered_batches([0, 1, 1], 2), ["a", "b"])
    assert found.top1 == pytest.approx(2 / 3)
    assert found.loss == pytest.approx(-(np.log(0.9) + np.log(0.8) + np.log(0.4)) / 3)


def test_equal_scores_rank_the_first_class_first():
    table = np.full((3, 8), 1 / 8)
    found = measure(TableScorer(table), numbered_batches([0, 4, 5], 2), list("abcdefgh"))
    assert found.top1 == pytest.approx(1 / 3)  # only the image of class a
    assert found.top5 == pytest.approx(2 / 3)  # a and e are among the first five, f is not
    assert found.loss == pytest.approx(np.log(8))


@pytest.mark.parametrize("classes", [1, 2])
def test_few_classes_give_finite_metrics_without_warnings(classes):
    table = np.zeros((4, classes))
    table[:, 0] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure(TableScorer(table), numbered_batches([0, 0, 0, classes - 1], 3), list("ab")[:classes])
    assert found.top5 == 1
    assert found.top1 == (1 if classes == 1 else 0.75)
    assert found.per_class[-1].recall == (1 if classes == 1 else 0)
    assert np.isfinite(found.loss)


def test_progress_counts_images():
    table, labels, classes = random_case(images=10)
    seen = []
    measure(TableScorer(table), numbered_batches(labels, 4), classes, seen.append)
    assert seen == [4, 8, 10]


def test_no_images_is_a_usage_error():
    with pytest.raises(UsageError, match="no images"):
        measure(TableScorer([[1.0]]), [], ["a"])


def test_scores_that_are_not_finite_are_refused():
    table = np.full((5, 2), 0.5)
    table[3, 1] = np.nan
    with pytest.raises(RunFailure, match="image 3"):
        measure(TableScorer(table), numbered_batches([0] * 5, 2), ["a", "b"])


def test_scores_of_another_shape_are_refused():
    with pytest.raises(RunFailure, match="expected"):
        measure(TableScorer(np.full((2, 3), 1 / 3)), numbered_batches([0, 1], 2), ["a", "b"])
