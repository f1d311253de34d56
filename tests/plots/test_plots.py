"""Plots: their contents, and that they are written atomically."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from paddle_resnet.evaluation.metrics import evaluation_of
from paddle_resnet.evaluation.run_plots import choose_mistakes
from paddle_resnet.plots.bar_chart import Bar, Panel, draw_panels
from paddle_resnet.plots.classification import draw_confusion_matrix
from paddle_resnet.plots.curves import draw_learning_curves
from paddle_resnet.plots.image_grids import draw_mistakes, draw_samples
from paddle_resnet.plots.style import make_figure, percent, relabel, save_figure, shortened
from paddle_resnet.results import EpochRecord

pytestmark = pytest.mark.once


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_an_odd_number_of_panels_leaves_no_empty_one():
    bar = Bar("a", "onednn", {"median": 2.0, "smallest": 1.0, "largest": 3.0})
    figure = draw_panels([Panel(name, "ms", [bar]) for name in "abc"], "title", "caption")
    assert [axes.get_title("left") for axes in figure.axes if axes.get_visible()] == ["a", "b", "c"]


def test_samples_are_titled_with_their_class():
    images = np.zeros((3, 8, 8, 3), np.uint8)
    images[1] = 200
    (axes,) = draw_samples(images, np.array([2, 0, 1]), ["a", "b", "c"], "title").axes
    assert [text.get_text() for text in axes.texts] == ["c", "a", "b"]
    np.testing.assert_array_equal([image.get_array() for image in axes.images], images)
    for text, image in zip(axes.texts, axes.images, strict=True):
        left, right, bottom, top = image.get_extent()
        x, y = text.get_position()
        assert left < x < right and y < top < bottom  # downwards


def test_wide_pictures_keep_their_shape_and_do_not_overlap():
    images = np.zeros((9, 10, 40, 3), np.uint8)
    (axes,) = draw_samples(images, np.zeros(9, int), ["a"], "title").axes
    extents = np.array([image.get_extent() for image in axes.images])
    lefts, rights, bottoms, tops = extents.T
    np.testing.assert_allclose((rights - lefts) / (bottoms - tops), 4)
    assert (rights[:7] < lefts[1:8]).all() and bottoms[0] < tops[8] and lefts[0] == lefts[8]


@pytest.fixture
def evaluation():
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3], [0.05, 0.95]], np.float32)
    labels = np.array([0, 0, 0, 1, 1])  # wrong: 1 (0.8), 2 (0.6), 3 (0.7)
    return evaluation_of(scores, labels, ["cat", "dog"], seconds=1.0)


def test_mistakes_name_prediction_probability_and_truth(evaluation):
    chosen = choose_mistakes(evaluation)
    figure = draw_mistakes(np.zeros((3, 8, 8, 3), np.uint8), chosen, evaluation, "title")
    assert texts(figure)[:4] == ["dog 80.0%", "is cat", "cat 70.0%", "is dog"]


def test_no_mistakes_are_reported(evaluation):
    right = evaluation_of(evaluation.scores, evaluation.predicted, ["cat", "dog"], 1.0)
    assert len(choose_mistakes(right)) == 0
    figure = draw_mistakes(np.zeros((0, 1, 1, 3), np.uint8), choose_mistakes(right), right, "title")
    assert texts(figure) == ["No mistakes: all 5 images right."]


def test_confusion_matrix_shows_counts_and_shares():
    confusion = np.array([[8, 2, 0], [0, 5, 5], [0, 0, 0]])
    figure = draw_confusion_matrix(confusion, ["a", "b", "c"], "title")
    assert texts(figure) == ["8", "2", "5", "5"]
    shares = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(shares, [[0.8, 0.2, 0], [0, 0.5, 0.5], [0, 0, 0]])
    assert "65.0% of 20 images" in figure.axes[0].get_title("left")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b", "c"]


@pytest.mark.parametrize(("classes", "annotated"), [(20, True), (21, False), (100, False)])
def test_confusion_matrix_has_counts_up_to_20_classes(classes, annotated):
    figure = draw_confusion_matrix(np.eye(classes, dtype=int), [str(i) for i in range(classes)], "title")
    assert len(texts(figure)) == (classes if annotated else 0)
    assert len(figure.axes[0].get_xticklabels()) == classes


def history(epochs):
    return [
        EpochRecord(
            epoch=epoch,
            train_loss=2 / epoch,
            train_top1=1 - 1 / (epoch + 1),
            validation_loss=2.2 / epoch,
            validation_top1=0.5 + 0.1 * (epoch == 2),
            learning_rate=0.1 / epoch,
            images_per_second=100.0,
            seconds=1.0,
        )
        for epoch in range(1, epochs + 1)
    ]


def test_learning_curves_draw_the_history():
    figure = draw_learning_curves(history(4), "title")
    loss, top1, rate = figure.axes
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [2, 1, 2 / 3, 0.5])
    np.testing.assert_allclose(loss.lines[1].get_ydata(), [2.2, 1.1, 2.2 / 3, 0.55])
    np.testing.assert_allclose(top1.lines[1].get_ydata(), [50, 60, 50, 50])
    np.testing.assert_allclose(rate.lines[0].get_ydata(), [0.1, 0.05, 0.1 / 3, 0.025])
    assert top1.get_title("right") == "best 60.0%, epoch 2"
    assert loss.get_ylim()[1] > 2.2


@pytest.mark.parametrize("epochs", [1, 60])
def test_learning_curves_of_any_length_are_written(tmp_path, epochs):
    path = tmp_path / "curves.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(path, lambda: draw_learning_curves(history(epochs), "run"))
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width > 800


def test_names_are_not_typeset_as_math(tmp_path):
    names = ["$5", "a_b$x^", "数字"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(tmp_path / "x.png", lambda: draw_confusion_matrix(np.eye(3, dtype=int), names, "$run"))
    assert (tmp_path / "x.png").stat().st_size > 0


def test_a_failed_drawing_keeps_the_earlier_file(tmp_path):
    path = tmp_path / "figure.png"
    save_figure(path, lambda: draw_learning_curves(history(2), "run"))
    before = path.read_bytes()

    def fail():
        raise RuntimeError("no drawing")

    with pytest.raises(RuntimeError):
        save_figure(path, fail)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["figure.png"]


def test_drawing_keeps_matplotlibs_settings(tmp_path):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    save_figure(tmp_path / "figure.png", lambda: draw_learning_curves(history(2), "run"))
    assert dict(mpl.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


@pytest.mark.parametrize(("fraction", "text"), [(1, "100%"), (0.99999, "99.9%"), (0.5, "50.0%"), (0, "0.0%")])
def test_only_a_whole_is_100_percent(fraction, text):
    assert percent(fraction) == text


def test_long_names_are_shortened():
    assert shortened("automobile", 10) == "automobile"
    assert shortened("automobiles", 10) == "automobil…"


def test_every_text_of_a_figure_is_relabelled():
    figure, (fixed, categories) = make_figure(4, 2, 1, 2, title="both")
    fixed.plot([1, 2], [3, 4], label="line")
    fixed.legend()
    fixed.set_xticks([1, 2], ["first", "second"])
    fixed.set_xlabel("axis")
    categories.bar(["third"], [1.0])
    relabel(figure, str.upper)
    figure.draw_without_rendering()
    labels = [
        *fixed.get_xticklabels(),
        fixed.xaxis.label,
        *fixed.get_legend().get_texts(),
        *categories.get_xticklabels(),
    ]
    words = [figure.get_suptitle(), *(label.get_text() for label in labels)]
    assert words == ["BOTH", "FIRST", "SECOND", "AXIS", "LINE", "THIRD"]
