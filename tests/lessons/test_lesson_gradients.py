"""The lesson on gradients: its numbers against closed forms and finite differences."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.nn import functional

from paddle_resnet.lessons import Effort, Lesson
from paddle_resnet.lessons.common.training_loop import LessonData
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.framework.texts import LessonTexts
from paddle_resnet.lessons.gradients import lesson
from paddle_resnet.lessons.gradients.lesson import (
    BATCH_SIZE,
    IMAGE_SIZE,
    SEED,
    LayerGradients,
    make_network,
    measure_gradients,
    record_gradients,
)
from paddle_resnet.models import create_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lesson, "IMAGE_SIZE", 16)
        patch.setattr(lesson, "TRAINED_DEPTHS", {True: (20, 56), False: (20,)})
        return Lesson("gradients").run(tmp_path_factory.mktemp("gradients"), scale=0.1)


def test_chain_gradients_equal_the_closed_form(page):
    weights = np.array([0.1, 0.5])
    np.testing.assert_allclose(page.numbers["chain_plain"], weights**20, rtol=1e-12)
    np.testing.assert_allclose(page.numbers["chain_shortcut"], (1 + weights) ** 20, rtol=1e-12)


def test_plain_gradients_grow_near_the_theoretical_factor(page):
    """Yang et al. 2019: sqrt(pi / (pi - 1)) = 1.211 a layer for wide layers; a residual network stays far below."""
    numbers = page.numbers
    for depth in (56, 110):
        plain, residual = (
            numbers[f"plain{depth}_with_batch_norm_growth"],
            numbers[f"resnet{depth}_with_batch_norm_growth"],
        )
        assert 1.12 < plain < 1.25
        assert 1 < residual < 1.08
    assert numbers["plain110_with_batch_norm_first_to_last"] > 1e5 > numbers["resnet110_with_batch_norm_first_to_last"]
    assert numbers["vanishing_with_batch_norm"] == []


def test_residual_sum_grows_without_batch_norm(page):
    numbers = page.numbers
    for depth in (20, 56, 110):
        assert numbers[f"plain{depth}_without_batch_norm_loss"] == pytest.approx(np.log(10), abs=0.3)
        assert numbers[f"resnet{depth}_without_batch_norm_loss"] > 5


def test_first_steps_enlarge_the_deep_plain_networks_weights(page):
    """Two steps here: the first alone moves its first convolution by a hundred times its length."""
    numbers = page.numbers
    plain, residual = (numbers[f"{kind}56_with_batch_norm_trained_lengthened"] for kind in ("plain", "resnet"))
    assert plain > 30
    assert 1 < residual < plain / 5
    assert "plain56" in numbers["small_after_training"]
    # Without BatchNorm one step is far longer than the weights themselves: whether its loss is a number is chance.
    assert 0.1 * max(numbers["resnet56_without_batch_norm_relative"]) > 100


def test_scale_free_gradient_ignores_the_weight_norm():
    """The closed form: the gradient of weights a times as long is 1/a of what it was."""
    images, labels = next(iter(LessonData.open(Effort(), IMAGE_SIZE).loader(BATCH_SIZE, SEED)))
    network = make_network("plain20")
    before = measure_gradients(network, images[:8], labels[:8])
    weight = network.layer2[1].conv1.weight
    weight.set_value(weight * 64)
    after = measure_gradients(network, images[:8], labels[:8])
    index = before.names.index("layer2.1.conv1")
    assert after.weight_norms[index] == pytest.approx(64 * before.weight_norms[index], rel=1e-6)
    assert after.scale_free[index] == pytest.approx(before.scale_free[index], rel=0.02)
    assert after.relative[index] == pytest.approx(before.relative[index] / 64**2, rel=0.02)


def test_non_finite_gradients_are_recorded(tmp_path):
    gradients = LayerGradients(("a", "b"), np.array([np.nan, 0.0]), np.ones(2), loss=float("inf"))
    assert np.isnan(gradients.growth)
    page = Page(tmp_path, LessonTexts("gradients"))
    record_gradients(page, "plain20", gradients)
    assert page.numbers["plain20_norms"] == ["not finite", 0.0]
    assert page.numbers["plain20_loss"] == page.numbers["plain20_growth"] == "not finite"


def test_gradient_equals_the_finite_difference():
    """The loss along the gradient, by finite differences in float64: its slope is the gradient's norm."""
    paddle.seed(0)
    network = nn.Sequential(nn.Conv2D(3, 4, 3), nn.Tanh(), nn.Conv2D(4, 2, 3), nn.Flatten(), nn.Linear(32, 5))
    network.to(dtype="float64")
    images = paddle.randn([6, 3, 8, 8], dtype="float64")
    labels = paddle.randint(0, 5, [6, 1])
    measured = measure_gradients(network, images, labels)
    assert measured.names == ("0", "2")
    for index, relative in zip((0, 2), measured.relative, strict=True):
        weight = network[index].weight
        functional.cross_entropy(network(images), labels).backward()
        direction = weight.grad.numpy().copy()
        network.clear_gradients()
        start, losses = weight.numpy().copy(), []
        for step in (-1e-6, 1e-6):
            weight.set_value(start + step * direction / np.linalg.norm(direction))
            with paddle.no_grad():
                losses.append(functional.cross_entropy(network(images), labels).item())
        weight.set_value(start)
        slope = (losses[1] - losses[0]) / 2e-6
        assert relative * np.linalg.norm(start) == pytest.approx(slope, rel=1e-4)


