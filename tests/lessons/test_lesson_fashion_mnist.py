"""The book's network: counts by hand, its initialiser line, plain SGD, and the full form's data."""

from __future__ import annotations

import gzip
import math
import socket
import struct

import numpy as np
import paddle
import pytest
from lesson_pages import figure_names

from paddle_resnet.config import TrainConfig
from paddle_resnet.download import OfficialFile
from paddle_resnet.errors import UsageError
from paddle_resnet.lessons import Lesson
from paddle_resnet.lessons.common.training_loop import train_batches
from paddle_resnet.lessons.fashion_mnist.lesson import RECIPE
from paddle_resnet.lessons.framework.page import Prose
from paddle_resnet.models import create_model
from paddle_resnet.training.optim.optimizer import make_optimizer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    overrides = ["data.image_size=16", "device=cpu"]
    return Lesson("fashion-mnist").run(tmp_path_factory.mktemp("quick"), scale=0.2, overrides=overrides)


def convolutions():
    """(in, out, kernel, side of the output at 96x96) of the book's ResNet-18, from its code."""
    layers = [(1, 64, 7, 48)]
    channels = 64
    for width, side in ((64, 24), (128, 12), (256, 6), (512, 3)):
        layers += [(channels, width, 3, side), *[(width, width, 3, side)] * 3]
        if channels != width:
            layers.append((channels, width, 1, side))
        channels = width
    return layers


def test_parameters_and_multiply_adds_are_those_by_hand(page):
    layers = convolutions()
    normalised = [out for _, out, kernel, _ in layers if kernel != 1]
    weights = sum(inside * out * kernel**2 + out for inside, out, kernel, _ in layers)
    assert page.numbers["parameters"] == weights + 2 * sum(normalised) + 512 * 10 + 10
    macs = sum(inside * out * kernel**2 * side**2 for inside, out, kernel, side in layers) + 512 * 10
    assert page.numbers["gmacs_at_96"] == pytest.approx(macs / 1e9, rel=1e-12)


def test_grey_stem_equals_rgb_stem_on_grey_images(page):
    assert page.numbers["stem_extra_weights"] == 2 * 64 * 7 * 7
    assert page.numbers["stem_difference"] < 1e-5


def test_the_books_initialiser_line_has_no_effect(page):
    numbers = page.numbers
    assert numbers["initializer_moved"] == 0
    # 3,136 draws: the standard deviation of a sample is within 5% of its distribution's.
    assert numbers["default_std"] == pytest.approx(math.sqrt(2 / 49), rel=0.05)
    assert numbers["xavier_std"] == pytest.approx(math.sqrt(2 / (49 + 64 * 49)), rel=0.05)
    assert numbers["here_std"] == pytest.approx(math.sqrt(2 / (64 * 49)), rel=0.05)


def test_learning_rate_is_constant_and_network_learns(page):
    numbers = page.numbers
    assert numbers["learning_rates"] == [RECIPE["learning_rate"]] * 2
    assert numbers["test_images"] == 359
    assert numbers["train_loss"] < math.log(10)
    assert numbers["train_top1"] > 0.5


def test_recipe_is_plain_sgd():
    paddle.seed(0)
    network = create_model("resnet8", 3, in_channels=1)
    generator = np.random.default_rng(0)
    images = paddle.to_tensor(generator.random((6, 1, 8, 8), dtype=np.float32))
    labels = paddle.to_tensor(generator.integers(0, 3, (6, 1)))
    before = {name: each.numpy().copy() for name, each in network.named_parameters() if not each.stop_gradient}
    network.train()
    paddle.nn.functional.cross_entropy(network(images), labels).backward()
    gradients = {name: each.grad.numpy().copy() for name, each in network.named_parameters() if name in before}
    network.clear_gradients()
    train_batches(network, make_optimizer(network, TrainConfig(**RECIPE), 10), [[images, labels]])
    for name, parameter in network.named_parameters():
        if name in before:
            expected = before[name] - 0.05 * gradients[name]
            np.testing.assert_allclose(parameter.numpy(), expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_loss_and_top1_are_means_over_samples():
    network = paddle.nn.Flatten()  # returns its input as logits
    network.w = network.create_parameter([1])
    optimizer = paddle.optimizer.SGD(0.0, parameters=[network.w])
    logits = paddle.to_tensor(np.array([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0]], np.float32), stop_gradient=False)
    labels = paddle.to_tensor(np.array([[0], [0], [1]]))
    loss, top1 = train_batches(network, optimizer, [[logits[:2], labels[:2]], [logits[2:], labels[2:]]])
    right, wrong = math.log(1 + math.exp(-4)), math.log(1 + math.exp(4))
    assert top1 == pytest.approx(2 / 3)
    assert loss == pytest.approx((2 * right + wrong) / 3, rel=1e-6)


def test_quick_form_claims_no_fashion_mnist_result(page):
    assert "difference_from_book" not in page.numbers
    prose = [block.text for block in page.blocks if isinstance(block, Prose)]
    assert "This page contains no result of the full form." in prose[-1].en
    assert "本页没有给出完整形式的任何结果" in prose[-1].zh
    assert figure_names(page) == ["curves"]


def write_idx(path, values):
    head = struct.pack(">BBBB", 0, 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(gzip.compress(head + values.astype(np.uint8).tobytes()))


@pytest.mark.once
def test_full_form_compares_with_the_book(tmp_path):
    generator = np.random.default_rng(0)
    for name, number in (("train", 40), ("t10k", 10)):
        write_idx(tmp_path / f"{name}-images-idx3-ubyte.gz", generator.integers(0, 256, (number, 28, 28)))
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte.gz", np.arange(number) % 10)
    overrides = [f"data.root={tmp_path}", "data.verify=false", "train.batch_size=18", "train.epochs=1", "device=cpu"]
    page = Lesson("fashion-mnist").run(tmp_path / "lesson", full=True, overrides=overrides)
    numbers = page.numbers
    assert (numbers["size"], numbers["test_images"]) == (96, 10)
    assert numbers["difference_from_book"] == pytest.approx(numbers["test_top1"] - 0.893)
    assert any("It is not the book's recipe" in block.text.en for block in page.blocks if isinstance(block, Prose))


@pytest.mark.once
def test_failed_download_is_a_one_line_error(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/train-images-idx3-ubyte.gz"
        monkeypatch.setattr("paddle_resnet.data.datasets.fashion_mnist.TRAIN_IMAGES", OfficialFile(url, "0" * 32))
        with pytest.raises(UsageError) as failure:
            Lesson("fashion-mnist").run(tmp_path / "lesson", full=True, overrides=[f"data.root={tmp_path}"])
    (line,) = str(failure.value).splitlines()
    assert url in line
    assert str(tmp_path / "train-images-idx3-ubyte.gz") in line
