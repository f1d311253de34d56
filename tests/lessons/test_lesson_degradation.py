"""The lesson on degradation: its recorded numbers, and its parts against closed forms."""

from __future__ import annotations

import json

import numpy as np
import paddle
import pytest

from paddle_resnet.lessons import Effort, Lesson
from paddle_resnet.lessons.common.runs import choose_seeds
from paddle_resnet.lessons.degradation.lesson import deepen, identity_kernel
from paddle_resnet.models import create_model
from paddle_resnet.training import SeedStatistics
from paddle_resnet.training.run_folder import Run

pytestmark = pytest.mark.slow

SEED = 3


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    overrides = [f"train.seed={SEED}", "device=cpu"]
    return Lesson("degradation").run(tmp_path_factory.mktemp("degradation"), scale=0.3, overrides=overrides)


def test_deeper_plain_network_has_higher_training_error(page):
    numbers = page.numbers
    (rise,) = numbers["plain_training_error_rise"]
    assert rise > 0.3
    assert numbers["plain_degrades_with_every_seed"] is True
    assert rise == pytest.approx(numbers["plain56_training_errors"][0] - numbers["plain20_training_errors"][0])


def test_deeper_residual_network_degrades_less(page):
    (plain,), (residual,) = page.numbers["plain_training_error_rise"], page.numbers["resnet_training_error_rise"]
    assert residual < plain


def test_deepened_networks_equal_the_shallow_ones(page):
    assert page.numbers["plain_identity_difference"] < 1e-5
    assert page.numbers["resnet_identity_difference"] < 1e-5


@pytest.mark.parametrize("kind", ["plain", "resnet"])
def test_added_blocks_are_the_identity(kind):
    """Also where the statistics and the weights are not those of a new network."""
    paddle.seed(1)
    shallow = create_model(f"{kind}20", 7)
    shallow.train()
    with paddle.no_grad():
        for _ in range(5):
            shallow(2 + paddle.randn([8, 3, 12, 12]))
    shallow.eval()
    deep = deepen(shallow, f"{kind}32")
    images = paddle.randn([3, 3, 12, 12])
    with paddle.no_grad():
        expected, found = shallow(images).numpy(), deep(images).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
        # An added block by itself, too: what it is given is nowhere negative.
        activated = paddle.rand([2, 32, 5, 5])
        np.testing.assert_allclose(deep.layer2[4](activated).numpy(), activated.numpy(), atol=1e-6)


def test_identity_kernel_returns_its_input():
    images = np.random.default_rng(0).normal(size=(2, 5, 6, 7)).astype("float32")
    convolved = paddle.nn.functional.conv2d(paddle.to_tensor(images), paddle.to_tensor(identity_kernel(5)), padding=1)
    np.testing.assert_allclose(convolved.numpy(), images, atol=1e-6)


@pytest.mark.parametrize("name", ["plain20", "resnet20"])
def test_training_error_covers_all_unaugmented_training_images(page, name):
    """Counted again from the weights on disk, by Paddle's own operators and without the package's measuring."""
    run = Run.open(page.folder / "runs" / f"{name}-seed{SEED}")
    splits, normalize, network = run.splits(), run.normalize(), run.load_network("last")
    assert run.config.train.seed == SEED
    for split, recorded in (("train", "training"), ("test", "test")):
        images = getattr(splits, split)
        pixels = paddle.to_tensor(images.batch(np.arange(len(images))))
        with paddle.no_grad():
            predicted = network(normalize(pixels)).numpy().argmax(axis=1)
        (error,) = page.numbers[f"{name}_{recorded}_errors"]
        # Within an image or two: oneDNN's sums are in another order.
        assert error == pytest.approx(np.mean(predicted != images.labels), abs=2.5 / len(images))
    assert run.metrics()["last_train"]["checkpoint"] == "last"
    assert run.metrics()["last_train"]["images"] == len(splits.train)


def test_curves_equal_the_history(page):
    run = Run.open(page.folder / "runs" / f"resnet56-seed{SEED}")
    (training,), (validation,) = (page.numbers[f"resnet56_{each}_curves"] for each in ("training", "validation"))
    assert training == pytest.approx([1 - record.train_top1 for record in run.history()])
    assert validation == pytest.approx([1 - record.validation_top1 for record in run.history()])
    assert len(training) == 3


def test_numbers_and_figures_are_written(page):
    assert json.loads((page.folder / "numbers.json").read_text()) == page.numbers
    assert {path.name.replace("_zh", "") for path in page.folder.glob("*.png")} == {"final_errors.png", "curves.png"}


def test_command_hides_local_folders():
    effort = Effort(full=True, overrides=["data.root=/somewhere/else", "data.verify=false"])
    command = effort.command("degradation")
    assert command == "python tools/lesson.py degradation --full -o data.root=FOLDER -o data.verify=false"


def test_overridden_seed_is_the_only_seed():
    assert choose_seeds(Effort(), (0, 1)) == (0, 1)
    assert choose_seeds(Effort(overrides=["train.epochs=2", "train.seed=5"]), (0, 1)) == (5,)


def test_single_run_has_no_deviation():
    assert SeedStatistics.of([0.25]).percent() == "25.00"
    assert SeedStatistics.of([0.1, 0.2, 0.3]).percent() == "20.00 ± 10.00"
