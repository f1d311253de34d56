"""ResNet-18's counts against published ones and sums by hand; weights and biases without effect."""

import re
from pathlib import Path

import numpy as np
import paddle
import pytest

from paddle_resnet.lessons import Lesson
from paddle_resnet.lessons.common.network_costs import costs_by_part, model_summary
from paddle_resnet.lessons.network_shapes.lesson import _shapes, format_count
from paddle_resnet.models import create_model

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return Lesson("network-shapes").run(tmp_path_factory.mktemp("network-shapes"))


@pytest.fixture(scope="module")
def numbers(page):
    return page.numbers


def test_counts_equal_torchvisions(numbers):
    assert numbers["imagenet_parameters"] == 11_689_512
    assert round(numbers["imagenet_macs"] / 1e9, 3) == 1.814
    assert numbers["parameters_with_statistics"] == 11_699_112
    # With ten classes, 990 columns of 512 weights and a bias are gone.
    assert numbers["parameters"] == numbers["parameters_by_hand"] == 11_689_512 - 990 * 513
    assert numbers["macs"] == numbers["imagenet_macs"] - 990 * 512


def test_shapes_equal_the_papers_table_1(numbers):
    assert numbers["stem_shapes"] == [[64, 112, 112], [64, 56, 56]]
    assert numbers["stage_shapes"] == [[64, 56, 56], [128, 28, 28], [256, 14, 14], [512, 7, 7]]
    assert (numbers["depth"], numbers["convolutions_on_the_way"], numbers["shortcut_convolutions"]) == (18, 17, 3)


def test_stages_have_equal_multiply_adds(numbers):
    assert numbers["last_convolution_macs"] == [56 * 56 * 64 * 64 * 9] * 4
    for name in ("parameter_shares", "mac_shares"):
        assert sum(numbers[name]) == pytest.approx(1)
    assert numbers["parameter_shares"][4] > 0.7
    assert max(numbers["mac_shares"]) < 0.27


def test_activations_count_convolution_and_linear_outputs(numbers):
    # Stem; 4 convolutions a stage, and the shortcut's in all but the first; ten scores.
    stages = 4 * 64 * 56**2 + 5 * 128 * 28**2 + 5 * 256 * 14**2 + 5 * 512 * 7**2
    assert numbers["activations"] == 64 * 112**2 + stages + 10
    assert numbers["early_activations"] == pytest.approx((64 * 112**2 + 4 * 64 * 56**2) / numbers["activations"])


def test_parts_add_up_to_the_network():
    summary = model_summary("resnet18", 64)
    costs = costs_by_part(summary)
    assert sum(cost.parameters for cost in costs) == summary.parameters
    assert sum(cost.macs for cost in costs) == summary.macs
    _, _, *shapes = _shapes(summary).values()
    stages = [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)]
    assert shapes == [(64, 16, 16), *stages, (512, 1, 1), (10,)]


def test_sides_at_other_sizes(numbers):
    assert numbers["sides"] == [
        [224, 112, 56, 56, 28, 14, 7],
        [96, 48, 24, 24, 12, 6, 3],
        [32, 16, 8, 8, 4, 2, 1],
        [32, 32, 32, 32, 16, 8, 4],
    ]
    assert len(set(numbers["setting_parameters"][:3])) == 1, "no weight depends on the image's size"


def test_weights_on_padding_have_no_effect(numbers):
    names = numbers["one_pixel_convolutions"]
    assert names == ["layer4.0.conv2", "layer4.1.conv1", "layer4.1.conv2"]
    network = create_model("resnet18", 10)
    network.eval()
    images = paddle.to_tensor(np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype("float32"))
    with paddle.no_grad():
        before = network(images).numpy()
        changed = 0
        for name in names:
            weight = dict(network.named_sublayers())[name].weight
            values = np.random.default_rng(1).normal(size=weight.shape).astype("float32")
            values[:, :, 1, 1] = weight.numpy()[:, :, 1, 1]
            weight.set_value(values)
            changed += values[:, :, 0, 0].size * 8
        np.testing.assert_allclose(network(images).numpy(), before, rtol=1e-4, atol=1e-4)
    assert changed == numbers["unused_parameters"]


def test_the_books_network(numbers):
    ours = 11_689_512 - 990 * 513 - 2 * 64 * 49  # ten classes, one channel for three
    biases = 64 + 4 * 64 + 5 * (128 + 256 + 512)
    assert numbers["book_biases"] == biases
    assert numbers["book_parameters"] == ours + biases - 2 * (128 + 256 + 512) == 11_178_378
    assert numbers["biases_before_norm"] == biases - (128 + 256 + 512)
    assert numbers["book_sides"][-4:] == [24, 12, 6, 3]


def test_wide_resnets_count_shortcuts_and_not_the_head(numbers):
    # Zagoruyko and Komodakis 2016, table 1: 6n + 4 with n = 4.
    assert numbers["wide_path"] + numbers["wide_shortcuts"] == 6 * 4 + 4
    assert numbers["wide_depth"] == numbers["wide_path"] + 1 == 26


@pytest.mark.once
def test_the_command_has_the_same_numbers_and_lets_the_terminal_break_the_lines_of_chinese(tool, page, tmp_path):
    done = tool("lesson", "network-shapes", "--language", "zh", "--output", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "numbers.json").read_bytes() == (page.folder / "numbers.json").read_bytes()
    committed = (PROJECT / "docs/zh/lessons/network-shapes.md").read_text(encoding="utf-8")
    first = next(line for line in committed.splitlines() if line.endswith("。"))
    assert re.sub("[*`]", "", first) in done.stdout


def test_only_biases_without_batch_norm_matter(numbers):
    assert numbers["bias_effect_before_norm"] < 1e-3
    assert numbers["bias_effect_on_shortcuts"] > 0.05


def test_counts_in_three_digits():
    assert [format_count(number) for number in (10, 5130, 8_393_728, 1_813_561_344)] == [
        "10",
        "5.13k",
        "8.39M",
        "1.81G",
    ]


def test_figures_are_written(page):
    for name in ("route", "costs", "sides"):
        assert (page.folder / f"{name}.png").stat().st_size > 10_000
