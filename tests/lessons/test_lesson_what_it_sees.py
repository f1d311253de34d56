"""The lesson on what the network sees: measurements against numpy, and results of a short training."""

import numpy as np
import paddle
import pytest
from lesson_pages import figure_names

from paddle_resnet.data import uint8_batches
from paddle_resnet.evaluation.grad_cam import grad_cam
from paddle_resnet.lessons import Lesson
from paddle_resnet.lessons.common.runs import flatten_pixels
from paddle_resnet.lessons.what_it_sees.lesson import (
    ImageSet,
    knn_accuracy,
    mask_pixels,
    mean_correlation,
    project_2d,
)
from paddle_resnet.training.run_folder import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    overrides = ["device=cpu", "data.image_size=16"]
    return Lesson("what-it-sees").run(tmp_path_factory.mktemp("seen"), scale=0.15, overrides=overrides)


@pytest.fixture(scope="module")
def numbers(page):
    return page.numbers


@pytest.fixture(scope="module")
def run(page):
    return Run.open(page.folder / "runs" / "network")


def test_accuracy_covers_the_whole_test_split(numbers, run):
    splits = run.splits()
    ((pixels, labels),) = uint8_batches(splits.test, 1000, splits.resize, 16)
    with paddle.no_grad():
        predicted = run.load_network()(run.normalize()(paddle.to_tensor(pixels))).numpy().argmax(axis=1)
    assert numbers["test_images"] == len(labels) == 359
    assert numbers["top1"] == pytest.approx(np.mean(predicted == labels))
    assert numbers["mistakes"] == round((1 - numbers["top1"]) * 359)
    assert numbers["right_before"] == pytest.approx(numbers["top1"])
    assert numbers["top1"] > 0.5, "it has learnt something, or nothing that follows means much"


def test_grad_cam_equals_cam_at_the_last_stage(numbers):
    assert numbers["places"] == 4 * 4
    assert numbers["cam_difference"] < 1e-4 * numbers["cam_largest"]


def test_grey_responses_depend_on_the_channel_sum(numbers):
    assert numbers["sum_difference"] < 1e-4 * numbers["largest_answer"]


def test_neighbours_share_classes_in_later_stages(numbers):
    assert numbers["stages"] == ["stem", "layer1", "layer2", "layer3"]
    first, *_, last = numbers["neighbours_stages"]
    assert last > first + 0.1
    assert numbers["neighbours_pixels"] > 0.9


def test_occluding_marked_pixels_hurts_more_than_random(numbers):
    assert numbers["right_highest"][0] < numbers["right_random"][0] - 0.03
    assert numbers["right_random"][0] <= numbers["right_before"] + 0.02


def test_maps_depend_on_the_trained_weights(numbers):
    assert numbers["likeness_untrained"] < 0.7


def test_figures_are_written(page):
    expected = ["filters", "maps", "points", "grad_cam"] + ["mistakes"] * bool(page.numbers["mistakes"])
    assert figure_names(page) == expected


def test_maps_differ_between_classes(run):
    network, test = run.load_network(), run.splits().test
    images = run.normalize()(paddle.to_tensor(test.batch(np.arange(8)).repeat(2, axis=1).repeat(2, axis=2)))
    first, second = (grad_cam(network, images, np.full(8, label)) for label in (0, 1))
    assert np.abs(first - second).max() > 0.05 * max(first.max(), second.max())


# The measures.


def test_masking_paints_the_most_important_pixels():
    pixels = np.arange(2 * 2 * 2 * 3).astype(np.uint8).reshape(2, 2, 2, 3)
    importance = np.array([[[4.0, 3.0], [2.0, 1.0]], [[0.0, 0.0], [0.0, 9.0]]])
    hidden = mask_pixels(pixels, importance, 0.5, np.array([200, 201, 202], np.uint8))
    painted = (hidden == [200, 201, 202]).all(axis=-1)
    np.testing.assert_array_equal(painted[0], [[True, True], [False, False]])
    assert painted[1].sum() == 2 and painted[1, 1, 1]
    np.testing.assert_array_equal(hidden[~painted], pixels[~painted])
    np.testing.assert_array_equal(mask_pixels(pixels, importance, 0.0, np.zeros(3, np.uint8)), pixels)


def test_ties_are_masked_all_over_the_image():
    painted = (
        mask_pixels(np.ones((50, 8, 8, 3), np.uint8), np.zeros((50, 8, 8)), 0.5, np.zeros(3, np.uint8))[..., 0] == 0
    )
    np.testing.assert_array_equal(painted.sum(axis=(1, 2)), 32)
    often = painted.mean(axis=0)
    assert often.min() > 0.2 and often.max() < 0.8


def test_correlation_of_maps():
    maps = np.random.default_rng(0).normal(size=(3, 4, 4))
    assert mean_correlation(maps, 2 * maps + 1) == pytest.approx(1)
    assert mean_correlation(maps, -maps) == pytest.approx(-1)
    flat = maps.copy()
    flat[0] = 5
    assert mean_correlation(flat, maps) == pytest.approx(1), "the map without variation is left out"
    assert mean_correlation(np.zeros((3, 4, 4)), maps) == 0


def test_projections_and_silhouette():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], 40)
    points = generator.normal(size=(80, 5)) + 6 * labels[:, None] * np.eye(5)[0]
    flat = project_2d(points, labels)
    values = np.linalg.svd(points - points.mean(axis=0), compute_uv=False) ** 2
    assert flat.explained == pytest.approx(values[:2].sum() / values.sum(), rel=1e-5)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    own, other = labels[:, None] == labels, labels[:, None] != labels
    inside = (distances * own).sum(axis=1) / (own.sum(axis=1) - 1)
    outside = (distances * other).sum(axis=1) / other.sum(axis=1)
    assert flat.silhouette == pytest.approx(np.mean((outside - inside) / np.maximum(outside, inside)), rel=1e-5)
    assert flat.tsne.shape == flat.pca.shape == (80, 2)


def test_nearest_neighbours_by_distance():
    known = np.array([[0.0], [0.1], [0.2], [10.0], [10.1], [10.2]])
    assert knn_accuracy(known, np.array([0, 0, 0, 1, 1, 1]), np.array([[1.0], [9.0]]), np.array([0, 0])) == 0.5


def test_samples_are_reproducible():
    images = ImageSet(np.arange(10 * 12).astype(np.uint8).reshape(10, 2, 2, 3), np.arange(10))
    assert len(images.sample(99)) == 10
    few = images.sample(4)
    assert few.labels.tolist() == sorted(few.labels.tolist()) == images.sample(4).labels.tolist()
    np.testing.assert_array_equal(few.pixels, images.pixels[few.labels])
    np.testing.assert_allclose(flatten_pixels(few.pixels)[:, 0] * 255, few.pixels[:, 0, 0, 0], rtol=1e-6)
