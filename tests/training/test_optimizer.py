"""Schedule, weight decay, momentum and clipping against closed forms."""

from __future__ import annotations

import math

import numpy as np
import paddle
import pytest
from paddle import nn

from paddle_resnet.config import TrainConfig
from paddle_resnet.models import create_model
from paddle_resnet.training.optim.optimizer import Factor, make_optimizer, make_schedule


def test_cosine_after_linear_warmup():
    factor = Factor("cosine", steps=110, warmup_steps=10)
    assert [factor(step) for step in range(10)] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert factor(10) == 1.0
    assert factor(60) == pytest.approx(0.5)
    assert factor(35) == pytest.approx(0.5 + math.sqrt(2) / 4)
    assert factor(110) == pytest.approx(0.0, abs=1e-12)
    assert factor(500) == pytest.approx(0.0, abs=1e-12)


def test_without_warmup_the_first_step_has_the_peak():
    assert Factor("cosine", steps=10, warmup_steps=0)(0) == 1.0


def test_one_cycle_is_linear_up_and_down():
    factor = Factor("one_cycle", steps=50, warmup_steps=10)
    assert [factor(step) for step in range(10)] == pytest.approx(np.arange(1, 11) / 10)
    assert [factor(step) for step in range(10, 51)] == pytest.approx(np.linspace(1, 0, 41))
    assert factor(80) == 0


def test_milestones_are_shares_of_all_steps():
    factor = Factor("step", steps=64, warmup_steps=4, milestones=(0.5, 0.75))
    found = [factor(step) for step in range(64)]
    assert found == pytest.approx([0.25, 0.5, 0.75, 1.0] + 28 * [1.0] + 16 * [0.1] + 16 * [0.01])
    assert factor(100) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", [0.15, 0.3, 0.3, 0.3 * (2 + math.sqrt(2)) / 4, 0.15, 0.3 * (2 - math.sqrt(2)) / 4]),
        ("one_cycle", [0.15, 0.3, 0.3, 0.225, 0.15, 0.075]),
        ("step", [0.15, 0.3, 0.3, 0.03, 0.03, 0.003]),
    ],
)
def test_the_optimizer_follows_its_schedule(schedule, expected):
    train = TrainConfig(epochs=3, learning_rate=0.3, warmup=1 / 3, schedule=schedule, milestones=(0.5, 0.8))
    optimizer = make_optimizer(Tiny(), train, steps_per_epoch=2)
    rates = []
    for _ in range(6):
        rates.append(optimizer.get_lr())
        optimizer._learning_rate.step()
    assert rates == pytest.approx(expected)


class Tiny(nn.Layer):
    """A weight matrix, a bias and a BatchNorm scale whose gradients are what the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.norm = nn.BatchNorm1D(2)
        self.linear.weight.set_value(np.array([[1.0, -2.0], [0.5, 4.0]], "float32"))
        self.linear.bias.set_value(np.array([3.0, -1.0], "float32"))

    def step(self, optimizer, weight_gradient, bias_gradient):
        """Take one step with gradients dL/dW and dL/db as given (L is linear in both); gamma's gradient is 0."""
        loss = (self.linear.weight * paddle.to_tensor(weight_gradient)).sum()
        loss = loss + (self.linear.bias * paddle.to_tensor(bias_gradient)).sum() + 0.0 * self.norm.weight.sum()
        loss = loss + 0.0 * self.norm.bias.sum()
        loss.backward()
        # as paddle.Model does it
        optimizer.minimize(loss)
        self.clear_gradients()
        optimizer._learning_rate.step()


WEIGHT_GRADIENT = np.array([[0.3, -0.1], [0.7, 0.2]], "float32")
BIAS_GRADIENT = np.array([-0.5, 0.4], "float32")


