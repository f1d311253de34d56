"""The lesson on transfer: tasks, frozen and loaded weights, and the statistics of its table."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from lesson_pages import figure_names
from paddle import nn
from PIL import Image

from paddle_resnet.config import TrainConfig
from paddle_resnet.data import open_splits
from paddle_resnet.lessons import Effort, Lesson
from paddle_resnet.lessons.common import training_loop
from paddle_resnet.lessons.common.training_loop import LessonData, apply_cpu_backend
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.framework.texts import LessonTexts
from paddle_resnet.lessons.transfer.lesson import (
    TUNED,
    FewShotTrainer,
    Plan,
    _say_verdict,
    linear_probe_top1,
    make_task,
    pixel_features,
    sample_per_class,
    select_classes,
)
from paddle_resnet.models import create_model
from paddle_resnet.training.seed_runs import T_95, SeedStatistics

pytestmark = pytest.mark.slow

NUMBERS = [1, 2, 5, 10, 20]


@pytest.fixture(scope="module")
def config():
    return Plan.of(Effort(overrides=["device=cpu"])).config


@pytest.fixture(scope="module")
def splits(config):
    return open_splits(config.data)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return Lesson("transfer").run(tmp_path_factory.mktemp("transfer"), scale=0.05, overrides=["device=cpu"])


def test_tasks_partition_the_images(splits):
    old, new = make_task(splits, range(5)), make_task(splits, range(5, 10))
    assert old.classes + new.classes == splits.classes
    assert len(old.train) + len(new.train) == len(splits.train) + len(splits.validation)
    assert len(old.test) + len(new.test) == len(splits.test)
    assert set(old.train.labels) == set(new.test.labels) == set(range(5))


def test_selected_classes_are_relabelled_in_order(splits):
    chosen = select_classes([splits.test], [7, 2])
    sevens = splits.test.batch(np.flatnonzero(splits.test.labels == 7))
    np.testing.assert_array_equal(chosen.batch(np.flatnonzero(chosen.labels == 0)), sevens)
    assert len(chosen) == np.isin(splits.test.labels, [2, 7]).sum()


def test_larger_samples_contain_smaller_ones(splits):
    train = make_task(splits, range(5, 10)).train

    def pixels(number, seed):
        return {each.tobytes() for each in sample_per_class(train, number, seed).batch(np.arange(5 * number))}

    assert list(np.bincount(sample_per_class(train, 4, 0).labels)) == [4] * 5
    assert pixels(2, 0) < pixels(10, 0)
    assert pixels(10, 0) != pixels(10, 1)


@pytest.fixture
def weights(config):
    paddle.seed(7)
    network = create_model(config.model.name, 5)
    return {name: each.numpy().copy() for name, each in network.state_dict().items()}


def test_only_fine_tuning_starts_from_the_weights(config, splits, weights, monkeypatch):
    learner, target = FewShotTrainer(LessonData(config)), make_task(splits, range(5, 10))
    images = sample_per_class(target.train, 2, 0)
    ends = []

    def keep(scorer, batches, classes):
        ends.append({name: each.numpy().copy() for name, each in scorer.network.state_dict().items()})
        return SimpleNamespace(top1=0.0)

    monkeypatch.setattr(training_loop, "measure", keep)
    learner.learn(target, images, 1, 0, weights)
    learner.learn(target, images, 1, 0, None)
    tuned, scratch = (np.abs(end["layer1.0.conv1.weight"] - weights["layer1.0.conv1.weight"]).max() for end in ends)
    assert 0 < tuned < scratch / 2
    assert np.abs(ends[0]["fc.weight"] - weights["fc.weight"]).max() > 0.1, "the last layer is new"


def test_features_are_the_last_layers_input(config, splits, weights):
    features = FewShotTrainer(LessonData(config)).features(make_task(splits, range(5, 10)).test, weights)
    images = splits.test.batch(np.flatnonzero(splits.test.labels >= 5))
    resized = np.stack([np.asarray(Image.fromarray(each).resize((16, 16), Image.BILINEAR)) for each in images])
    pixels = ((resized / 255 - np.array(splits.mean)) / np.array(splits.std)).transpose(0, 3, 1, 2)
    network = create_model(config.model.name, 5)
    network.set_state_dict(weights)
    network.eval()
    with paddle.no_grad():
        logits = network(paddle.to_tensor(pixels.astype(np.float32))).numpy()
    np.testing.assert_allclose(features @ weights["fc.weight"] + weights["fc.bias"], logits, rtol=1e-3, atol=1e-4)


@pytest.mark.once
def test_pretraining_learns_the_old_task(config, splits):
    shorter = Plan.of(Effort(overrides=["device=cpu", "train.epochs=3"])).config
    weights, top1 = FewShotTrainer(LessonData(shorter)).pretrain(make_task(splits, range(5)), seed=0)
    assert top1 > 0.6  # chance is 0.2
    assert not np.array_equal(weights["bn1._mean"], np.zeros(16))


def test_linear_probe_on_pixels_nearly_solves_the_digits(splits):
    target = make_task(splits, range(5, 10))
    top1 = {}
    for number in (1, 50):
        images = sample_per_class(target.train, number, 0)
        top1[number] = linear_probe_top1(
            pixel_features(images), images.labels, pixel_features(target.test), target.test.labels
        )
    assert top1[1] < 0.9 < top1[50]


def test_gains_are_paired_and_signs_follow_intervals(page):
    numbers = page.numbers
    assert numbers["images_a_class"] == NUMBERS
    assert numbers["seeds"] == 2
    for start in ("top1_fine_tuned", "top1_last_layer_alone"):
        differences = np.subtract(numbers[start], numbers["top1_from_scratch"])
        assert differences.shape == (5, 2)
        means, margins = differences.mean(axis=1), 12.706 * differences.std(axis=1, ddof=1) / math.sqrt(2)
        np.testing.assert_allclose(numbers[f"{start}_gain"], means, atol=1e-12)
        np.testing.assert_allclose(numbers[f"{start}_margin"], margins, atol=1e-9)
        assert numbers[f"{start}_sign"] == [int(np.sign(m)) * (abs(m) > w) for m, w in zip(means, margins, strict=True)]


def test_all_but_the_last_layer_is_loaded(page):
    # resnet8 has 7 convolutions and 7 BatchNorms of 4 arrays.
    assert page.numbers["arrays_loaded"] == 7 + 7 * 4
    assert page.numbers["arrays_skipped"] == 2
    assert figure_names(page) == ["by_images"]


def test_the_full_form_is_cifar_10():
    plan = Plan.of(Effort(full=True))
    assert plan.config.data.source == "cifar10"
    assert plan.numbers == (5, 20, 50, 200)
    assert len(plan.seeds) == 3


@pytest.mark.parametrize("runs", T_95)
def test_t_interval_covers_95_percent(runs):
    freedom = runs - 1
    x = np.linspace(0, T_95[runs], 200_001)
    scale = math.gamma(runs / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))
    density = scale * (1 + x**2 / freedom) ** (-runs / 2)
    inside = 2 * float(np.sum((density[1:] + density[:-1]) / 2) * (x[1] - x[0]))
    assert inside == pytest.approx(0.95, abs=1e-4)


def test_sign_needs_an_interval_beside_zero():
    assert SeedStatistics.of([1.0, 1.1, 0.9]).sign == 1
    assert SeedStatistics.of([-1.0, -1.1, -0.9]).sign == -1
    assert SeedStatistics.of([1.0, -1.0, 0.5]).sign == 0
    assert SeedStatistics.of([0.0, 0.0]).sign == 0
    assert SeedStatistics.of([0.01, 0.03]).points() == "+2.0 ± 12.7"
    assert SeedStatistics.of([0.5, 0.6]).percent() == "55.00 ± 7.07"


def test_verdict_names_each_number_of_images_once(tmp_path):
    page = Page(tmp_path, texts=LessonTexts("transfer"))
    gains = {1: SeedStatistics.of([0.1, 0.11]), 2: SeedStatistics.of([0.1, -0.1]), 5: SeedStatistics.of([-0.1, -0.101])}
    _say_verdict(page, TUNED, gains)
    assert page.blocks[0].text.en == (
        "**Fine-tuned**: better than from scratch at 1 images per class; "
        "worse than from scratch at 5 images per class; "
        "not significantly different at 2 images per class."
    )
    assert "每类 5 张时差于从头训练" in page.blocks[0].text.zh


def test_config_selects_the_cpu_backend():
    network = create_model("resnet8", 10)
    apply_cpu_backend(network, TrainConfig(cpu_backend="native"))
    assert type(network.conv1) is nn.Conv2D
    lenet = create_model("lenet", 10)
    apply_cpu_backend(lenet)  # oneDNN has no counterpart of its layers
    assert all(type(layer).__module__.startswith("paddle.nn") for layer in lenet.sublayers())
