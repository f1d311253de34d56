"""LeNet compared with a ResNet: counts by hand, and metrics that follow from the runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from lesson_pages import figure_names

from paddle_resnet.evaluation.metrics import evaluation_of
from paddle_resnet.lessons import Lesson
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.framework.texts import LessonTexts
from paddle_resnet.lessons.lenet.lesson import RATES, SEEDS, NetworkRuns, _say_gain
from paddle_resnet.training import SeedStatistics

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    overrides = ["data.image_size=16", "device=cpu"]
    return Lesson("lenet").run(tmp_path_factory.mktemp("lenet"), scale=0.01, overrides=overrides)


def test_parameters_and_multiply_adds_are_those_by_hand(page):
    numbers = page.numbers
    # Two convolutions 5x5 without padding, then 400, 120, 84 and 10 numbers.
    linear = (400 * 120 + 120) + (120 * 84 + 84) + (84 * 10 + 10)
    assert numbers["lenet_parameters"] == (3 * 6 * 25 + 6) + (6 * 16 * 25 + 16) + linear == 62_006
    assert numbers["lenet_linear_share"] == pytest.approx(linear / 62_006)
    convolutions = 28 * 28 * 6 * 3 * 25 + 10 * 10 * 16 * 6 * 25
    assert numbers["lenet_macs"] == convolutions + 400 * 120 + 120 * 84 + 84 * 10
    # Table 1 of LeCun et al. 1998: C3 has 1,516 trainable parameters.
    assert numbers["sparse_c3_parameters"] == 1516
    assert numbers["dense_c3_parameters"] == 6 * 16 * 25 + 16
    # resnet8, section 4.2 with n = 1: the stem and a pair of 3x3 convolutions at each width, without biases.
    weights = 9 * (3 * 16 + 2 * 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64)
    assert numbers["resnet_parameters"] == weights + 2 * (3 * 16 + 2 * 32 + 2 * 64) + 650
    stage = 32 * 32 * 9 * 16 * 16
    assert numbers["resnet_macs"] == 32 * 32 * 9 * 3 * 16 + 6 * stage - 2 * stage // 2 + 640


def test_runs_have_their_seed_and_learning_rate(page):
    for name, rate in RATES.items():
        for seed in SEEDS:
            config = (page.folder / "runs" / f"{name}_seed{seed}" / "config.yaml").read_text()
            assert f"seed: {seed}\n" in config
            assert f"learning_rate: {rate}\n" in config
    large = (page.folder / "runs" / "lenet_large_rate" / "config.yaml").read_text()
    assert f"learning_rate: {RATES['resnet8']}\n" in large


def test_gain_is_paired_by_seed(page):
    numbers = page.numbers
    differences = np.subtract(numbers["resnet_top1"], numbers["lenet_top1"])
    assert numbers["gain"] == pytest.approx(differences.mean())
    # Student's t for 3 runs, from any table.
    assert numbers["gain_margin"] == pytest.approx(4.303 * differences.std(ddof=1) / np.sqrt(3))
    assert json.loads((page.folder / "numbers.json").read_text()) == numbers


def test_top1_covers_the_whole_test_split(page):
    numbers = page.numbers
    assert numbers["test_images"] == 359
    for top1 in [*numbers["lenet_top1"], *numbers["resnet_top1"]]:
        assert 359 * top1 == pytest.approx(round(359 * top1))


def test_figures_are_written(page):
    assert figure_names(page) == ["curves", "errors_by_class", "hard_images"]


def test_failures_are_counted_per_image():
    labels = np.array([0, 1, 1])
    predictions = [[0, 1, 0], [0, 0, 0]]
    evaluations = [evaluation_of(np.eye(2, dtype=np.float32)[each], labels, ("a", "b"), 0.0) for each in predictions]
    runs = NetworkRuns("x", "black", None, [], evaluations)
    assert list(runs.failures) == [0, 1, 2]
    assert list(runs.hard) == [False, False, True]
    assert runs.top1.mean == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("truth", "predictions", "shown"),
    [(1, (1, 1, 0), "b"), (0, (1, 1, 0), "b"), (0, (0, 2, 1), "b"), (0, (2, 2, 2), "c")],
)
def test_a_hard_image_shows_the_usual_wrong_prediction(truth, predictions, shown):
    classes = ("a", "b", "c")
    evaluations = [
        evaluation_of(np.eye(3, dtype=np.float32)[[prediction]], np.array([truth]), classes, 0.0)
        for prediction in predictions
    ]
    assert NetworkRuns("x", "black", None, [], evaluations).usual_prediction(0) == shown


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.05, 0.06, 0.055], "larger than the variation between the seeds"),
        ([-0.05, -0.06, -0.055], "LeNet is ahead"),
        ([0.05, -0.06, 0.0], "not significant"),
    ],
)
def test_the_verdict_follows_the_interval(tmp_path, values, words):
    page = Page(tmp_path, texts=LessonTexts("lenet"))
    _say_gain(page, SeedStatistics.of(values))
    (said,) = (block.text for block in page.blocks)
    assert words in said.en
    assert f"{100 * np.mean(values):+.1f}" in said.zh
