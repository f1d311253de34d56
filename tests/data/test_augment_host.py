"""Cropping and resizing, against Pillow."""

import numpy as np
import paddle
import pytest
from PIL import Image
from random_images import noise

from paddle_resnet.config import AugmentConfig
from paddle_resnet.data import MemorySplit, Normalize, TrainLoader
from paddle_resnet.data.augment import host
from paddle_resnet.data.augment.batch import Augment
from paddle_resnet.data.augment.boxes import draw_crops

SIDE = 20


def pillow(image, size):
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def test_crop_equals_pillows_even_outside_the_image():
    pixels = noise(6, SIDE)
    top, left = np.array([-4, 0, 9, -30, 3, 25]), np.array([-4, 0, 9, 2, 30, -3])
    flipped = np.array([False, True, False, True, False, True])
    found = host.crop(pixels, top, left, 15, flipped)
    for image, row, column, flip, square in zip(pixels, top, left, flipped, found, strict=True):
        window = np.asarray(Image.fromarray(image).crop((column, row, column + 15, row + 15)))
        np.testing.assert_array_equal(square, window[:, ::-1] if flip else window)


@pytest.mark.parametrize("size", [8, SIDE, 33])
def test_resized_crop_uses_the_box_alone(size):
    pixels = noise(8, SIDE)
    boxes = draw_crops(8, (0.2, 0.6), np.random.default_rng(1)).boxes(SIDE, SIDE)
    flipped = np.arange(8) % 2 == 1
    found = host.resized_crop(pixels, boxes, size, flipped)
    for image, (top, left, height, width), flip, result in zip(pixels, boxes.T, flipped, found, strict=True):
        alone = pillow(np.ascontiguousarray(image[top : top + height, left : left + width]), size)
        np.testing.assert_array_equal(result, alone[:, ::-1] if flip else alone)
    np.testing.assert_array_equal(host.resize_batch(pixels, size)[3], pillow(pixels[3], size))


def test_the_loaders_batches_are_those_drawn_in_order():
    """The order, then each batch's parameters, come from one generator; prefetching does not change them."""
    pixels, labels = noise(30, SIDE), np.arange(30)
    config = AugmentConfig(scale=(0.3, 1.0), flip=True)
    normalize = Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    loader = TrainLoader(MemorySplit(pixels, labels, "train"), 10, 16, 16, normalize, config, seed=7)
    generator, augment = np.random.default_rng(7), Augment(config, 16, 16)
    for _ in range(2):
        order = generator.permutation(30)
        for number, (images, found) in enumerate(loader):
            chosen = order[10 * number : 10 * number + 10]
            expected = host.augment(pixels[chosen], augment.draw(10, generator))
            np.testing.assert_array_equal(found.numpy().ravel(), chosen)
            np.testing.assert_allclose(images.numpy(), normalize(paddle.to_tensor(expected)).numpy(), atol=1e-6)
