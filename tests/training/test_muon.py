"""Muon against the singular value decomposition, and against its iteration written out in numpy."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle import nn

from paddle_resnet.config import TrainConfig
from paddle_resnet.models import create_model
from paddle_resnet.training.optim.muon import Muon, orthogonalise
from paddle_resnet.training.optim.optimizer import make_optimizer


def iterated(matrix: np.ndarray, iterations: int) -> np.ndarray:
    """The same polynomial on the singular values themselves: odd powers only, so U and V stay."""
    u, values, v = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    values = values / np.linalg.norm(values)
    for _ in range(iterations):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return u * values @ v


@pytest.mark.parametrize("shape", [(8, 27), (27, 8), (6, 6), (1, 9)])
@pytest.mark.parametrize("iterations", [3, 5])
def test_newton_schulz_changes_only_singular_values(shape, iterations):
    matrix = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = orthogonalise(paddle.to_tensor(matrix), iterations).numpy()
    assert found == pytest.approx(iterated(matrix, iterations), abs=2e-5)


def test_large_singular_values_end_near_one():
    rng = np.random.default_rng(1)
    u, v = np.linalg.qr(rng.normal(size=(6, 6)))[0], np.linalg.qr(rng.normal(size=(40, 6)))[0]
    matrix = (u * [1.0, 0.5, 0.2, 0.1, 0.05, 0.02]) @ v.T
    values = np.linalg.svd(orthogonalise(paddle.to_tensor(matrix.astype(np.float32)), 5).numpy(), compute_uv=False)
    assert values.min() > 0.65
    assert values.max() < 1.25


def test_a_zero_gradient_changes_nothing():
    assert orthogonalise(paddle.zeros([3, 5])).numpy() == pytest.approx(np.zeros((3, 5)))


class OneConvolution(nn.Layer):
    """Filters and a bias whose gradients are what the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2D(2, 4, 3)
        rng = np.random.default_rng(2)
        self.conv.weight.set_value(rng.normal(size=(4, 2, 3, 3)).astype(np.float32))
        self.conv.bias.set_value(rng.normal(size=4).astype(np.float32))

    def step(self, optimizer, filters, bias):
        loss = (self.conv.weight * paddle.to_tensor(filters)).sum() + (self.conv.bias * paddle.to_tensor(bias)).sum()
        loss.backward()
        optimizer.minimize(loss)
        optimizer.clear_grad()


def test_two_steps_are_those_of_the_formula():
    layer = OneConvolution()
    optimizer = Muon(0.1, 0.6, layer.parameters(), [layer.conv.weight], weight_decay=0.0)
    weight, bias = layer.conv.weight.numpy().astype(np.float64), layer.conv.bias.numpy().astype(np.float64)
    norm, velocity, bias_velocity = np.linalg.norm(weight), np.zeros_like(weight), np.zeros_like(bias)
    rng = np.random.default_rng(3)
    for _ in range(2):
        filters, biases = (rng.normal(size=shape).astype(np.float32) for shape in (weight.shape, bias.shape))
        layer.step(optimizer, filters, biases)
        velocity = 0.6 * velocity + filters
        step = iterated((filters + 0.6 * velocity).reshape(4, -1), 3).reshape(weight.shape)
        weight = weight - 0.1 * norm * step / np.linalg.norm(step)
        weight *= norm / np.linalg.norm(weight)
        bias_velocity = 0.6 * bias_velocity + biases
        bias = bias - 0.1 * (biases + 0.6 * bias_velocity)
    assert layer.conv.weight.numpy() == pytest.approx(weight, abs=1e-5)
    assert layer.conv.bias.numpy() == pytest.approx(bias, abs=1e-5)


def test_filter_norms_stay_and_velocities_are_saved():
    paddle.seed(0)
    with paddle.utils.unique_name.guard():
        network = create_model("resnet8")
        optimizer = make_optimizer(network, TrainConfig(optimizer="muon", learning_rate=0.2, warmup=0.0), 10)
        before = {name: float(weight.norm()) for name, weight in network.named_parameters() if weight.ndim == 4}
        for _ in range(3):
            network(paddle.randn([4, 3, 8, 8])).square().mean().backward()
            optimizer.step()
            optimizer.clear_grad()
    after = {name: float(weight.norm()) for name, weight in network.named_parameters() if weight.ndim == 4}
    assert len(after) == 7
    assert after == pytest.approx(before, rel=1e-4)
    velocities = [value for name, value in optimizer.state_dict().items() if "velocity" in name]
    assert len(velocities) == sum(not weight.stop_gradient for weight in network.parameters())


def test_muon_resumes_from_its_state():
    def steps(numbers, weights=None, state=None):
        with paddle.utils.unique_name.guard():
            layer = OneConvolution()
            optimizer = Muon(0.1, 0.6, layer.parameters(), [layer.conv.weight])
            if weights is not None:
                layer.set_state_dict(weights)
                optimizer.set_state_dict(state)
            for number in numbers:
                rng = np.random.default_rng(number)
                layer.step(optimizer, rng.normal(size=(4, 2, 3, 3)).astype(np.float32), np.zeros(4, np.float32))
        return layer.state_dict(), optimizer.state_dict()

    whole, _ = steps([0, 1, 2])
    halves, _ = steps([2], *steps([0, 1]))
    assert halves["conv.weight"].numpy().tolist() == whole["conv.weight"].numpy().tolist()


def test_filters_without_gradient_stay():
    """As behind a BatchNorm whose scale begins at zero (`model.zero_init_residual`)."""
    network = OneConvolution()
    filters, bias = network.conv.weight.numpy(), network.conv.bias.numpy()
    optimizer = Muon(0.1, 0.6, network.parameters(), [network.conv.weight])
    network.step(optimizer, np.zeros((4, 2, 3, 3), np.float32), np.ones(4, np.float32))
    np.testing.assert_allclose(network.conv.weight.numpy(), filters, rtol=1e-6)
    assert (network.conv.bias.numpy() < bias).all()