def test_sgd_is_nesterov_with_weight_decay():
    train = TrainConfig(epochs=2, learning_rate=0.1, momentum=0.9, weight_decay=0.01, warmup=0.0)
    network = Tiny()
    optimizer = make_optimizer(network, train, steps_per_epoch=2)
    weight, bias = network.linear.weight.numpy().astype("float64"), network.linear.bias.numpy().astype("float64")
    velocity_weight, velocity_bias = np.zeros_like(weight), np.zeros_like(bias)
    for step in range(4):
        rate = 0.1 * 0.5 * (1 + math.cos(math.pi * step / 4))
        assert optimizer.get_lr() == pytest.approx(rate)
        network.step(optimizer, WEIGHT_GRADIENT, BIAS_GRADIENT)
        gradient = WEIGHT_GRADIENT + 0.01 * weight
        velocity_weight = 0.9 * velocity_weight + gradient
        weight = weight - rate * (gradient + 0.9 * velocity_weight)
        velocity_bias = 0.9 * velocity_bias + BIAS_GRADIENT
        bias = bias - rate * (BIAS_GRADIENT + 0.9 * velocity_bias)
    np.testing.assert_allclose(network.linear.weight.numpy(), weight, rtol=1e-5)
    np.testing.assert_allclose(network.linear.bias.numpy(), bias, rtol=1e-5)
    np.testing.assert_array_equal(network.norm.weight.numpy(), [1.0, 1.0])


def test_adamw_steps_by_sign_with_decoupled_decay():
    train = TrainConfig(epochs=10, learning_rate=0.1, weight_decay=0.2, warmup=0.0, optimizer="adamw")
    network = Tiny()
    weight, bias = network.linear.weight.numpy(), network.linear.bias.numpy()
    network.step(make_optimizer(network, train, steps_per_epoch=10), WEIGHT_GRADIENT, BIAS_GRADIENT)
    expected = weight * (1 - 0.1 * 0.2) - 0.1 * np.sign(WEIGHT_GRADIENT)
    np.testing.assert_allclose(network.linear.weight.numpy(), expected, rtol=1e-4)
    np.testing.assert_allclose(network.linear.bias.numpy(), bias - 0.1 * np.sign(BIAS_GRADIENT), rtol=1e-4)
    np.testing.assert_array_equal(network.norm.weight.numpy(), [1.0, 1.0])


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_gradients_are_clipped_by_global_norm(name):
    """With a step of AdamW the clip shows in its first moment, 0.1 of the clipped gradient."""
    train = TrainConfig(
        epochs=10, learning_rate=0.1, momentum=0.0, weight_decay=0.0, warmup=0.0, clip_norm=0.5, optimizer=name
    )
    network = Tiny()
    optimizer = make_optimizer(network, train, steps_per_epoch=10)
    weight = network.linear.weight.numpy()
    network.step(optimizer, 10 * WEIGHT_GRADIENT, 10 * BIAS_GRADIENT)
    norm = math.sqrt((WEIGHT_GRADIENT**2).sum() + (BIAS_GRADIENT**2).sum())
    clipped = WEIGHT_GRADIENT / norm * 0.5
    if name == "sgd":
        np.testing.assert_allclose(weight - network.linear.weight.numpy(), 0.1 * clipped, rtol=1e-4)
    else:
        moment = next(value for key, value in optimizer.state_dict().items() if "w_0_moment1" in key)
        np.testing.assert_allclose(moment.numpy(), 0.1 * clipped, rtol=1e-4)


