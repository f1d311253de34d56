"""Grad-CAM against its closed form and against finite differences; it does not change the network."""

import numpy as np
import paddle
import pytest

from paddle_resnet.errors import UsageError
from paddle_resnet.evaluation.grad_cam import enlarge, grad_cam
from paddle_resnet.models import create_model

CLASSES = [3, 0, 3, 9]


def random_network(name="resnet8", **options):
    """A network with random weights and running statistics, in eval mode."""
    paddle.seed(0)
    network = create_model(name, 10, **options)
    generator = np.random.default_rng(0)
    for key, tensor in network.state_dict().items():
        if key.endswith("_mean"):
            tensor.set_value(generator.normal(0, 0.3, tensor.shape).astype("float32"))
        elif key.endswith("_variance"):
            tensor.set_value(generator.uniform(0.5, 2, tensor.shape).astype("float32"))
    network.eval()
    return network


def images(number=4, size=32, dtype="float32"):
    return paddle.to_tensor(np.random.default_rng(1).normal(size=(number, 3, size, size)).astype(dtype))


@pytest.mark.parametrize(("name", "size"), [("resnet8", 32), ("resnet18", 48), ("preact_resnet20", 32)])
def test_the_last_stages_map_is_cam_per_position(name, size):
    network, batch = random_network(name), images(size=size)
    with paddle.no_grad():
        features = network.forward_features(batch).numpy().astype(np.float64)
    weight = network.fc.weight.numpy().astype(np.float64)
    cam = np.stack([np.einsum("k,khw->hw", weight[:, c], f) for c, f in zip(CLASSES, features, strict=True)])
    height, width = features.shape[2:]
    expected = np.maximum(cam, 0) / (height * width)
    assert (expected > 0).any() and (expected == 0).any(), "both sides of the ReLU are tested"
    maps = grad_cam(network, batch, CLASSES)
    assert maps.shape == (4, height, width)
    np.testing.assert_allclose(maps, expected, atol=2e-5 * expected.max())


def test_the_last_stage_is_the_default_layer():
    network, batch = random_network(), images()
    np.testing.assert_allclose(
        grad_cam(network, batch, CLASSES, "layer3"), grad_cam(network, batch, CLASSES), rtol=1e-5, atol=1e-6
    )


def test_weights_of_earlier_layers_equal_finite_differences():
    network, batch = random_network().to(dtype="float64"), images(1, dtype="float64")
    layer, step = network.layer1, 1e-5
    with paddle.no_grad():
        output = network.forward_stages(batch)[0].numpy()[0]  # [16, 32, 32]

        def score(channel, change):
            added = np.zeros((1, 16, 1, 1))
            added[0, channel] = change
            hook = layer.register_forward_post_hook(lambda _, __, out: out + paddle.to_tensor(added))
            logit = network(batch)[0, 7].item()
            hook.remove()
            return logit

        # Raising a whole channel gives the sum of the derivatives; the weight is their mean.
        slopes = [(score(channel, step) - score(channel, -step)) / (2 * step) for channel in range(16)]
    weights = np.array(slopes) / (32 * 32)
    expected = np.maximum(np.einsum("k,khw->hw", weights, output), 0)
    (found,) = grad_cam(network, batch, [7], "layer1")
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max())


def test_maps_depend_on_their_image_and_class():
    network, batch = random_network(), images()
    together = grad_cam(network, batch, CLASSES, "layer2")
    for index, label in enumerate(CLASSES):
        (alone,) = grad_cam(network, batch[index : index + 1], [label], "layer2")
        np.testing.assert_allclose(together[index], alone, rtol=1e-4, atol=1e-5 * together.max())
    other = grad_cam(network, batch, [(label + 1) % 10 for label in CLASSES], "layer2")
    assert np.abs(other - together).max() > 0.1 * together.max()


@pytest.mark.parametrize("training", [True, False])
def test_the_network_does_not_change(training):
    network = random_network()
    network.train() if training else network.eval()
    state = {key: tensor.numpy().copy() for key, tensor in network.state_dict().items()}
    in_training = grad_cam(network, images(), CLASSES, "layer2")
    assert network.training is training and network.layer1.training is training
    for key, tensor in network.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), state[key])
    assert all(parameter.grad is None for parameter in network.parameters())
    network.eval()
    np.testing.assert_array_equal(grad_cam(network, images(), CLASSES, "layer2"), in_training)


def test_a_frozen_network_has_the_same_maps():
    network, batch = random_network(), images()
    free = grad_cam(network, batch, CLASSES, "layer1")
    network.freeze("layer3")
    for parameter in network.fc.parameters():
        parameter.stop_gradient = True
    np.testing.assert_allclose(grad_cam(network, batch, CLASSES, "layer1"), free, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("classes", "layer", "words"),
    [
        ([0, 1], None, ["4 images", r"\[2\]"]),
        ([0, 1, 2, 10], None, ["from 0 to 9", "10"]),
        ([0, 1, 2, -1], None, ["from 0 to 9", "-1"]),
        (CLASSES, "layr2", ['"layr2"', 'did you mean "layer2"']),
        (CLASSES, "fc", ["fc", r"\[N, channels, H, W\]"]),
        (CLASSES, "layer1.0.fork", ["layer1.0.fork", r"\[N, channels, H, W\]"]),
    ],
)
def test_wrong_classes_and_layers_are_refused(classes, layer, words):
    network = random_network()
    for word in words:
        with pytest.raises(UsageError, match=word):
            grad_cam(network, images(), classes, layer)
    assert grad_cam(network, images(), CLASSES, "layer1").shape == (4, 32, 32), "no hook remains"


def test_enlarging_interpolates_bilinearly():
    constant = np.full((1, 2, 2), 3, np.float32)
    np.testing.assert_allclose(enlarge(constant, 8, 6), np.full((1, 8, 6), 3))
    ramp = np.array([[[0.0, 1.0]]], np.float32)
    # Pixel centres: of 4 pixels over 2, those at 1/4 and 3/4 of the way between the two centres, the outer ones held.
    np.testing.assert_allclose(enlarge(ramp, 1, 4)[0, 0], [0, 0.25, 0.75, 1], atol=1e-6)
