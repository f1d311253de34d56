"""Curves of precision and recall: counted threshold by threshold, and as drawn."""

from __future__ import annotations

import numpy as np
import pytest

from paddle_resnet.evaluation.metrics import evaluation_of, precision_recall_curves
from paddle_resnet.plots.classification import draw_precision_recall

pytestmark = pytest.mark.once


def evaluation(images=60, classes=3, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, images)
    # Tenths, so that some images share a score.
    scores = (generator.dirichlet(np.ones(classes), images) + 0.3 * np.eye(classes)[labels]).round(1).astype(np.float32)
    return evaluation_of(scores, labels, [f"class {label}" for label in range(classes)], seconds=1.0)


def counted(truth, scores):
    """Precision and recall of "score >= threshold" for each score as the threshold, from the highest down."""
    points = []
    for threshold in sorted(set(scores), reverse=True):
        found = scores >= threshold
        points.append((np.mean(truth[found]), np.sum(truth & found) / np.sum(truth)))
    return np.array(points).T


def test_curves_equal_counts_by_threshold():
    measured = evaluation()
    curves = precision_recall_curves(measured)
    assert [curve.name for curve in curves] == ["class 0", "class 1", "class 2"]
    for label, curve in enumerate(curves):
        precision, recall = counted(measured.labels == label, measured.scores[:, label])
        # The curve falls from recall 1, and ends in the point of no image: precision 1, recall 0.
        assert (curve.precision[-1], curve.recall[-1]) == (1, 0)
        points = {(round(p, 9), round(r, 9)) for p, r in zip(precision, recall, strict=True)}
        found = {(round(p, 9), round(r, 9)) for p, r in zip(curve.precision[:-1], curve.recall[:-1], strict=True)}
        assert found <= points
        assert {r for _, r in found} == {r for _, r in points}
        expected = np.sum(np.diff(recall, prepend=0) * precision)
        assert curve.average_precision == pytest.approx(expected)


def test_the_plot_shows_the_curves():
    measured = evaluation()
    curves = precision_recall_curves(measured)
    axes = draw_precision_recall(curves, "run").axes[0]
    for line, curve in zip(axes.get_lines(), curves, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), curve.recall)
        np.testing.assert_array_equal(line.get_ydata(), curve.precision)
        assert line.get_label() == f"{curve.name}  {100 * curve.average_precision:.1f}%"
    mean = np.mean([curve.average_precision for curve in curves])
    assert axes.get_title("left") == f"mean average precision {100 * mean:.1f}% over 3 classes"


def test_the_worst_of_many_classes_are_drawn():
    measured = evaluation(images=200, classes=14)
    scores = np.c_[measured.scores, np.zeros(200, np.float32)]
    measured = evaluation_of(scores, measured.labels, [*measured.classes, "empty"], seconds=1.0)
    curves = precision_recall_curves(measured)
    axes = draw_precision_recall(curves, "run").axes[0]
    precisions = sorted(curve.average_precision for curve in curves)
    assert len(precisions) == 14
    shown = [float(line.get_label().split()[-1].removesuffix("%")) for line in axes.get_lines()]
    np.testing.assert_allclose(shown, [100 * precision for precision in precisions[:10]], atol=0.051)
