"""Confusion, calibration and the most confused classes, as drawn."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest

from paddle_resnet.evaluation.metrics import confused_pairs, evaluation_of
from paddle_resnet.plots.classification import draw_calibration, draw_confusion_matrix
from paddle_resnet.plots.image_grids import draw_confused_pairs

pytestmark = pytest.mark.once


def evaluation(classes, images=120):
    generator = np.random.default_rng(classes)
    scores = generator.dirichlet(np.full(classes, 0.5), images).astype(np.float32)
    return evaluation_of(scores, generator.integers(0, classes, images), [f"class {i}" for i in range(classes)], 1.0)


@pytest.mark.parametrize(("classes", "power"), [(2, 1.0), (12, 0.5)])
def test_few_classes_are_coloured_by_their_share(classes, power):
    """Of many classes the colour follows the square root."""
    confusion = np.full((classes, classes), 1)
    confusion[0] = [9, 91, *[0] * (classes - 2)]
    (image,) = draw_confusion_matrix(confusion, [str(i) for i in range(classes)], "run").axes[0].get_images()
    expected = mpl.colormaps["Blues"](0.09**power)
    np.testing.assert_allclose(image.to_rgba(image.get_array())[0, 0], expected, atol=0.005)


def test_the_diagram_shows_accuracy_and_confidence_by_bin():
    calibration = evaluation(4).calibration
    axes, below = draw_calibration(calibration, "run").axes
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], calibration.accuracy)
    (confidences,) = axes.collections
    shown = [segment[0, 1] for segment in confidences.get_segments()]
    np.testing.assert_allclose(shown, calibration.confidence[calibration.images > 0])
    np.testing.assert_allclose([bar.get_height() for bar in below.patches], calibration.images / 120)
    assert axes.get_title("left") == f"expected calibration error {100 * calibration.error:.1f}%"


def test_each_confused_pair_is_a_row_of_examples():
    measured = evaluation(3)
    pairs = confused_pairs(measured, 2)
    examples = [np.full((count, 4, 4, 3), 30 * count, np.uint8) for count in (8, 3)]
    (axes,) = draw_confused_pairs(examples, pairs, measured, "run").axes
    tops = sorted({image.get_extent()[3] for image in axes.images})
    rows = [[image for image in axes.images if image.get_extent()[3] == top] for top in tops]
    for row, text, images, (true, predicted, *_) in zip(rows, axes.texts, examples, pairs, strict=True):
        np.testing.assert_array_equal([image.get_array() for image in row], images)
        wrong, whole = measured.confusion[true, predicted], measured.confusion[true].sum()
        assert text.get_text().startswith(f"class {true} taken for class {predicted}: {wrong} of {whole} (")
        assert text.get_position()[1] < row[0].get_extent()[3]