def test_growth_is_the_factor_of_a_geometric_series():
    weight_norms = np.array([1.0, 4.0, 2.0, 3.0])
    norms = weight_norms * 5.0 * 1.25 ** np.array([3.0, 2.0, 1.0, 0.0])
    gradients = LayerGradients(("a", "b", "c", "d"), norms, weight_norms, loss=1.0)
    assert gradients.growth == pytest.approx(1.25)
    assert gradients.first_to_last == pytest.approx(1.25**3)


def test_measuring_keeps_the_weights():
    network = create_model("resnet8")
    # Paddle counts BatchNorm's running statistics among the parameters; those move in training mode.
    learned = [parameter for parameter in network.parameters() if not parameter.stop_gradient]
    weights = [value.numpy().copy() for value in learned]
    images, labels = next(iter(LessonData.open(Effort(), IMAGE_SIZE).loader(BATCH_SIZE, SEED)))
    measure_gradients(network, images[:4], labels[:4])
    for value, weight in zip(learned, weights, strict=True):
        np.testing.assert_array_equal(value.numpy(), weight)
        assert value.grad is None or not value.grad.numpy().any()


@pytest.mark.parametrize("kind", ["plain", "resnet"])
def test_removing_batch_norm_keeps_the_weights(kind):
    network, bare = make_network(f"{kind}20"), make_network(f"{kind}20", batch_norm=False)
    assert any(isinstance(layer, nn.BatchNorm2D) for layer in network.sublayers())
    assert not any(isinstance(layer, nn.BatchNorm2D) for layer in bare.sublayers())
    np.testing.assert_array_equal(network.layer3[2].conv2.weight.numpy(), bare.layer3[2].conv2.weight.numpy())
    # Convolutions, ReLU and additions alone: twice the image is twice the features.
    images = paddle.rand([2, 3, 16, 16])
    with paddle.no_grad():
        once, twice = bare.forward_features(images).numpy(), bare.forward_features(2 * images).numpy()
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-4, atol=1e-5 * np.abs(once).max())


def test_convolutions_are_measured_in_order():
    network = make_network("resnet20")
    images, labels = next(iter(LessonData.open(Effort(), IMAGE_SIZE).loader(BATCH_SIZE, SEED)))
    names = measure_gradients(network, images[:4], labels[:4]).names
    assert len(names) == 19  # and one linear layer
    assert names[:3] == ("conv1", "layer1.0.conv1", "layer1.0.conv2")
    assert names[-1] == "layer3.2.conv2"
