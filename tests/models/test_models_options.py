"""The options of `create_model`, and a network's stages, new head, frozen sections and parameter groups."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle import nn
from tiny_family import FAMILY, images, tiny_network

from paddle_resnet.config import ModelConfig
from paddle_resnet.errors import UsageError
from paddle_resnet.models import count_parameters, create_configured_model, create_model, stems
from paddle_resnet.models.blocks import ConvPoolBlock, ResidualBlock, StochasticDepth, projection_shortcut
from paddle_resnet.models.classifier import RUNNING_STATISTICS
from paddle_resnet.models.factory import make_network


def blocks(network):
    return [layer for layer in network.sublayers() if isinstance(layer, ResidualBlock)]


def of_type(network, kind):
    return [name for name, layer in network.named_sublayers() if type(layer) is kind]


@pytest.mark.parametrize(
    ("stem", "sizes"),
    [
        (None, [8, 4, 2]),
        ("cifar", [8, 4, 2]),
        ("cifar_pool", [4, 2, 1]),
        ("imagenet", [2, 1, 1]),
        ("deep", [2, 1, 1]),
        ("whitening", [3, 2, 1]),
    ],
)
def test_a_stem_sets_the_stages_sizes(stem, sizes):
    network = create_model("resnet8", 5, stem=stem)
    outputs = network.forward_stages(images(8))
    assert [output.shape for output in outputs] == [
        [3, channels, size, size] for channels, size in zip((16, 32, 64), sizes, strict=True)
    ]
    assert network.forward_stages(images(8))[-1].shape == network.forward_features(images(8)).shape


def test_the_whitening_stem_starts_from_uncorrelated_patches():
    network = create_model("resnet8", stem="whitening")
    random = np.random.default_rng(0)
    # Channels that say nearly the same, as an image's do.
    pictures = random.normal(size=(20, 1, 9, 9)) + 0.3 * random.normal(size=(20, 3, 9, 9))
    network.conv1.whiten(paddle.to_tensor(pictures.astype(np.float32)))
    found = (
        network.conv1[0](paddle.to_tensor(pictures.astype(np.float32))).numpy().transpose(1, 0, 2, 3).reshape(24, -1)
    )
    np.testing.assert_allclose(found[12:], -found[:12], atol=1e-5)
    patches = np.stack([pictures[:, :, i : i + 8, j : j + 8] for i in (0, 1) for j in (0, 1)], axis=2)
    patches = patches.transpose(1, 2, 0, 3, 4).reshape(12, -1)
    variances = np.linalg.eigvalsh(patches @ patches.T / patches.shape[1])
    assert variances[-1] > 10 * variances[0]
    expected = np.diag(variances / (variances + stems.EIGENVALUE_EPSILON))
    np.testing.assert_allclose(found[:12] @ found[:12].T / found.shape[1], expected, atol=1e-4)


def test_the_deep_stem_is_of_three_small_convolutions():
    network = create_model("resnet8", stem="deep", in_channels=2)
    convolutions = [layer for layer in network.conv1.sublayers() if isinstance(layer, nn.Conv2D)]
    assert [layer.weight.shape for layer in convolutions] == [[8, 2, 3, 3], [8, 8, 3, 3], [16, 8, 3, 3]]
    assert [layer._stride for layer in convolutions] == [[2, 2], [1, 1], [1, 1]]


def test_channels_default_to_the_models_own():
    assert create_model("lenet").in_channels == 3
    with paddle.LazyGuard():
        assert create_model("resnet18_d2l").conv1.weight.shape[1] == 1
        assert create_model("resnet18_d2l", in_channels=3).conv1.weight.shape[1] == 3


@pytest.mark.parametrize("kind", [kind for kind in FAMILY if kind not in ("plain", "conv_pool")])
def test_zero_initialised_branch_outputs_zero_and_learns(kind):
    network = make_network(FAMILY[kind], num_classes=3, in_channels=3, zero_init_residual=True)
    x = images()
    for block in blocks(network):
        x = paddle.randn([2, _in_channels(block), 8, 8])
        if isinstance(block.downsample, nn.Identity):
            expected = x if block.pre_activation else nn.functional.relu(x)
            np.testing.assert_array_equal(block(x).numpy(), expected.numpy())
    network(images()).square().sum().backward()
    for block in blocks(network):
        last = block.conv2 if not hasattr(block, "conv3") else block.conv3
        norm = getattr(block, "bn3" if hasattr(block, "conv3") else "bn2")
        zero = last.weight if block.pre_activation else norm.weight
        assert not zero.numpy().any()
        assert zero.grad.abs().max().item() > 0, "a branch without a gradient would stay silent"


def test_zero_initialised_conv_pool_block_returns_its_pooled_input():
    x = paddle.randn([2, 4, 7, 7])
    block = ConvPoolBlock(4, 4, 1, projection_shortcut)
    block.zero_init_last()
    np.testing.assert_array_equal(block(x).numpy(), nn.functional.relu(x).numpy())
    block = ConvPoolBlock(4, 6, 2, projection_shortcut)
    block.zero_init_last()
    block.eval()
    # New running statistics are 0 and 1.
    expected = nn.functional.max_pool2d(block.conv1(x), 2, 2) / np.sqrt(1 + 1e-5)
    assert expected.shape == [2, 6, 3, 3]
    np.testing.assert_allclose(block(x).numpy(), nn.functional.relu(expected).numpy(), atol=1e-5)


def _in_channels(block):
    return block.conv1.weight.shape[1]


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean():
    paddle.seed(0)
    layer = StochasticDepth(0.25)
    x = paddle.ones([4000, 2, 3, 3])
    out = layer(x).numpy()
    assert (out == out[:, :1, :1, :1]).all(), "a sample is dropped whole"
    assert set(np.unique(out)) == {np.float32(0), np.float32(1) / np.float32(0.75)}
    # Five standard errors of a mean of 4,000 draws.
    assert abs((out[:, 0, 0, 0] == 0).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 4000)
    layer.eval()
    np.testing.assert_array_equal(layer(x).numpy(), x.numpy())


def test_drop_probability_grows_linearly():
    network = create_model("resnet110", stochastic_depth=0.5)
    found = [layer.probability for layer in network.sublayers() if isinstance(layer, StochasticDepth)]
    # Huang et al. 2016, equation 4, of 54 blocks; their figure 2: the last one survives with 1/2.
    np.testing.assert_allclose(found, 0.5 * np.arange(1, 55) / 54, rtol=1e-12)


def test_a_dropped_branch_leaves_its_shortcut():
    network = make_network(FAMILY["basic, option B"], num_classes=3, in_channels=3, stochastic_depth=1 - 1e-9)
    block = network.layer2[0]
    x = paddle.randn([2, 4, 8, 8])
    np.testing.assert_array_equal(block(x).numpy(), nn.functional.relu(block.downsample(x)).numpy())


def test_dropout_is_before_the_head_or_in_wide_blocks():
    assert of_type(create_model("resnet8", dropout=0.3), nn.Dropout) == ["dropout"]
    assert of_type(create_model("lenet", dropout=0.3), nn.Dropout) == ["dropout"]
    wide = create_model("wrn_10_4", dropout=0.3)
    assert of_type(wide, nn.Dropout) == ["layer1.0.dropout", "layer2.0.dropout", "layer3.0.dropout"]
    assert {layer.p for layer in wide.sublayers() if isinstance(layer, nn.Dropout)} == {0.3}
    assert of_type(create_model("wrn_10_4"), nn.Dropout) == []


@pytest.mark.parametrize("name", ["resnet8", "preact_resnet20", "lenet"])
def test_network_without_top_returns_features(name):
    whole, headless = create_model(name), create_model(name, include_top=False)
    for key, tensor in headless.state_dict().items():
        tensor.set_value(whole.state_dict()[key])
    whole.eval(), headless.eval()
    assert set(whole.state_dict()) - set(headless.state_dict()) == {"fc.weight", "fc.bias"}
    assert (headless.num_classes, headless.include_top) == (0, False)
    np.testing.assert_array_equal(headless(images(32)).numpy(), whole.forward_features(images(32)).numpy())
    pooled = headless.forward_head(headless(images(32))).numpy()
    expected = pooled @ whole.fc.weight.numpy() + whole.fc.bias.numpy()
    np.testing.assert_allclose(whole(images(32)).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_headless_network_keeps_the_weights_of_a_file(tmp_path):
    whole = create_model("resnet8", 7)
    paddle.save(whole.state_dict(), str(tmp_path / "resnet8.pdparams"))
    headless = create_model("resnet8", pretrained=tmp_path / "resnet8.pdparams", include_top=False)
    for key, tensor in headless.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), whole.state_dict()[key].numpy())


@pytest.mark.parametrize("name", ["resnet8", "lenet"])
def test_new_head_has_its_own_parameter_names(name):
    network = create_model(name)
    earlier = {key: tensor.numpy().copy() for key, tensor in network.state_dict().items()}
    network.eval()
    network.reset_classifier(4)
    assert network.num_classes == 4
    assert network(images(32)).shape == [3, 4]
    names = [parameter.name for parameter in network.parameters()]
    assert len(set(names)) == len(names), "an optimizer keys its state by these"
    for key, tensor in network.state_dict().items():
        if not key.startswith("fc."):
            np.testing.assert_array_equal(tensor.numpy(), earlier[key])
    with pytest.raises(UsageError, match="num_classes: expected a whole number of at least 1, got 0"):
        network.reset_classifier(0)


@pytest.mark.parametrize(("until", "frozen"), [("stem", 3), ("layer2", 3 + 2 * 6)])
def test_frozen_parts_do_not_move(until, frozen):
    network = create_model("resnet8", 3)
    size = count_parameters(network)
    network.freeze(until)
    network.train()
    assert count_parameters(network) == size, "a network's size does not change"
    before = {key: tensor.numpy().copy() for key, tensor in network.state_dict().items()}
    optimizer = paddle.optimizer.Momentum(0.1, parameters=network.parameters(), weight_decay=0.01)
    nn.functional.cross_entropy(network(images()), paddle.to_tensor([0, 1, 2])).backward()
    optimizer.step()
    same = [key for key, tensor in network.state_dict().items() if np.array_equal(tensor.numpy(), before[key])]
    parts = {"stem": ("conv1", "bn1"), "layer2": ("conv1", "bn1", "layer1", "layer2")}[until]
    assert same == [key for key in before if key.startswith(parts)]
    assert not network.bn1.training
    assert network.layer3.training
    network.freeze(None)
    assert network.bn1.training
    assert not any(
        parameter.stop_gradient
        for name, parameter in network.named_parameters()
        if not name.endswith(RUNNING_STATISTICS)
    )


def test_freezing_does_not_put_an_evaluated_network_into_training():
    network = create_model("resnet8", 3)
    network.eval()
    network.freeze("stem")
    assert not any(layer.training for layer in network.sublayers(include_self=True))


@pytest.mark.parametrize(("name", "parts"), [("resnet8", "stem.*layer3"), ("lenet", "layer1.*layer2")])
def test_unknown_section_lists_the_known(name, parts):
    with pytest.raises(UsageError, match=f'{name} has no "layer9".*{parts}'):
        create_model(name).freeze("layer9")


@pytest.mark.parametrize(("name", "groups"), [("resnet8", 5), ("preact_resnet20", 5), ("lenet", 3)])
def test_the_groups_of_parameters_go_from_stem_to_head(name, groups):
    network = create_model(name)
    network.freeze("layer1")
    found = network.layer_groups()
    assert len(found) == groups
    flat = [parameter for group in found for parameter in group]
    assert len({id(parameter) for parameter in flat}) == len(flat)
    assert sum(parameter.size for parameter in flat) == count_parameters(network)
    first = network.conv1.weight if name != "lenet" else network.layer1[0].weight
    assert found[0][0] is first
    assert found[-1][-1] is network.fc.bias


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("resnet8", {"stem": "depe"}, r'stem: expected one of imagenet, cifar, .*did you mean "deep"'),
        ("resnet8", {"dropout": 1.0}, "dropout: expected a probability"),
        ("resnet8", {"dropout": None}, "dropout: expected a probability .* got None"),
        (None, {}, 'no model "None"; paddle-resnet models lists all'),
        ("resnet8", {"stochastic_depth": -0.1}, "stochastic_depth: expected a probability"),
        ("lenet", {"stem": "cifar"}, "stem: lenet has no such option"),
        ("plain20", {"zero_init_residual": True}, "zero_init_residual: plain20 has no such option"),
        ("plain20", {"stochastic_depth": 0.1}, "stochastic_depth: plain20 has no such option"),
    ],
)
def test_unsupported_option_is_refused(name, options, complaint):
    with pytest.raises(UsageError, match=complaint):
        create_model(name, **options)


def test_a_config_makes_the_same_network_again():
    config = ModelConfig(name="wrn_10_4", stem="deep", zero_init_residual=True, dropout=0.2, stochastic_depth=0.3)
    network = create_configured_model(config, 6)
    assert (network.num_classes, network.in_channels, network.model_name) == (6, 3, "wrn_10_4")
    assert network.layer1[0].dropout.p == 0.2
    assert network.layer3[0].stochastic_depth.probability == 0.3
    assert not network.layer3[0].conv2.weight.numpy().any()
    assert network.conv1[0].weight.shape == [8, 3, 3, 3]
    with paddle.LazyGuard():
        assert create_configured_model(ModelConfig(name="resnet18_d2l"), 6).in_channels == 3


def test_lenet_takes_sizes_from_its_minimum():
    network = create_model("lenet")
    network.eval()
    assert network(images(16)).shape == network(images(64)).shape == [3, 10]
    with pytest.raises(UsageError, match="at least 16 pixels a side, got 12x12"):
        network(images(12))


def test_the_last_activation_is_of_the_head():
    network = tiny_network("preact basic")
    network.freeze("layer1")
    network.train()
    assert not network.layer1[0].bn2.training
    assert network.final_bn.training
