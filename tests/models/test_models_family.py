"""Every name of the table: published sizes and depths, and a training step; gradients of each kind of block."""

from __future__ import annotations

import functools
import math
import re

import numpy as np
import paddle
import pytest
from network_facts import papers_depth
from paddle import nn
from paddle.vision import models as vision
from paddle.vision.models.resnet import model_urls
from tiny_family import DESIGNS, FAMILY, images, tiny_network

from paddle_resnet.errors import UsageError
from paddle_resnet.models import ImageClassifier, count_parameters, create_model, list_models, model_entry
from paddle_resnet.models.blocks import PlainBlock, pointwise_shortcut, projection_shortcut
from paddle_resnet.models.factory import make_network
from paddle_resnet.models.preact import PreActBasicBlock, PreActBottleneck
from paddle_resnet.zoo.shapes import costs, state_shapes

# torchvision's documentation of each model's weights ("num_params").
TORCHVISION = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
}

# Others' counts. resnet20 to resnet110: those that He et al. 2015 round in table 6. preact, wrn: imgclsmob's table,
# less 128 on ImageNet, where its first block has a BatchNorm (64 channels) of its own after the stem's. lenet:
# PyTorch's CIFAR-10 tutorial.
PUBLISHED = TORCHVISION | {
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "preact_resnet18": 11_687_848 - 128,
    "preact_resnet34": 21_796_008 - 128,
    "preact_resnet50": 25_549_480 - 128,
    "preact_resnet101": 44_541_608 - 128,
    "preact_resnet152": 60_185_256 - 128,
    "preact_resnet20": 272_282,
    "preact_resnet56": 855_578,
    "preact_resnet110": 1_730_522,
    "preact_resnet164": 1_703_258,
    "wrn_28_10": 36_479_194,
    "lenet": 62_006,
    # timm's networks of these names, counted: sum(p.numel() for p in timm.create_model("resnet18d").parameters()).
    "resnet18_d": 11_708_744,
    "resnet34_d": 21_816_904,
    "resnet50_d": 25_576_264,
    "resnet101_d": 44_568_392,
    "resnet152_d": 60_212_040,
    "resnet200_d": 64_693_064,
}

# PaddleClas's table of its model zoo, column Params(M): `paddle.flops` counts BatchNorm's statistics too.
PADDLECLAS_WITH_STATISTICS = {
    "resnet18_vb": 11.70,
    "resnet34_vb": 21.81,
    "resnet18_vd": 11.72,
    "resnet34_vd": 21.84,
    "resnet50_vd": 25.63,
    "resnet101_vd": 44.67,
    "resnet152_vd": 60.36,
    "resnet200_vd": 74.93,
}

# In millions: He et al. 2015, table 6 (plain networks have as many); Zagoruyko and Komodakis 2016, tables 3 to 5;
# He et al. 2016 by the same tables.
IN_MILLIONS = {
    "resnet20": "0.27",
    "resnet32": "0.46",
    "resnet44": "0.66",
    "resnet56": "0.85",
    "resnet110": "1.7",
    "resnet1202": "19.4",
    "plain20": "0.27",
    "plain32": "0.46",
    "plain44": "0.66",
    "plain56": "0.85",
    "plain110": "1.7",
    "preact_resnet110": "1.7",
    "preact_resnet164": "1.7",
    "wrn_10_4": "1.2",
    "wrn_16_2": "0.7",
    "wrn_16_4": "2.7",
    "wrn_28_10": "36.5",
}

VISION = [name for name in list_models() if callable(getattr(vision, name, None))]


def without_numbers(make, *arguments):
    """Make a network whose parameters have only shapes, which is fast."""
    with paddle.LazyGuard():
        return make(*arguments)


@functools.cache
def outline(name):
    """A network of the table, without weights."""
    return without_numbers(create_model, name)


def shapes(network):
    return {name: list(tensor.shape) for name, tensor in network.state_dict().items()}


# By arithmetic, which test_shapes_by_arithmetic_are_the_networks compares with every network.


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_size_is_the_published(name):
    assert costs(model_entry(name)).parameters == PUBLISHED[name]


@pytest.mark.parametrize("name", IN_MILLIONS)
def test_the_size_is_the_papers(name):
    millions = IN_MILLIONS[name]
    digits = len(millions.partition(".")[2])
    # The papers cut 2.75 to 2.7, and 0.854 to 0.85.
    assert abs(costs(model_entry(name)).parameters / 1e6 - float(millions)) < 10.0**-digits / 2 + 1e-3


