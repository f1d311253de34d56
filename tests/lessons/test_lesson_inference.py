"""Dynamic and exported predictions, BatchNorm folded against float64, and the order of timed calls."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import paddle
import pytest
from lesson_pages import figure_names
from paddle import nn

from paddle_resnet import runtime
from paddle_resnet.data import uint8_batches
from paddle_resnet.lessons import Lesson
from paddle_resnet.lessons.common.network_costs import time_interleaved
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.framework.texts import LessonTexts
from paddle_resnet.lessons.inference.lesson import BATCHES, DYNAMIC, EXPORTED, ONE_THREAD, _say_verdict, fold_batch_norm
from paddle_resnet.models.blocks import convolution
from paddle_resnet.training import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return Lesson("inference").run(tmp_path_factory.mktemp("inference"), scale=0.2, overrides=["device=cpu"])


def test_exported_and_dynamic_predictions_agree(page):
    numbers = page.numbers
    assert numbers["images"] == 359
    assert numbers["largest_difference"] < 1e-4
    if numbers["smallest_lead"] > 2 * numbers["largest_difference"]:
        assert numbers["agreement"] == 1
        assert numbers["top1_dynamic"] == numbers["top1_exported"]
    assert abs(numbers["top1_dynamic"] - numbers["top1_exported"]) <= 1 - numbers["agreement"] + 1e-12


def test_right_preprocessing_gives_the_networks_top1(page):
    assert page.numbers["top1_by_preprocessing"][0] == page.numbers["top1_dynamic"]


def test_preprocessing_mistakes_are_as_described(page):
    """The same by numpy's arithmetic: without mean and deviation, and with pixels from 0 to 255 in place of 0 to 1."""
    run = Run.open(page.folder / "runs" / "network")
    splits, network, normalize = run.splits(), run.load_network(), run.normalize()
    ((pixels, labels),) = uint8_batches(splits.test, 1000, splits.resize, run.config.data.image_size)
    x = pixels.astype(np.float32).transpose(0, 3, 1, 2)
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (normalize.mean, normalize.std))
    by_hand = []
    for prepared in (x / 255, (x - mean) / std):
        with paddle.no_grad():
            predicted = network(paddle.to_tensor(prepared)).numpy().argmax(axis=1)
        by_hand.append(np.mean(predicted == labels))
    # Within an image or two, where rounding decides.
    assert page.numbers["top1_by_preprocessing"][1:] == pytest.approx(by_hand, abs=2.5 / len(labels))


def test_folding_differs_only_by_rounding(page):
    assert page.numbers["folding_difference"] < 1e-5 * max(1, page.numbers["folding_largest"])


def test_folded_convolution_equals_both_layers():
    paddle.seed(0)
    generator = np.random.default_rng(0)
    layer, normalization = convolution(2, 3, 1), nn.BatchNorm2D(3)
    gamma, beta, mean, variance = generator.uniform(0.5, 2, (4, 3))
    for parameter, value in (
        (normalization.weight, gamma),
        (normalization.bias, beta),
        (normalization._mean, mean),
        (normalization._variance, variance),
    ):
        parameter.set_value(value.astype(np.float32))
    weight, shift = (each.numpy().astype(np.float64) for each in fold_batch_norm(layer, normalization))
    x = generator.normal(size=(4, 2, 5, 5))
    own = layer.weight.numpy().astype(np.float64)[:, :, 0, 0]
    through = np.einsum("oi,nihw->nohw", own, x)
    gamma, beta, mean, variance = (each[:, None, None] for each in (gamma, beta, mean, variance))
    expected = gamma * (through - mean) / np.sqrt(variance + 1e-5) + beta
    answer = np.einsum("oi,nihw->nohw", weight[:, :, 0, 0], x) + shift[:, None, None]
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-5)


def test_calls_are_timed_interleaved():
    order = []

    def call(name, seconds):
        order.append(name)
        time.sleep(seconds)

    taken = time_interleaved({"a": partial(call, "a", 0.02), "b": partial(call, "b", 0.0)}, 3)
    assert order == ["a", "b"] * 3
    assert {name: each.shape for name, each in taken.items()} == {"a": (3,), "b": (3,)}
    assert taken["a"].min() >= 0.02


def test_every_batch_size_and_form_is_recorded(page):
    numbers = page.numbers
    several = runtime.thread_count(runtime.prepare_process().threads) != 1
    assert numbers["ways"] == [DYNAMIC, EXPORTED, ONE_THREAD][: 2 + several]
    recorded = [numbers[f"median_ms_batch_{size}"] for size in BATCHES]
    for milliseconds in (*recorded, numbers["first_call_ms"], numbers["later_median_ms"]):
        assert len(milliseconds) == len(numbers["ways"])
        assert min(milliseconds) > 0
    assert figure_names(page) == ["differences", "first_calls", "throughput"]


@pytest.mark.parametrize(
    ("dynamic", "exported", "words"),
    [
        ([4.0, 4.1, 4.2], [2.0, 2.05, 2.1], "took 0.50 of the dynamic graph's time"),
        ([2.0, 2.05, 2.1], [4.0, 4.1, 4.2], "the export did not pay"),
        ([2.0, 3.0, 4.0], [2.1, 3.1, 4.1], "do not differ clearly"),
    ],
)
def test_the_verdict_follows_the_quartiles(tmp_path, dynamic, exported, words):
    page = Page(tmp_path, texts=LessonTexts("inference"))
    _say_verdict(page, 8, {DYNAMIC: np.array(dynamic), EXPORTED: np.array(exported)})
    assert words in page.blocks[0].text.en
    assert "批大小 8" in page.blocks[0].text.zh
