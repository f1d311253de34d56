"""The lesson on the residual block: shapes, counts by hand, the identity, and negative residuals."""

import pytest
from lesson_pages import figure_names

from paddle_resnet.lessons import Lesson

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return Lesson("residual-block").run(tmp_path_factory.mktemp("lesson"), scale=0.25)


@pytest.fixture(scope="module")
def numbers(page):
    return page.numbers


def test_blocks_keep_or_change_the_shape(numbers):
    assert numbers["same_shape_input"] == numbers["same_shape_output"] == [4, 3, 6, 6]
    assert numbers["projected_output"] == [4, 6, 3, 3]
    assert numbers["projection_weight"] == [6, 3, 1, 1]


def test_projection_uses_a_quarter_of_the_input(numbers):
    assert numbers["projection_parameters"] == 6 * 3 + 2 * 6
    assert numbers["projected_parameters"] == (6 * 3 * 9 + 12) + (6 * 6 * 9 + 12) + (6 * 3 + 12)
    assert numbers["seen_by_shortcut"] == 0.25
    assert numbers["seen_by_branch"] == 1.0


def test_zero_branch_makes_the_block_an_identity(numbers):
    assert numbers["identity_basic"] == numbers["identity_pre_activation"] == 0
    assert numbers["identity_basic_signed"] > 1  # ReLU takes what is negative
    assert numbers["silenced_plain"] == numbers["largest_input"]  # nothing is left of the input


def test_rectified_branch_cannot_learn_negative_residuals(numbers):
    # x = |normal| has a mean square of 1, so the floor is 1/4; 6,912 values, so within a few hundredths.
    assert numbers["floor"] == pytest.approx(0.25, abs=0.03)
    assert numbers["error_rectified"] >= numbers["floor"] * (1 - 1e-5)
    assert numbers["error_usual"] < numbers["floor"] / 3
    assert numbers["least_residual_rectified"] == 0
    assert numbers["negative_share_rectified"] == 0
    assert numbers["negative_share_usual"] > 0.8


@pytest.mark.parametrize(
    ("name", "weights", "normalised"),
    [
        ("basic", 2 * 64 * 64 * 9, 64 + 64),
        ("bottleneck", 256 * 64 + 64 * 64 * 9 + 64 * 256, 64 + 64 + 256),
        ("pre_activation", 2 * 64 * 64 * 9, 64 + 64),
        ("pre_activation_bottleneck", 256 * 64 + 64 * 64 * 9 + 64 * 256, 256 + 64 + 64),
        ("basic_256_channels", 2 * 256 * 256 * 9, 256 + 256),
    ],
)
def test_parameters_and_multiply_adds_are_those_counted_by_hand(numbers, name, weights, normalised):
    assert numbers[f"{name}_parameters"] == weights + 2 * normalised
    assert numbers[f"{name}_macs"] == weights * 56 * 56


def test_the_two_counts_of_the_tutorials(numbers):
    assert (numbers["basic_parameters"], numbers["bottleneck_parameters"]) == (73_984, 70_400)


def test_diagrams_show_the_papers_layer_orders(numbers):
    convolution = "conv 3x3, 64 -> 64"
    assert numbers["basic_branch"] == [convolution, "BatchNorm", "ReLU", convolution, "BatchNorm"]
    assert numbers["pre_activation_branch"] == ["BatchNorm", "ReLU", convolution] * 2
    first, last = "conv 1x1, 256 -> 64", "conv 1x1, 64 -> 256"
    between = ["BatchNorm", "ReLU"]
    assert numbers["bottleneck_branch"] == [first, *between, convolution, *between, last, "BatchNorm"]
    assert numbers["basic_after_addition"] == numbers["bottleneck_after_addition"] == ["ReLU"]
    assert numbers["pre_activation_after_addition"] == []


def test_figures_are_written(page):
    assert figure_names(page) == ["residual_sign", "forms"]
