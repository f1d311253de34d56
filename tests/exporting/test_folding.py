"""Folding BatchNorm, the standard deviation and shortcuts into convolutions keeps the probabilities."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle import nn
from tiny_family import FAMILY, tiny_network
from tiny_run import SIZE, random_pixels

from paddle_resnet.data import Normalize
from paddle_resnet.evaluation.scorer import Views
from paddle_resnet.exporting.folding import fold
from paddle_resnet.models import create_model
from paddle_resnet.models.blocks import ZeroPadShortcut

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def expected_probabilities(network, pixels):
    """By the definition of normalisation, with the unfolded network."""
    normal = ((pixels / 255 - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)
    network.eval()
    with paddle.no_grad():
        return softmax(network(paddle.to_tensor(normal)).numpy().astype(np.float64))


def probabilities(layer, batch):
    with paddle.no_grad():
        return layer(paddle.to_tensor(batch)).numpy()


@pytest.mark.parametrize("kind", FAMILY)
def test_folding_keeps_the_probabilities(kind):
    network = tiny_network(kind)
    expected = expected_probabilities(network, random_pixels(4))
    folded = fold(network, Normalize(MEAN, STD), SIZE)
    np.testing.assert_allclose(probabilities(folded, random_pixels(4)), expected, atol=1e-5)
    assert not [layer for layer in folded.sublayers() if isinstance(layer, ZeroPadShortcut)]


def test_lenet_without_batch_norm_is_folded():
    paddle.seed(0)
    network = create_model("lenet", num_classes=3)
    expected = expected_probabilities(network, random_pixels(4, size=32))
    folded = fold(network, Normalize(MEAN, STD), 32)
    np.testing.assert_allclose(probabilities(folded, random_pixels(4, size=32)), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        ("basic, option A", 0),
        ("bottleneck", 0),
        ("resnet-d", 0),
        # Figure 4e (He et al. 2016): the last BatchNorm, and one before each of three blocks but the first, which the
        # stem activates. bn2 and the stem's stand behind convolutions.
        ("preact basic", 3),
    ],
)
def test_batch_norm_remains_only_in_preactivation_blocks(kind, left):
    folded = fold(tiny_network(kind), Normalize(MEAN, STD), SIZE)
    assert sum(isinstance(layer, nn.BatchNorm2D) for layer in folded.sublayers()) == left


def test_a_folded_convolution_by_hand():
    """Of a 1x1 convolution: weight 2, then mean 3, variance 4, scale 5, shift 6: 5 (2 x - 3) / 2 + 6 = 5 x - 1.5."""
    network = nn.Sequential(nn.Conv2D(3, 1, 1, bias_attr=False), nn.BatchNorm2D(1, epsilon=0.0), nn.Flatten())
    network[0].weight.set_value(np.full((1, 3, 1, 1), 2, np.float32))
    for parameter, value in zip(
        (network[1]._mean, network[1]._variance, network[1].weight, network[1].bias), (3, 4, 5, 6), strict=True
    ):
        parameter.set_value(np.array([value], np.float32))
    fold(network, Normalize((0, 0, 0), (1 / 255, 1 / 255, 1 / 255)), 1)
    np.testing.assert_allclose(network[0].weight.numpy().ravel(), 3 * [5], rtol=1e-6)
    np.testing.assert_allclose(network[0].bias.numpy(), [-1.5], rtol=1e-6)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0, 2])
def test_mirror_images_and_shifted_copies_are_averaged(flip, shift):
    network = tiny_network("basic, option A")
    pixels = random_pixels(4)
    up_left, down_right = np.zeros_like(pixels), np.zeros_like(pixels)
    up_left[:, : SIZE - shift, : SIZE - shift] = pixels[:, shift:, shift:]
    down_right[:, shift:, shift:] = pixels[:, : SIZE - shift, : SIZE - shift]
    copies = [pixels, pixels, up_left, down_right]  # the image counts as much as both others
    if flip:
        copies += [copy[:, :, ::-1] for copy in copies]
    expected = np.mean([expected_probabilities(network, copy) for copy in copies], axis=0)
    folded = fold(network, Normalize(MEAN, STD), SIZE, Views(flip, shift))
    np.testing.assert_allclose(probabilities(folded, pixels), expected, atol=1e-5)


def test_shared_mean_is_exact_inside_the_border():
    convolution = nn.Conv2D(3, 2, 3, padding=1)
    normal = ((random_pixels(2, size=3) / 255 - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)
    with paddle.no_grad():
        expected = convolution(paddle.to_tensor(normal)).numpy()
    folded = fold(nn.Sequential(convolution, nn.Flatten()), Normalize(MEAN, STD), 3, shared_mean=True)
    assert folded.levels.numpy().ravel().tolist() == [102, 102, 102]  # 255 * 0.4
    with paddle.no_grad():
        found = convolution(
            paddle.to_tensor(random_pixels(2, size=3).transpose(0, 3, 1, 2).astype(np.float32) - 102)
        ).numpy()
    np.testing.assert_allclose(found[:, :, 1, 1], expected[:, :, 1, 1], atol=1e-4)
