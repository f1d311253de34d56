"""The networks against paddle.vision's, the papers' counts and numpy."""

import math

import numpy as np
import paddle
import pytest
from network_facts import papers_depth
from paddle import nn
from paddle.vision import models as vision

from paddle_resnet.errors import UsageError
from paddle_resnet.models import count_parameters, create_model, list_models, model_entry
from paddle_resnet.models.blocks import BasicBlock, Bottleneck, ZeroPadShortcut, projection_shortcut

# He et al. 2015, table 1; the counts are torchvision's, with 1,000 classes.
IMAGENET = {
    "resnet18": (18, 11_689_512),
    "resnet50": (50, 25_557_032),
}

# He et al. 2015, table 6 has 0.27M and 0.85M: 6n + 2 layers, option A.
CIFAR = {"resnet20": 269_722, "resnet56": 853_018}


def pixels(*shape, seed=0):
    return paddle.to_tensor(np.random.default_rng(seed).normal(size=shape).astype("float32"))


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet_members_have_the_published_depth_size_and_names(name):
    depth, parameters = IMAGENET[name]
    with paddle.LazyGuard():  # shapes without numbers: quick
        network, theirs = create_model(name), getattr(vision, name)()
    assert papers_depth(network) == depth
    assert count_parameters(network) == parameters
    expected = {key: list(tensor.shape) for key, tensor in theirs.state_dict().items()}
    assert {key: list(tensor.shape) for key, tensor in network.state_dict().items()} == expected


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_members_have_the_papers_depth_and_size(name):
    network = create_model(name)
    assert papers_depth(network) == int(name.removeprefix("resnet"))
    assert count_parameters(network) == CIFAR[name]
    assert not any("downsample" in key for key in network.state_dict()), "option A has no parameters"


@pytest.mark.parametrize(("name", "n"), [("resnet8", 1), ("resnet14", 2)])
def test_shallow_cifar_members_follow_the_same_rule(name, n):
    # By hand: stem, 2n convolutions a stage of which the first of stages 2 and 3 widens, BatchNorms, head.
    def stage(narrow, wide):
        return 9 * narrow * wide + (2 * n - 1) * 9 * wide * wide + 2 * n * 2 * wide

    expected = 9 * 3 * 16 + 2 * 16 + stage(16, 16) + stage(16, 32) + stage(32, 64) + 64 * 10 + 10
    network = create_model(name)
    assert papers_depth(network) == 6 * n + 2
    assert count_parameters(network) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_gradients_and_running_statistics_equal_paddle_visions(name):
    theirs, ours = getattr(vision, name)(num_classes=10), create_model(name, 10)
    for key, tensor in ours.state_dict().items():
        tensor.set_value(theirs.state_dict()[key].numpy())
    images, labels = pixels(4, 3, 32, 32), paddle.to_tensor([0, 3, 9, 3])
    for network in (theirs, ours):
        network.train()
        nn.functional.cross_entropy(network(images), labels).backward()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters() if not parameter.stop_gradient}
    for name, parameter in ours.named_parameters():
        if not parameter.stop_gradient:
            gradient = expected.pop(name).numpy()
            np.testing.assert_allclose(parameter.grad.numpy(), gradient, rtol=1e-4, atol=1e-5 * abs(gradient).max())
    assert not expected
    for key, tensor in ours.state_dict().items():
        if key.endswith(("._mean", "._variance")):
            assert tensor.numpy().std() > 0
            np.testing.assert_allclose(tensor.numpy(), theirs.state_dict()[key].numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("size", "stride", "new_channels"), [(8, 2, 6), (7, 2, 6), (6, 1, 3)])
def test_option_a_shortcut_subsamples_and_appends_zeros(size, stride, new_channels):
    x = np.random.default_rng(0).normal(size=(2, 3, size, size)).astype("float32")
    taken = x[:, :, ::stride, ::stride]
    expected = np.concatenate([taken, np.zeros((2, new_channels, *taken.shape[2:]), "float32")], axis=1)
    shortcut = ZeroPadShortcut(3, 3 + new_channels, stride)
    np.testing.assert_array_equal(shortcut(paddle.to_tensor(x)).numpy(), expected)


def test_option_a_gradient_reaches_the_sampled_pixels():
    x = pixels(1, 2, 5, 5)
    x.stop_gradient = False
    ZeroPadShortcut(2, 4, 2)(x).sum().backward()
    expected = np.zeros((1, 2, 5, 5), "float32")
    expected[:, :, ::2, ::2] = 1
    np.testing.assert_array_equal(x.grad.numpy(), expected)