@pytest.mark.parametrize("name", PADDLECLAS_WITH_STATISTICS)
def test_paddleclas_networks_have_its_published_size(name):
    size = sum(math.prod(shape) for shape in state_shapes(model_entry(name)).values())
    assert abs(size / 1e6 - PADDLECLAS_WITH_STATISTICS[name]) < 0.01  # 21.819 is given as 21.81


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("name", list_models())
def test_shapes_by_arithmetic_are_the_networks(name):
    entry, network = model_entry(name), outline(name)
    computed = {tensor: list(shape) for tensor, shape in state_shapes(entry).items()}
    assert network.model_name == name
    assert computed == shapes(network)
    assert costs(entry).parameters == count_parameters(network)
    assert costs(entry).depth == papers_depth(network)


@pytest.mark.slow
def test_the_table_has_every_residual_network_of_paddle_vision():
    official = {name for name in model_urls if name.startswith(("resn", "wide_resn"))}
    assert official <= set(VISION)
    for name in VISION:
        assert shapes(outline(name)) == shapes(without_numbers(getattr(vision, name))), name


@pytest.mark.parametrize("name", [name for name in list_models() if not name.startswith("wrn")])
def test_the_name_tells_the_layers_with_weights(name):
    layers = 5 if name == "lenet" else int(re.search(r"\d+", name)[0])
    # ResNet-C's stem has three convolutions in the place of one.
    assert costs(model_entry(name)).depth == layers + (2 if name.endswith(("_d", "_vd")) else 0)


@pytest.mark.parametrize("name", ["wrn_10_4", "wrn_16_2", "wrn_16_4", "wrn_28_10"])
def test_wide_network_depth_is_as_in_its_paper(name):
    network = outline(name)
    assert sum(isinstance(layer, nn.Conv2D) for layer in network.sublayers()) == int(name.split("_")[1])


@pytest.mark.parametrize("n", [20, 32, 44, 56, 110])
def test_option_b_adds_two_projections_to_option_a(n):
    added = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    option_a, option_b = (costs(model_entry(f"resnet{n}{suffix}")) for suffix in ("", "_b"))
    assert option_b.parameters - option_a.parameters == added


def assert_takes_a_training_step(network: ImageClassifier, size: int) -> None:
    generator = np.random.default_rng(0)
    x = paddle.to_tensor(generator.normal(size=(2, network.in_channels, size, size)).astype(np.float32))
    logits = network(x)
    assert logits.shape == [2, 3]
    nn.functional.cross_entropy(logits, paddle.to_tensor([0, 2])).backward()
    for parameter_name, parameter in network.named_parameters():
        if not parameter.stop_gradient:
            assert np.isfinite(parameter.grad.norm().item()), parameter_name
    assert network.fc.weight.grad.abs().max().item() > 0


@pytest.mark.parametrize("name", DESIGNS)
def test_every_design_takes_a_training_step(name):
    entry = DESIGNS[name]
    network = make_network(entry, num_classes=3, in_channels=entry.in_channels)
    assert_takes_a_training_step(network, 32 if name == "lenet" or entry.input_size == 224 else 8)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("name", ["resnet1202", "resnet200_vd", "preact_resnet164", "wrn_28_10", "plain110"])
def test_the_deepest_networks_take_a_training_step(name):
    assert_takes_a_training_step(create_model(name, 3), 32 if model_entry(name).input_size == 224 else 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet34", "resnext50_32x4d", "wide_resnet50_2"])
def test_logits_equal_paddle_visions(name):
    """One of each block; test_resnet.py has resnet18 and resnet50, and deeper ones differ only in shapes."""
    network, theirs = create_model(name, 3), without_numbers(lambda: getattr(vision, name)(num_classes=3))
    ours = dict(network.named_sublayers(include_self=True))
    for layer_name, layer in theirs.named_sublayers(include_self=True):
        for key in list(layer._parameters):
            layer._parameters[key] = ours[layer_name]._parameters[key]
    x = paddle.to_tensor(np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32))
    network(x)  # running statistics that are not those of a new network
    network.eval(), theirs.eval()
    with paddle.no_grad():
        logits, expected = network(x).numpy(), theirs(x).numpy()
    assert np.abs(logits - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAMILY)
