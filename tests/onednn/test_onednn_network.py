"""A whole ResNet with oneDNN's layers against the same network with Paddle's own."""

from __future__ import annotations

import copy

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.nn import functional

from paddle_resnet.models.blocks import BasicBlock, Bottleneck, ZeroPadShortcut, projection_shortcut
from paddle_resnet.models.resnet import ResNet
from paddle_resnet.onednn import layers, replace_layers, restore, unavailable_reason
from paddle_resnet.onednn import layers as onednn_layers
from paddle_resnet.onednn.layers import ChannelsLastResNet

pytestmark = pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason()))

NETWORKS = {
    "basic, zero-padded shortcuts": (BasicBlock, "cifar", ZeroPadShortcut),
    "basic, imagenet stem": (BasicBlock, "imagenet", projection_shortcut),
    "bottleneck": (Bottleneck, "cifar", projection_shortcut),
}


def small_network(kind, seed=0):
    block, stem, shortcut = NETWORKS[kind]
    paddle.seed(seed)
    return ResNet(block, (1, 1), widths=(4, 8), num_classes=3, in_channels=3, stem=stem, shortcut=shortcut)


def native_and_accelerated(kind):
    """A native network and an accelerated one of the same weights, none of them zero."""
    native = small_network(kind)
    for parameter in native.parameters():
        if not parameter.stop_gradient and parameter.ndim == 1:
            parameter.set_value(parameter + paddle.uniform(parameter.shape, min=0.1, max=0.5))
    accelerated = small_network(kind)
    accelerated.set_state_dict(native.state_dict())
    replace_layers(accelerated)
    return native, accelerated


def batch(size=16):
    rng = np.random.default_rng(1)
    return paddle.to_tensor(rng.normal(size=(3, 3, size, size)).astype(np.float32)), paddle.to_tensor([0, 2, 1])


def assert_near(found, expected, tolerance=1e-4):
    found, expected = found.numpy(), expected.numpy()
    assert np.abs(found - expected).max() <= tolerance * max(np.abs(expected).max(), 1e-6)


@pytest.fixture
def calls(monkeypatch):
    """How often each function of oneDNN was called."""
    counts = {}

    def counted(name, function):
        def call(*arguments, **settings):
            counts[name] = counts.get(name, 0) + 1
            return function(*arguments, **settings)

        return call

    for name in ("conv2d", "batch_norm", "add", "max_pool2d", "global_average_pool", "zero_pad_shortcut"):
        monkeypatch.setattr(onednn_layers, name, counted(name, getattr(onednn_layers, name)))
    return counts


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("size", [16, 19])
def test_a_training_step_is_the_same(kind, size):
    networks = native_and_accelerated(kind)
    images, labels = batch(size)
    losses = []
    for network in networks:
        loss = functional.cross_entropy(network(images), labels)
        loss.backward()
        losses.append(loss)
    assert_near(losses[1], losses[0])
    for (name, native), accelerated in zip(networks[0].named_parameters(), networks[1].parameters(), strict=True):
        if native.stop_gradient:
            assert "_mean" in name or "_variance" in name
            assert_near(accelerated, native, 1e-5)
        else:
            assert_near(accelerated.grad, native.grad)


@pytest.mark.parametrize("kind", NETWORKS)
def test_evaluation_is_the_same(kind):
    native, accelerated = native_and_accelerated(kind)
    native.eval(), accelerated.eval()
    images, _ = batch()
    assert_near(accelerated(images), native(images))
    with paddle.no_grad():
        assert_near(accelerated(images), native(images))
        assert_near(accelerated.forward_features(images), native.forward_features(images))


def test_every_layer_is_computed_by_onednn(calls):
    _, accelerated = native_and_accelerated("basic, imagenet stem")
    accelerated(batch()[0])
    assert calls == {"conv2d": 6, "batch_norm": 6, "add": 2, "max_pool2d": 1, "global_average_pool": 1}


def test_parameters_stay_what_they_were():
    network = small_network("bottleneck")
    names, parameters = list(network.state_dict()), [id(parameter) for parameter in network.parameters()]
    shapes = [value.shape for value in network.state_dict().values()]
    values = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    replace_layers(network)
    assert isinstance(network, ChannelsLastResNet)
    assert list(network.state_dict()) == names
    assert [id(parameter) for parameter in network.parameters()] == parameters
    assert [value.shape for value in network.state_dict().values()] == shapes
    assert all(np.array_equal(value, values[name]) for name, value in network.state_dict().items())


