"""The exercises' answers against counts by hand, published counts and numpy."""

import numpy as np
import pytest
from lesson_pages import figure_names

from paddle_resnet.lessons import Lesson
from paddle_resnet.lessons.exercises.lesson import VARIANTS


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return Lesson("exercises").run(tmp_path_factory.mktemp("lesson"))


def test_inception_has_the_parameters_of_its_paths(page):
    one, pool = 192 * 64 + 64, 192 * 32 + 32
    three = 192 * 96 + 96 + 9 * 96 * 128 + 128
    five = 192 * 16 + 16 + 25 * 16 * 32 + 32
    assert page.numbers["Inception_parameters"] == one + three + five + pool
    basic = 9 * 192 * 256 + 9 * 256 * 256 + 192 * 256 + 3 * 2 * 256
    assert page.numbers["BasicBlock_parameters"] == basic


def test_concatenation_with_identities_is_a_sum(page):
    assert page.numbers["concatenation_minus_sum"] < 1e-5


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_match_published_counts(page, name):
    gflops, parameters = VARIANTS[name]
    assert page.numbers[f"{name}_parameters"] == parameters
    assert page.numbers[f"{name}_macs"] / 1e9 == pytest.approx(gflops, rel=0.08)


def test_bottleneck_has_the_parameters_of_its_formula(page):
    assert page.numbers["basic_parameters"] == 2 * 9 * 256**2 + 4 * 256
    assert page.numbers["bottleneck_parameters"] == 2 * 256 * 64 + 9 * 64**2 + 4 * 64 + 2 * 256


def test_only_pre_activation_passes_negative_values(page):
    assert page.numbers["change_pre_activation"] == 0
    assert page.numbers["change_post_activation"] > 1


def test_nested_classes_only_improve_the_samples(page):
    training, test = (np.array(page.numbers[f"{name}_errors"]) for name in ("training", "test"))
    assert (np.diff(training) < 1e-12).all()
    assert test[-1] > 10 * test[page.numbers["best_degree"]]


def test_figures_are_written(page):
    assert figure_names(page) == ["nested"]