def test_gradients_are_the_slopes(kind):
    network = tiny_network(kind).to(dtype="float64")
    x = images().astype("float64")
    generator = np.random.default_rng(3)
    weights = paddle.to_tensor(generator.normal(size=(3, 3)))

    def loss():
        return (network(x) * weights).sum()

    loss().backward()
    step = 1e-8  # so short that hardly ever a ReLU turns within it
    for name, parameter in network.named_parameters():
        if parameter.stop_gradient:
            continue
        value, direction = parameter.numpy().copy(), generator.normal(size=parameter.shape)
        with paddle.no_grad():
            parameter.set_value(value + step * direction)
            above = loss().item()
            parameter.set_value(value - step * direction)
            below = loss().item()
            parameter.set_value(value)
        slope = (parameter.grad.numpy() * direction).sum()
        assert slope == pytest.approx((above - below) / (2 * step), rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize(("block", "width"), [(PreActBasicBlock, 8), (PreActBottleneck, 2)])
def test_zero_initialised_preact_block_is_the_identity(block, width):
    layer = block(8, width, 1, pointwise_shortcut)
    layer.zero_init_last()
    x = images()[:, :1].tile([1, 8, 1, 1])
    np.testing.assert_array_equal(layer(x).numpy(), x.numpy())
    assert x.numpy().min() < 0, "no ReLU after the addition"


@pytest.mark.parametrize(("block", "width"), [(PreActBasicBlock, 8), (PreActBottleneck, 2)])
def test_a_block_that_changes_shape_projects_its_activated_input(block, width):
    layer = block(3, width, 2, pointwise_shortcut)
    layer.zero_init_last()
    layer.eval()
    layer.bn1._mean.set_value(np.array([0.1, -0.2, 0.3], "float32"))
    x = images()
    activated = np.maximum((x.numpy() - np.array([0.1, -0.2, 0.3]).reshape(3, 1, 1)) / np.sqrt(1 + 1e-5), 0)
    expected = np.einsum("nchw,oc->nohw", activated[:, :, ::2, ::2], layer.downsample.weight.numpy()[:, :, 0, 0])
    np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_preact_network_activates_first_and_last_once():
    network = tiny_network("preact basic")
    network.eval()
    names = [name for name, layer in network.named_sublayers() if isinstance(layer, nn.BatchNorm2D)]
    # One BatchNorm before each convolution but the first, none in the shortcut, and one after the last block.
    assert names == ["bn1", "layer1.0.bn2", "layer1.1.bn1", "layer1.1.bn2", "layer2.0.bn1", "layer2.0.bn2", "final_bn"]
    last = network.forward_stages(images())[-1]
    assert last.min().item() < 0
    np.testing.assert_array_equal(
        network.forward_features(images()).numpy(), np.maximum(network.final_bn(last).numpy(), 0)
    )


def test_first_block_may_project_its_unchanged_shape():
    network = tiny_network("resnet-vd")
    assert [type(layer) for layer in network.layer1[0].downsample] == [nn.Identity, nn.Conv2D, nn.BatchNorm2D]
    assert isinstance(network.layer1[1].downsample, nn.Identity)


def test_outer_activations_can_be_left_out():
    network = tiny_network("preact pytorch-cifar")
    network.eval()
    names = [name for name, layer in network.named_sublayers() if isinstance(layer, nn.BatchNorm2D)]
    assert [name for name in names if "." not in name] == [] and names[0] == "layer1.0.bn1"
    # Its first shortcut passes the stem's output on unchanged, and its last stage's output is the head's input.
    for block in network.layer1:
        block.conv2.weight.set_value(paddle.zeros_like(block.conv2.weight))
    stem, features = network.conv1(images()), network.forward_features(images())
    np.testing.assert_array_equal(network.forward_stages(images())[0].numpy(), stem.numpy())
    assert features.min().item() < 0


def test_an_alias_makes_the_network_of_its_first_name():
    network = outline("resnet50_vd")
    assert network.model_name == "resnet50_d"
    assert shapes(network) == shapes(outline("resnet50_d"))
    with pytest.raises(UsageError, match='did you mean "resnet101_vd"'):
        model_entry("resnet101vd")


def test_a_plain_block_has_no_second_path():
    layer = PlainBlock(8, 8, 1, projection_shortcut)
    layer.bn2.weight.set_value(np.zeros(8, "float32"))
    assert not layer(images()[:, :1].tile([1, 8, 1, 1])).numpy().any()


def test_resnet_d_averages_before_it_projects():
    network = tiny_network("resnet-d")
    pool, project, normalise = network.layer2[0].downsample
    x = images(7)
    # 7x7: the last windows average the 1 or 2 pixels that are inside.
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    expected = np.nanmean(padded.reshape(3, 3, 4, 2, 4, 2), axis=(3, 5))
    np.testing.assert_allclose(pool(x).numpy(), expected, rtol=1e-5, atol=1e-6)
    assert (project._kernel_size, project._stride) == ([1, 1], [1, 1])
    assert isinstance(normalise, nn.BatchNorm2D)


def test_the_books_network_has_biases_and_shortcuts_without_batchnorm():
    network = outline("resnet18_d2l")
    convolutions = [layer for layer in network.sublayers() if isinstance(layer, nn.Conv2D)]
    assert len(convolutions) == 17 + 3
    # resnet18 on one channel, without the shortcuts' BatchNorm, with biases and 10 classes.
    less = 2 * 64 * 49 + 2 * (128 + 256 + 512) + 513 * 990
    biases = 64 + 4 * 64 + 5 * (128 + 256 + 512)
    assert count_parameters(network) == TORCHVISION["resnet18"] - less + biases
    assert all(layer.bias is not None for layer in convolutions)
    assert sum(isinstance(layer, nn.BatchNorm2D) for layer in network.sublayers()) == 17