def test_an_optimizer_made_before_trains_the_accelerated_network():
    networks = [small_network("basic, zero-padded shortcuts") for _ in range(2)]
    images, labels = batch()
    losses = []
    for network in networks:
        optimizer = paddle.optimizer.Momentum(0.05, parameters=network.parameters())
        if network is networks[1]:
            replace_layers(network)
        for _ in range(4):
            loss = functional.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


def test_saved_weights_are_read_by_a_native_network(tmp_path):
    native, accelerated = native_and_accelerated("basic, imagenet stem")
    images, _ = batch()
    accelerated(images)
    accelerated.eval()
    paddle.save(accelerated.state_dict(), str(tmp_path / "weights.pdparams"))
    native.set_state_dict(paddle.load(str(tmp_path / "weights.pdparams")))
    native.eval()
    assert_near(native(images), accelerated(images))


def test_restore_undoes_accelerate(calls):
    native, accelerated = native_and_accelerated("bottleneck")
    classes = [type(layer) for layer in native.sublayers(include_self=True)]
    restore(accelerated)
    assert [type(layer) for layer in accelerated.sublayers(include_self=True)] == classes
    assert not isinstance(accelerated, ChannelsLastResNet)
    images, _ = batch()
    assert_near(accelerated(images), native(images), 1e-6)
    assert not calls


def test_accelerate_is_idempotent():
    _, accelerated = native_and_accelerated("bottleneck")
    classes = [type(layer) for layer in accelerated.sublayers(include_self=True)]
    replace_layers(accelerated)
    assert [type(layer) for layer in accelerated.sublayers(include_self=True)] == classes


def test_a_copy_has_its_own_weights():
    native, accelerated = native_and_accelerated("basic, zero-padded shortcuts")
    copied = copy.deepcopy(accelerated)
    with paddle.no_grad():
        accelerated.conv1.weight.set_value(accelerated.conv1.weight * 2)
    images, _ = batch()
    assert_near(copied(images), native(images))


def test_an_unknown_layer_leaves_the_network_unchanged():
    network = small_network("bottleneck")
    network.layer1.add_sublayer("extra", nn.Dropout2D())
    classes = [type(layer) for layer in network.sublayers(include_self=True)]
    with pytest.raises(TypeError, match=r"layer1\.extra.*Dropout2D"):
        replace_layers(network)
    assert [type(layer) for layer in network.sublayers(include_self=True)] == classes


def test_a_relu_without_its_batch_norm_is_refused():
    # The BatchNorm before a ReLU computes it too.
    network = small_network("bottleneck")
    network.layer1[0].bn2 = nn.Identity()
    with pytest.raises(TypeError, match=r"layer1\.0\.bn2: not a BatchNorm"):
        replace_layers(network)