@pytest.mark.parametrize("decay", [0.05, 0.0])
def test_lars_scales_weights_but_not_vectors(decay):
    train = TrainConfig(epochs=10, learning_rate=2.0, weight_decay=decay, schedule="step", warmup=0.0, optimizer="lars")
    network = Tiny()
    optimizer = make_optimizer(network, train, steps_per_epoch=10)
    weight, bias = network.linear.weight.numpy().astype("float64"), network.linear.bias.numpy().astype("float64")
    velocity_weight, velocity_bias = np.zeros_like(weight), np.zeros_like(bias)
    for _ in range(3):
        network.step(optimizer, WEIGHT_GRADIENT, BIAS_GRADIENT)
        norm, gradient_norm = np.linalg.norm(weight), np.linalg.norm(WEIGHT_GRADIENT)
        trust = 0.001 * norm / (gradient_norm + decay * norm)
        velocity_weight = 0.9 * velocity_weight + 2.0 * trust * (WEIGHT_GRADIENT + decay * weight)
        weight = weight - velocity_weight
        velocity_bias = 0.9 * velocity_bias + 2.0 * BIAS_GRADIENT
        bias = bias - velocity_bias
    np.testing.assert_allclose(network.linear.weight.numpy(), weight, rtol=1e-6)
    np.testing.assert_allclose(network.linear.bias.numpy(), bias, rtol=1e-5)
    np.testing.assert_array_equal(network.norm.weight.numpy(), [1.0, 1.0])


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_layer_decay_with_global_clipping(name):
    network = create_model("resnet8", num_classes=3)
    train = TrainConfig(
        epochs=9, learning_rate=0.1, weight_decay=0.0, warmup=0.0, clip_norm=0.5, optimizer=name, layer_decay=0.5
    )
    optimizer = make_optimizer(network, train, steps_per_epoch=10)
    before = {key: tensor.numpy() for key, tensor in network.named_parameters()}
    generator = np.random.default_rng(0)
    gradients = {
        key: generator.normal(size=tensor.shape)
        for key, tensor in network.named_parameters()
        if not tensor.stop_gradient
    }
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
    loss = sum(
        (tensor * paddle.to_tensor(gradients[key].astype("float32"))).sum()
        for key, tensor in network.named_parameters()
        if key in gradients
    )
    loss.backward()
    optimizer.minimize(loss)
    rates = {"conv1": 0.1 / 16, "layer1": 0.1 / 8, "layer2": 0.1 / 4, "layer3": 0.1 / 2, "fc": 0.1}
    for key, tensor in network.named_parameters():
        part = key.split(".")[0]
        if part not in rates or key not in gradients:
            continue
        gradient = 0.5 * gradients[key] / norm
        if name == "sgd":
            step = 1.9 * gradient  # Nesterov's first
        elif name == "adamw":
            step = gradient / (np.abs(gradient) + 1e-8)
        else:
            trust = 0.001 * np.linalg.norm(before[key]) / np.linalg.norm(gradient) if gradient.ndim > 1 else 1
            step = trust * gradient
        np.testing.assert_allclose(before[key] - tensor.numpy(), rates[part] * step, rtol=1e-3, atol=3e-7, err_msg=key)


def test_layer_decay_applies_to_muon():
    """As those of a network whose rate is that share everywhere."""

    def moved(**rates):
        paddle.seed(0)
        network = create_model("resnet8", num_classes=3)
        optimizer = make_optimizer(network, TrainConfig(optimizer="muon", schedule="step", warmup=0, **rates), 10)
        before = network.layer2[0].conv1.weight.numpy()
        network(paddle.ones([2, 3, 8, 8])).sum().backward()
        optimizer.step()
        return network.layer2[0].conv1.weight.numpy() - before

    slower = moved(learning_rate=0.2, layer_decay=0.5)
    np.testing.assert_allclose(slower, moved(learning_rate=0.2 / 4), atol=1e-6)
    assert np.abs(slower).max() > 1e-4


def test_frozen_parameters_are_left_alone():
    network = Tiny()
    network.linear.bias.stop_gradient = True
    optimizer = make_optimizer(network, TrainConfig(), steps_per_epoch=10)
    assert network.linear.bias.name not in {each.name for each in optimizer._parameter_list}


@pytest.mark.parametrize(
    ("schedule", "shape"), [("cosine", lambda x: (1 + math.cos(math.pi * x)) / 2), ("one_cycle", lambda x: 1 - x)]
)
def test_added_epochs_are_smaller_cycles(schedule, shape):
    """3 epochs of 10 steps, then 2 and 1 more: each warms up over a fifth of its steps, to a quarter of the peak."""
    train = TrainConfig(
        epochs=6, extended_from=(3, 5), extend_rate=0.25, learning_rate=0.4, warmup=0.2, schedule=schedule
    )
    plain = make_schedule(train.model_copy(update={"epochs": 3, "extended_from": ()}), 10).lr_lambda
    factor = make_schedule(train, 10).lr_lambda
    assert [factor(step) for step in range(30)] == [plain(step) for step in range(30)]
    for start, steps, warmup in ((30, 20, 4), (50, 10, 2)):
        rising = [0.25 * (step + 1) / warmup for step in range(warmup)]
        falling = [0.25 * shape(step / (steps - warmup)) for step in range(steps - warmup)]
        assert [factor(start + step) for step in range(steps)] == pytest.approx(rising + falling)
    assert factor(60) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("schedule", ["step", "plateau"])
def test_added_epochs_change_nothing_before_and_no_milestone(schedule):
    train = TrainConfig(epochs=4, schedule=schedule, warmup=0.1)
    longer = train.model_copy(update={"epochs": 9, "extended_from": (4,)})
    rates = [make_schedule(each, 10).lr_lambda for each in (train, longer)]
    assert [rates[1](step) for step in range(90)] == [rates[0](step) for step in range(90)]
