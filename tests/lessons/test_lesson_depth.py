"""The lesson on depth: counts by hand and by the paper, and results that follow from the runs."""

from __future__ import annotations

import numpy as np
import pytest

from paddle_resnet.lessons import Lesson
from paddle_resnet.lessons.depth import lesson
from paddle_resnet.lessons.depth.lesson import PAPER, _significance, closed_form_parameters
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.framework.texts import LessonTexts
from paddle_resnet.models import count_parameters, create_model
from paddle_resnet.training import SeedStatistics
from paddle_resnet.training.run_folder import Run

pytestmark = pytest.mark.slow

SEED = 4


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    overrides = [f"train.seed={SEED}", "device=cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lesson, "TIMED_BATCH", 8)
        return Lesson("depth").run(tmp_path_factory.mktemp("depth"), scale=0.125, overrides=overrides)


def test_parameters_equal_the_papers_table(page):
    """Table 6 of He et al. 2015."""
    assert page.numbers["depths"] == [20, 32, 44, 56, 110]
    rounded = [round(count / 1e6, 2) for count in page.numbers["parameters"]]
    assert rounded[:4] == [0.27, 0.46, 0.66, 0.85]
    assert round(rounded[4], 1) == 1.7


def test_closed_form_equals_counted_parameters(page):
    by_hand = [closed_form_parameters((depth - 2) // 6) for depth in page.numbers["depths"]]
    assert by_hand == page.numbers["parameters"]
    assert closed_form_parameters(1) == count_parameters(create_model("resnet8"))


def test_multiply_adds_are_those_by_hand(page):
    # A convolution within a stage, in each of the three: twice the channels, a quarter of the pixels.
    within = 32 * 32 * 9 * 16 * 16
    for depth, macs in zip(page.numbers["depths"], page.numbers["macs"], strict=True):
        n = (depth - 2) // 6
        # The first of the second and third stage has half the inputs.
        assert macs == 32 * 32 * 9 * 3 * 16 + 6 * n * within - 2 * (within // 2) + 64 * 10


def test_every_depth_is_timed(page):
    assert len(page.numbers["milliseconds_an_image"]) == len(page.numbers["depths"])
    assert min(page.numbers["milliseconds_an_image"]) > 0
    assert page.numbers["time_ratio"] == pytest.approx(
        page.numbers["milliseconds_an_image"][-1] / page.numbers["milliseconds_an_image"][0]
    )


def test_errors_equal_the_runs_metrics(page):
    for depth in (20, 32, 44):
        run = Run.open(page.folder / "runs" / f"resnet{depth}-seed{SEED}")
        metrics = run.metrics()
        assert page.numbers[f"resnet{depth}_test_errors"] == [1 - metrics["last_test"]["top1"]]
        assert page.numbers[f"resnet{depth}_training_errors"] == [1 - metrics["last_train"]["top1"]]
        assert metrics["last_test"]["images"] == len(run.splits().test)
        assert run.config.model.name == f"resnet{depth}"
        assert run.config.train.epochs == 1
    gain = page.numbers["resnet20_test_errors"][0] - page.numbers["resnet44_test_errors"][0]
    assert page.numbers["gains"] == [pytest.approx(gain)]


def test_significance_follows_the_interval(tmp_path):
    """Student's t for 2 runs is 12.706: 1 and 3 points are no proof, 2.0 and 2.1 are."""
    page = Page(tmp_path, texts=LessonTexts("depth"))
    assert "does not differ significantly from zero" in _significance(page, SeedStatistics.of([0.01, 0.03])).en
    assert "more than the variation between the seeds" in _significance(page, SeedStatistics.of([0.020, 0.021])).en
    assert "With one seed" in _significance(page, SeedStatistics.of([0.02])).en


def test_the_papers_table_has_every_depth():
    errors = [error for _, error in PAPER.values()]
    assert errors == sorted(errors, reverse=True)
    # The gains that the page's prose names.
    assert np.round(-np.diff(errors), 2).tolist() == [1.24, 0.34, 0.20, 0.54]