def test_frozen_layers_stay_as_they_are():
    native, accelerated = native_and_accelerated("basic, imagenet stem")
    images, labels = batch()
    for network in (native, accelerated):
        for parameter in (*network.conv1.parameters(), *network.bn1.parameters(), *network.layer1.parameters()):
            parameter.stop_gradient = True
        functional.cross_entropy(network(images), labels).backward()
    for one, other in zip(accelerated.parameters(), native.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            assert_near(one.grad, other.grad)


@pytest.mark.parametrize("kind", NETWORKS)
def test_float64_goes_to_the_native_operations(kind, calls):
    native, accelerated = (network.to(dtype="float64") for network in native_and_accelerated(kind))
    images = batch()[0].astype("float64")
    assert_near(accelerated(images), native(images), 1e-12)
    assert not calls


@pytest.mark.parametrize("settings", [{"padding": "SAME"}, {"padding": [1, 0, 2, 1]}, {"padding": 1, "groups": 2}, {}])
def test_a_convolution_layer_with_other_settings(settings):
    native = nn.Conv2D(4, 6, 3, stride=2, **settings)
    accelerated = copy.deepcopy(native)
    accelerated.__class__ = layers.Convolution
    x = paddle.randn([2, 4, 9, 8])
    assert_near(accelerated(x.transpose([0, 2, 3, 1])).transpose([0, 3, 1, 2]), native(x), 4e-6)


@pytest.mark.parametrize("kinds", [(nn.MaxPool2D, layers.MaxPool), (nn.AvgPool2D, layers.AveragePool)])
@pytest.mark.parametrize("settings", [{"ceil_mode": True}, {"padding": 1}, {"stride": 1}, {"stride": 2}])
def test_a_pooling_layer_with_other_settings(settings, kinds):
    native = kinds[0](3, **settings)
    accelerated = copy.deepcopy(native)
    accelerated.__class__ = kinds[1]
    x = paddle.randn([2, 4, 9, 8])
    assert_near(accelerated(x.transpose([0, 2, 3, 1])).transpose([0, 3, 1, 2]), native(x), 1e-6)


def test_an_average_pool_with_a_divisor_of_its_own():
    native = nn.AvgPool2D(2, divisor_override=3)
    accelerated = copy.deepcopy(native)
    accelerated.__class__ = layers.AveragePool
    x = paddle.randn([2, 4, 6, 6])
    assert_near(accelerated(x.transpose([0, 2, 3, 1])).transpose([0, 3, 1, 2]), native(x), 0)


def test_a_window_outside_the_image_uses_paddle(calls):
    paddle.seed(0)
    layer = nn.Conv2D(3, 5, 1, stride=(1, 2), padding=[2, 1, 1, 3])
    x = paddle.randn([2, 3, 4, 1])
    expected = layer(x)
    layer.__class__ = layers.Convolution
    assert_near(layers.channels_first(layer(layers.channels_last(x))), expected, 0.0)
    assert calls == {}
    layer(paddle.randn([2, 4, 4, 3]))
    assert calls == {"conv2d": 1}


def test_batch_norm_of_a_single_value_is_the_identity():
    """It has no variance: a batch of one image of 1x1 pixel changes neither the values nor the running statistics."""
    x = paddle.to_tensor(np.array([3.0, -5.0], np.float32).reshape(1, 2, 1, 1))
    results, statistics = [], []
    for fast in (False, True):
        layer = nn.BatchNorm2D(2)
        layer.bias.set_value(np.array([7.0, 8.0], np.float32))
        if fast:
            layer.__class__ = layers.BatchNorm
        layer.train()
        inputs = x.transpose([0, 2, 3, 1]) if fast else x
        results.append(layer(inputs).numpy().ravel())
        statistics.append(np.concatenate([layer._mean.numpy(), layer._variance.numpy()]))
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(statistics[1], statistics[0])
    np.testing.assert_array_equal(statistics[1], [0, 0, 1, 1])


def test_pooling_a_smaller_image_uses_paddle():
    """As in fast_resnet8 on 8x8 pixels, whose last map is of 1x1."""
    x = paddle.to_tensor(np.random.default_rng(0).normal(size=(2, 1, 1, 3)).astype(np.float32))
    pool = nn.MaxPool2D(2, 2)
    expected = pool(x.transpose([0, 3, 1, 2])).transpose([0, 2, 3, 1])
    pool.__class__ = layers.MaxPool
    np.testing.assert_array_equal(pool(x).numpy(), expected.numpy())


def test_a_removed_relu_is_not_fused():
    native = small_network("basic, zero-padded shortcuts")
    for block in native.layer1:
        block.relu = nn.Identity()
    native.eval()
    images, _ = batch()
    expected = native(images)
    replace_layers(native)
    assert_near(native(images), expected)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_parameters_of_another_type_are_refused(dtype):
    """Their memory would be read as float32's."""
    _, accelerated = native_and_accelerated("basic, imagenet stem")
    accelerated.to(dtype=dtype)
    with pytest.raises(TypeError, match="take float32 parameters"):
        accelerated(batch()[0])


def test_a_sum_of_different_shapes_is_refused():
    with pytest.raises(ValueError, match="expected the same type and shape"):
        onednn_layers.add(paddle.ones([2, 4, 4, 8]), paddle.ones([2, 1, 1, 8]), relu=True)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [[2, 1, 8, 8], [2, 8, 8, 3], [2, 8, 8, 8], [3, 8, 8], [1, 2, 3, 8, 8]])
def test_images_of_another_shape_are_refused(shape, training):
    """The weights' memory would be read as that of a convolution of other channels."""
    native, accelerated = native_and_accelerated("basic, imagenet stem")
    for network in (native, accelerated):
        network.train() if training else network.eval()
        with pytest.raises(ValueError, match=r"channels|dimension|expected \[N, C, H, W\]"):
            network(paddle.ones(shape))
