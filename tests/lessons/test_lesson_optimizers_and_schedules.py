"""Updates against Paddle, descents against theory, schedules against formulas."""

import math

import pytest
from lesson_pages import figure_names

from paddle_resnet.lessons import Lesson
from paddle_resnet.lessons.optimizers_and_schedules import lesson
from paddle_resnet.lessons.optimizers_and_schedules.lesson import UPDATES, best_settings, descend, valley

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lesson, "OPTIMIZERS", {"sgd": (0.01, 0.1)})
        patch.setattr(lesson, "SEEDS", (0,))
        return Lesson("optimizers-and-schedules").run(tmp_path_factory.mktemp("lesson"), scale=0.4)


@pytest.fixture(scope="module")
def numbers(page):
    return page.numbers


@pytest.mark.parametrize("name", UPDATES)
def test_updates_equal_paddles(numbers, name):
    # Paddle keeps the rate and the momentum in float32.
    assert numbers[f"difference_{name}"] < 1e-6


def test_descent_converges_only_below_the_limit(numbers):
    assert numbers["loss_below_limit"] < 0.01 < 1000 < numbers["loss_above_limit"]


def test_gradient_descent_shrinks_errors_as_theory_says(numbers):
    assert numbers["gradient_descent_factor"] == pytest.approx((25 - 1) / (25 + 1))
    assert numbers["gradient_descent_measured"] == pytest.approx(24 / 26, rel=1e-6)
    # A double root: the error is (1 + c t) times the power.
    assert numbers["with_momentum_factor"] == pytest.approx((5 - 1) / (5 + 1))
    assert numbers["with_momentum_measured"] == pytest.approx(4 / 6, rel=0.02)


def test_momentum_descends_faster():
    losses = [valley(descend(rate, momentum)[-1]) for rate, momentum, _ in best_settings().values()]
    assert losses[1] < 0.01 * losses[0]


@pytest.mark.parametrize(
    "name, rates",
    [
        ("constant", [1, 1, 1]),
        ("step", [1, 0.1, 0.01]),
        ("cosine", [1, 0.5, 0.5 * (1 + math.cos(math.pi * 0.999))]),
        ("one_cycle", [1 / 300, 1 - 200 / 700, 1 - 699 / 700]),
    ],
)
def test_schedules_have_their_formulas_rates(numbers, name, rates):
    assert numbers[f"{name}_rates"] == pytest.approx(rates)


def test_every_schedule_learns_the_digits(numbers):
    for name in lesson.SCHEDULES:
        assert min(numbers[f"{name}_schedule_test_top1"]) > 0.5


def test_figures_are_written(page):
    assert figure_names(page) == ["paths", "factors_of_rate", "optimizers"]