@pytest.mark.parametrize(("block", "width", "last"), [(BasicBlock, 8, "bn2"), (Bottleneck, 2, "bn3")])
def test_zero_residual_block_is_the_rectified_identity(block, width, last):
    layer = block(8, width, 1, projection_shortcut)
    getattr(layer, last).weight.set_value(np.zeros(8, "float32"))
    x = pixels(2, 8, 6, 6)
    np.testing.assert_allclose(layer(x).numpy(), np.maximum(x.numpy(), 0), atol=1e-7)


@pytest.mark.parametrize(
    ("name", "size", "shape"),
    [("resnet18", 64, [2, 512, 2, 2]), ("resnet8", 32, [2, 64, 8, 8]), ("resnet8", 33, [2, 64, 9, 9])],
)
def test_features_then_head_is_the_network(name, size, shape):
    network = create_model(name, 5)
    network.eval()
    images = pixels(2, 3, size, size)
    with paddle.no_grad():
        features = network.forward_features(images)
        assert list(features.shape) == shape
        pooled = features.numpy().mean(axis=(2, 3))
        expected = pooled @ network.fc.weight.numpy() + network.fc.bias.numpy()
        np.testing.assert_allclose(network(images).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_initial_weights_are_kaiming_by_fan_out():
    paddle.seed(0)
    network = create_model("resnet18")
    for layer in network.sublayers():
        if isinstance(layer, nn.Conv2D):
            out_channels, _, height, width = layer.weight.shape
            expected = math.sqrt(2 / (out_channels * height * width))
            # The standard error of a standard deviation of n normal numbers is 1 / sqrt(2n) of it.
            assert layer.weight.numpy().std() == pytest.approx(expected, rel=5 / math.sqrt(2 * layer.weight.size))
        elif isinstance(layer, nn.BatchNorm2D):
            assert (layer.weight.numpy() == 1).all()
            assert (layer.bias.numpy() == 0).all()


def test_classes_and_channels_can_be_chosen():
    network = create_model("resnet14", 7, in_channels=1)
    assert (network.num_classes, network.in_channels) == (7, 1)
    assert list(network(pixels(2, 1, 16, 16)).shape) == [2, 7]


def test_entry_has_the_models_defaults():
    assert (model_entry("resnet50").num_classes, model_entry("resnet50").input_size) == (1000, 224)
    assert (model_entry("resnet20").num_classes, model_entry("resnet20").input_size) == (10, 32)
    assert set(IMAGENET) | set(CIFAR) <= set(list_models())


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(
        UsageError, match=r'no model "resnt50" \(did you mean "resnet50"\?\); paddle-resnet models lists'
    ):
        create_model("resnt50")


@pytest.mark.parametrize(
    "wrong",
    [{"num_classes": 0}, {"in_channels": -1}, {"num_classes": 1.5}, {"num_classes": "10"}, {"in_channels": True}],
)
def test_numbers_that_count_nothing_are_refused(wrong):
    [(argument, number)] = wrong.items()
    complaint = f"{argument}: expected a whole number of at least 1, got {number!r}"
    with pytest.raises(UsageError, match=complaint):
        create_model("resnet8", **wrong)


def test_numbers_of_numpy_count():
    assert create_model("resnet8", np.int64(4)).num_classes == 4


def test_optimizer_state_fits_another_network_of_the_name():
    def run():
        network = create_model("resnet8")
        return network, paddle.optimizer.Momentum(0.1, parameters=network.parameters())

    def step(network, optimizer):
        network(pixels(2, 3, 8, 8)).square().mean().backward()
        optimizer.step()
        optimizer.clear_grad()

    # Paddle numbers an optimizer's state, too, through the whole process: hence a guard around each run.
    with paddle.utils.unique_name.guard():
        first, optimizer = run()
        step(first, optimizer)
        weights = {key: tensor.numpy() for key, tensor in first.state_dict().items()}
        state = {key: paddle.to_tensor(tensor.numpy()) for key, tensor in optimizer.state_dict().items()}
        step(first, optimizer)
    with paddle.utils.unique_name.guard():
        second, optimizer = run()
        assert [p.name for p in second.parameters()] == [p.name for p in first.parameters()]
        second.set_state_dict(weights)
        optimizer.set_state_dict(state)
        step(second, optimizer)
    for key, tensor in first.state_dict().items():
        np.testing.assert_array_equal(second.state_dict()[key].numpy(), tensor.numpy())


def test_a_network_can_be_exported_with_a_dynamic_batch(tmp_path):
    network = create_model("resnet8")
    network.eval()
    spec = paddle.static.InputSpec([None, 3, 32, 32], "float32")
    paddle.jit.save(network, str(tmp_path / "model"), input_spec=[spec])
    exported = paddle.jit.load(str(tmp_path / "model"))
    for batch in (1, 3):
        images = pixels(batch, 3, 32, 32)
        np.testing.assert_allclose(exported(images).numpy(), network(images).numpy(), rtol=1e-4, atol=1e-5)
