"""The lesson on four normalisations: their sets, each layer against numpy, the influence of the batch."""

import numpy as np
import paddle
import pytest
from lesson_pages import figure_names

from paddle_resnet.lessons import Lesson
from paddle_resnet.lessons.normalization import lesson
from paddle_resnet.lessons.normalization.lesson import GROUPS, NORMS, SHAPE, shared_statistics_mask

pytestmark = pytest.mark.slow

NAMES = ["batch", "layer", "instance", "group"]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lesson, "TRAINED_BATCH_SIZES", (8, 64))
        patch.setattr(lesson, "SEEDS", (0,))
        return Lesson("normalization").run(tmp_path_factory.mktemp("lesson"), scale=0.25)


@pytest.fixture(scope="module")
def numbers(page):
    return page.numbers


def test_sets_have_the_sizes_of_their_axes(numbers):
    batch, channels, height, width = SHAPE
    assert [numbers[f"shared_{name}"] for name in NAMES] == [
        batch * height * width,
        channels * height * width,
        height * width,
        channels // GROUPS * height * width,
    ]


@pytest.mark.parametrize("kind", NORMS, ids=NAMES)
def test_sets_match_the_papers_figure(kind):
    expected = np.zeros(SHAPE, bool)
    where = {
        "Batch": np.s_[:, -1],
        "Layer": np.s_[0],
        "Instance": np.s_[0, -1],
        "Group": np.s_[0, -SHAPE[1] // GROUPS :],
    }
    expected[where[kind.name]] = True
    np.testing.assert_array_equal(shared_statistics_mask(kind.layer(SHAPE), SHAPE), expected)


@pytest.mark.parametrize("kind", NORMS, ids=NAMES)
def test_layers_normalise_their_sets(kind):
    x = np.random.default_rng(5).normal(3, 2, SHAPE).astype("float32")
    layer = kind.layer(SHAPE)
    layer.train()
    output = layer(paddle.to_tensor(x)).numpy().astype("float64")
    shared = output[shared_statistics_mask(kind.layer(SHAPE), SHAPE)]
    assert shared.mean() == pytest.approx(0, abs=1e-5)
    assert shared.var() == pytest.approx(1, abs=1e-3)


def test_layers_equal_numpy(numbers):
    assert max(numbers[f"error_{name}"] for name in NAMES) < 1e-4


def test_only_batch_norm_differs_in_evaluation(numbers):
    assert numbers["eval_change_batch"] > 0.1
    assert [numbers[f"eval_change_{name}"] for name in NAMES[1:]] == [0, 0, 0]


def test_layer_and_instance_norm_are_special_group_norms(numbers):
    assert numbers["one_group_minus_layer"] < 1e-3
    assert numbers["all_groups_minus_instance"] < 1e-3


def test_cancellation_explains_group_norms_difference(numbers):
    assert numbers["cancellation_effect"] == pytest.approx(numbers["all_groups_minus_instance"], rel=0.1)


def test_only_batch_norm_depends_on_other_images(numbers):
    assert -0.65 < numbers["spread_slope"] < -0.35
    assert numbers["spread_batch"][0] > 0.3
    for name in NAMES[1:]:
        assert numbers[f"spread_{name}"] == [0] * len(numbers["batch_sizes"])


def test_both_norms_train_at_both_batch_sizes(numbers):
    assert numbers["training_batch_sizes"] == [8, 64]
    # One epoch; guessing is 2.30 nats and 90% wrong.
    assert max(numbers["training_loss_batch"] + numbers["training_loss_group"]) < 2.2
    assert max(numbers["test_error_batch"][0], numbers["test_error_group"][0]) < 0.4


def test_figures_are_written(page):
    assert figure_names(page) == ["four_sets", "batch_influence", "batch_sizes"]
