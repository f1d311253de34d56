"""Grouped convolution: its equalities, the costs of the ResNeXt paper, and the dependencies between channels."""

import numpy as np
import paddle
import pytest
from paddle import nn

from paddle_resnet.lessons import Lesson
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.framework.texts import LessonTexts
from paddle_resnet.lessons.grouped_convolution.lesson import (
    BlockCost,
    _outcome,
    channel_dependencies,
    conv_by_slices,
    resnext50,
    to_dense,
)
from paddle_resnet.models import count_parameters, create_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return Lesson("grouped-convolution").run(tmp_path_factory.mktemp("grouped"), scale=0.01)


@pytest.fixture(scope="module")
def numbers(page):
    return page.numbers


def by_loops(x, weight, groups):
    """A grouped 3x3 convolution of one image ``[in, H, W]``, zero-padded, from its definition."""
    out_channels, group_in = weight.shape[:2]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    answer = np.zeros((out_channels, *x.shape[1:]))
    for channel in range(out_channels):
        first = channel // (out_channels // groups) * group_in
        for row, column in np.ndindex(*x.shape[1:]):
            window = padded[first : first + group_in, row : row + 3, column : column + 3]
            answer[channel, row, column] = (window * weight[channel]).sum()
    return answer


@pytest.mark.parametrize(("channels", "out_channels", "groups"), [(6, 4, 2), (4, 8, 4), (3, 3, 1)])
def test_slices_and_blocks_equal_the_grouped_convolution(channels, out_channels, groups):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(1, channels, 5, 4)).astype("float32")
    weight = generator.normal(size=(out_channels, channels // groups, 3, 3)).astype("float32")
    expected = by_loops(x[0], weight, groups)
    sliced = conv_by_slices(paddle.to_tensor(x), paddle.to_tensor(weight), groups).numpy()[0]
    np.testing.assert_allclose(sliced, expected, atol=1e-4)
    dense = to_dense(weight, groups)
    assert dense.shape == (out_channels, channels, 3, 3)
    np.testing.assert_allclose(by_loops(x[0], dense, 1), expected, atol=1e-4)


def test_recorded_differences_are_rounding(numbers):
    assert numbers["slices_difference"] < 1e-5 < 0.1 < numbers["largest_output"]
    assert numbers["blocks_difference"] < 1e-5
    assert numbers["grouped_weights"] == 8 * 8 * 9 // 2
    assert numbers["block_weights"] == [16 * 16 * 9 // groups for groups in (1, 2, 4, 16)]


def test_blocks_equal_the_papers_table_2(numbers):
    settings = [(1, 64), (2, 40), (4, 24), (8, 14), (32, 4)]
    assert numbers["block_labels"] == ["1x64d", "2x40d", "4x24d", "8x14d", "32x4d"]
    assert numbers["block_widths"] == [64, 80, 96, 112, 128]  # its last row
    # Equation 4.
    assert numbers["block_costs"] == [c * (256 * d + 9 * d * d + d * 256) for c, d in settings]
    assert all(abs(cost - 70_000) < 1_500 for cost in numbers["block_costs"])
    assert numbers["grouped_shares"] == sorted(numbers["grouped_shares"], reverse=True)
    assert numbers["depthwise_cost"] == numbers["depthwise_width"] * (256 + 9 + 256)
    assert abs(numbers["depthwise_cost"] - numbers["block_costs"][0]) <= (256 + 9 + 256) / 2


def test_networks_have_the_published_parameters(numbers):
    parameters, macs = numbers["network_parameters"], numbers["network_macs"]
    assert (parameters[0], parameters[-1]) == (25_557_032, 25_028_904)
    assert (round(macs[0] / 1e9, 2), round(macs[-1] / 1e9, 2)) == (4.09, 4.23)
    assert max(macs) / min(macs) < 1.06
    assert count_parameters(resnext50(32, 4)) == count_parameters(create_model("resnext50_32x4d"))


def test_groups_are_separate_without_a_1x1_convolution(numbers):
    assert numbers["connected"] == [0.25, 0.25, 1.0]


def test_dependencies_are_block_diagonal():
    found = channel_dependencies(nn.Conv2D(6, 6, 3, padding=1, groups=3), 6)
    np.testing.assert_array_equal(found, np.kron(np.eye(3), np.ones((2, 2))).astype(bool))
    asymmetric = nn.Conv2D(3, 3, 1)
    weight = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1]], "float32")
    asymmetric.weight.set_value(weight.reshape(3, 3, 1, 1))
    np.testing.assert_array_equal(channel_dependencies(asymmetric, 3), weight.astype(bool))


def test_multiply_adds_fall_with_the_groups(numbers):
    assert numbers["timed_groups"] == [1, 2, 4, 8, 16, 32, 64, 128]
    work = 8 * 28 * 28 * 128 * 128 * 9
    assert numbers["timed_macs"] == [work // groups for groups in numbers["timed_groups"]]
    moved = [2 * 8 * 128 * 28 * 28 + 128 * 128 * 9 // groups for groups in numbers["timed_groups"]]
    assert numbers["macs_per_number"] == pytest.approx(np.array(numbers["timed_macs"]) / np.array(moved))
    # MobileNet, section 3.1, from the weights: depthwise and 1x1 against an ordinary 3x3.
    assert numbers["separable_share"] == pytest.approx((128 * 9 + 128 * 128) / (128 * 128 * 9))
    assert all(len(times) == 8 and min(times) > 0 for times in numbers["times"])


@pytest.mark.parametrize(
    ("seconds", "en", "zh"),
    [([1.0, 0.5], "fell to 1/2.0", "降到 1/2.0"), ([1.0, 3.0], "did not fall: it is 3.0 times", "原来的 3.0 倍")],
)
def test_times_are_described_as_measured(tmp_path, seconds, en, zh):
    page = Page(tmp_path, texts=LessonTexts("grouped_convolution"))
    described = _outcome(page, "oneDNN's layer", seconds)
    assert en in described.en
    assert zh in described.zh
    # 128 groups do 1/128 of the work.
    assert f"{128 * seconds[-1]:.1f} times as long" in described.en


def test_a_blocks_label_and_width():
    block = BlockCost.of(8, 14)
    assert (block.label, block.width) == ("8x14d", 112)


def test_figures_are_written(page):
    for name in ("blocks", "cardinality", "mixing", "times"):
        assert (page.folder / f"{name}.png").stat().st_size > 5_000
