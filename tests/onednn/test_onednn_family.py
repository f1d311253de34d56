"""oneDNN's layers in a network of each kind of block, against the same network with Paddle's own."""

from __future__ import annotations

import logging

import numpy as np
import paddle
import pytest
from paddle import nn
from tiny_family import DESIGNS, FAMILY, images, tiny_network

from paddle_resnet.errors import UsageError
from paddle_resnet.models import create_model
from paddle_resnet.models.blocks import StochasticDepth
from paddle_resnet.onednn import (
    accelerate,
    bfloat16_unavailable_reason,
    layers,
    replace_layers,
    restore,
    unavailable_reason,
)
from paddle_resnet.onednn.layers import ChannelsLastResNet

pytestmark = [pytest.mark.slow, pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason()))]


def native_and_accelerated(kind, **options):
    """A native network and an accelerated one of the same weights."""
    native, accelerated = tiny_network(kind, **options), tiny_network(kind, **options)
    replace_layers(accelerated)
    return native, accelerated


def assert_near(found, expected, tolerance=1e-4):
    found, expected = found.numpy(), expected.numpy()
    assert np.abs(found - expected).max() <= tolerance * max(np.abs(expected).max(), 1e-3)


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("size", [16, 21])
def test_a_training_step_is_the_same(kind, size):
    native, accelerated = native_and_accelerated(kind)
    logits = [network(images(size)) for network in (native, accelerated)]
    assert_near(logits[1], logits[0])
    for network_logits in logits:
        nn.functional.cross_entropy(network_logits, paddle.to_tensor([0, 2, 1])).backward()
    for (name, one), other in zip(native.named_parameters(), accelerated.parameters(), strict=True):
        if one.stop_gradient:
            assert name.endswith(("_mean", "_variance"))
            assert_near(other, one, 1e-5)
        else:
            assert_near(other.grad, one.grad, 1e-3)


@pytest.mark.parametrize("kind", FAMILY)
def test_evaluation_and_stages_are_the_same(kind):
    native, accelerated = native_and_accelerated(kind)
    native.eval(), accelerated.eval()
    with paddle.no_grad():
        assert_near(accelerated(images()), native(images()))
        for one, other in zip(native.forward_stages(images()), accelerated.forward_stages(images()), strict=True):
            assert one.shape == other.shape
            assert_near(other, one)
        native.remove_classifier(), accelerated.remove_classifier()
        assert_near(accelerated(images()), native(images()))


@pytest.mark.skipif(bfloat16_unavailable_reason() is not None, reason=str(bfloat16_unavailable_reason()))
@pytest.mark.parametrize("kind", FAMILY)
def test_bfloat16_flows_through_every_kind_of_block(kind):
    network = tiny_network(kind, dropout=0.1, stochastic_depth=0.1 if kind != "plain" else 0.0)
    replace_layers(network, "bfloat16")
    network(images()).square().sum().backward()
    assert all(
        np.isfinite(parameter.grad.numpy()).all() for parameter in network.parameters() if not parameter.stop_gradient
    )


@pytest.mark.parametrize("kind", FAMILY)
def test_no_native_layer_is_left_before_the_head(kind):
    _, accelerated = native_and_accelerated(kind)
    native = {nn.Conv2D, nn.BatchNorm2D, nn.ReLU, nn.MaxPool2D, nn.AvgPool2D}
    assert not native & {type(layer) for layer in accelerated.sublayers()}
    relus = sum(isinstance(layer, layers.FusedReLU) for layer in accelerated.sublayers())
    assert relus
    restore(accelerated)
    assert not isinstance(accelerated, ChannelsLastResNet)
    assert not [layer for layer in accelerated.sublayers() if type(layer).__module__ == layers.__name__]


def test_dropped_branches_leave_their_shortcuts():
    native, accelerated = native_and_accelerated("preact basic", stochastic_depth=0.5)
    for layer in (*native.sublayers(), *accelerated.sublayers()):
        if isinstance(layer, StochasticDepth):
            layer.probability = 1 - 1e-9
    assert_near(accelerated(images()), native(images()))


@pytest.mark.parametrize("name", [name for name in DESIGNS if name != "lenet"])
def test_every_residual_network_can_be_accelerated(name):
    with paddle.LazyGuard():
        network = create_model(name, dropout=0.1)
    replace_layers(network)
    assert isinstance(network, ChannelsLastResNet)


def test_an_unknown_network_trains_on_paddles_operators(caplog):
    network = create_model("lenet")
    kinds = [type(layer) for layer in network.sublayers(include_self=True)]
    with caplog.at_level(logging.INFO, "paddle_resnet"):
        accelerate(network, "auto", "cpu")
    assert "Paddle's own operators, as the network: no oneDNN layer takes the place of this LeNet" in caplog.text
    assert [type(layer) for layer in network.sublayers(include_self=True)] == kinds
    with pytest.raises(UsageError, match=r"cpu_backend onednn: .*LeNet; use auto or native"):
        accelerate(network, "onednn", "cpu")
