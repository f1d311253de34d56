"""The lesson on receptive fields: the formula against hand counts, gradients and a closed form."""

import numpy as np
import pytest
from lesson_pages import figure_names

from paddle_resnet.lessons import Lesson
from paddle_resnet.lessons.receptive_field import lesson
from paddle_resnet.lessons.receptive_field.lesson import box_spread, effective_side, extent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lesson, "IMAGES", 4)
        return Lesson("receptive-field").run(tmp_path_factory.mktemp("lesson"))


def test_resnet18_fields_match_a_hand_count(page):
    # Stem: 7, then 3x3 pooling at jump 2. Each stage has one convolution at the jump before its stride.
    stem = [7, 7 + 2 * 2]
    stage1 = 11 + 4 * (2 * 4)
    stage2 = stage1 + 2 * 4 + 3 * (2 * 8)
    stage3 = stage2 + 2 * 8 + 3 * (2 * 16)
    stage4 = stage3 + 2 * 16 + 3 * (2 * 32)
    assert page.numbers["resnet18_fields"] == [*stem, stage1, stage2, stage3, stage4]
    assert page.numbers["resnet18_jumps"] == [2, 4, 4, 8, 16, 32]


@pytest.mark.parametrize("name, field", [("resnet18", 435), ("resnet34", 899), ("resnet20", 81), ("resnet56", 249)])
def test_fields_of_whole_networks(page, name, field):
    assert page.numbers[f"{name}_field"] == field


@pytest.mark.parametrize("name", ["plain20", "resnet20", "trained"])
def test_gradients_reach_exactly_the_field(page, name):
    assert page.numbers[f"{name}_extent"] == page.numbers["formula"] == 81


def test_shortcuts_narrow_the_influence(page):
    assert page.numbers["resnet20_effective_side"] < page.numbers["plain20_effective_side"] < 81


@pytest.mark.parametrize("depth", [1, 3, 10])
def test_equal_weights_spread_by_the_square_root(depth):
    assert box_spread(depth) == pytest.approx((2 * depth / 3) ** 0.5, rel=1e-5)


def test_squares_of_a_known_influence():
    influence = np.zeros((9, 9))
    influence[4, 4], influence[4, 6], influence[1, 4] = 0.8, 0.16, 0.04
    assert extent(influence) == 7
    assert effective_side(influence) == 5


def test_figures_are_written(page):
    assert figure_names(page) == ["growth", "influence"]
