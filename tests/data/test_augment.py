"""Resizing, cropping and flipping of batches, against Pillow and numpy, image by image."""

import numpy as np
import pytest
from PIL import Image
from random_images import noise

from paddle_resnet.config import AugmentConfig
from paddle_resnet.data.augment import host
from paddle_resnet.data.augment.batch import Augment
from paddle_resnet.data.augment.boxes import draw_crops
from paddle_resnet.images.decode import decode_image, resize_and_crop_batch


def augmented(augment, pixels, generator):
    return host.augment(pixels, augment.draw(len(pixels), generator))


@pytest.mark.parametrize(("side", "size"), [(8, 32), (32, 20), (50, 24), (28, 28), (64, 63), (180, 16), (9, 8)])
def test_resize_is_pillows_antialiased_bilinear(side, size):
    pixels = noise(3, side)
    found = host.resize_batch(pixels, size)
    reference = [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)) for image in pixels]
    np.testing.assert_array_equal(found, reference)


@pytest.mark.parametrize(("side", "resize", "size"), [(8, 32, 32), (60, 37, 32), (32, 32, 32), (32, 40, 33)])
def test_batch_resize_equals_decoding(side, resize, size):
    pixels = noise(4, side)
    found = resize_and_crop_batch(pixels, resize, size)
    np.testing.assert_array_equal(found, [decode_image(image, resize, size) for image in pixels])


def test_no_augmentation_changes_nothing():
    pixels = noise(5, 12)
    found = augmented(Augment(AugmentConfig(), 12, 12), pixels, np.random.default_rng(0))
    np.testing.assert_array_equal(found, pixels)


def located(count, side):
    """Images whose channels are row + 1, column + 1 and the image's number."""
    rows, columns = np.meshgrid(np.arange(side) + 1, np.arange(side) + 1, indexing="ij")
    return np.stack([np.stack([rows, columns, np.full_like(rows, index)], -1) for index in range(count)]).astype(
        np.uint8
    )


def test_pad_and_flip_are_uniform_and_keep_the_order():
    count, side, pad = 200, 12, 2
    augment = Augment(AugmentConfig(pad=pad, flip=True), side, side)
    generator = np.random.default_rng(1)
    places, flips = [], 0
    for _ in range(10):
        found = augmented(augment, located(count, side), generator).astype(int)
        centre = found[:, side // 2, side // 2]
        np.testing.assert_array_equal(centre[:, 2], np.arange(count))
        backwards = found[:, 6, 5, 1] > found[:, 6, 6, 1]
        flips += backwards.sum()
        first_column = np.where(backwards, found[:, 6, 6, 1] - 5, found[:, 6, 6, 1] - 6)
        places += list(zip(found[:, 6, 6, 0] - 6, first_column, strict=True))
    _, frequency = np.unique(np.array(places), axis=0, return_counts=True)
    draws = 10 * count
    assert len(frequency) == (2 * pad + 1) ** 2
    assert abs(flips - draws / 2) < 5 * (draws / 4) ** 0.5
    expected = draws / len(frequency)
    assert ((frequency - expected) ** 2 / expected).sum() < 55  # chi-square, 24 degrees of freedom, p < 0.001


def test_a_larger_picture_is_cropped_at_random_inside():
    found = augmented(Augment(AugmentConfig(), 20, 16), located(300, 20), np.random.default_rng(0))
    assert set(found[:, 0, 0, 0]) == set(range(1, 6))
    assert set(found[:, 0, 0, 1]) == set(range(1, 6))
    np.testing.assert_array_equal(found[:, -1, -1, 0] - found[:, 0, 0, 0], 15)


def test_boxes_have_the_area_and_the_aspect_asked_for():
    top, left, height, width = draw_crops(4000, (0.25, 0.5), np.random.default_rng(0)).boxes(400, 400)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 400).all()
    assert (left + width <= 400).all()
    share, ratio = height * width / 400**2, width / height
    assert 0.245 < share.min() < 0.26
    assert 0.49 < share.max() < 0.505
    assert abs(share.mean() - 0.375) < 0.006  # uniform
    assert abs(np.log(ratio).mean()) < 0.015  # wide as often as tall
    assert 0.74 < ratio.min() < 0.77
    assert 1.3 < ratio.max() < 1.35


@pytest.mark.parametrize(
    ("height", "width", "box"), [(9, 100, (0, 44, 9, 12)), (90, 9, (39, 0, 12, 9)), (9, 10, (0, 0, 9, 10))]
)
def test_a_box_that_never_fits_is_in_the_middle(height, width, box):
    """As torchvision's: the largest one with an aspect ratio of at most 4/3. No box of the whole area fits here."""
    draws = draw_crops(5, (1.0, 1.0), np.random.default_rng(0))
    never = draws._replace(ratios=np.full_like(draws.ratios, 5.0))
    np.testing.assert_array_equal(never.boxes(height, width), np.tile(box, (5, 1)).T)


def test_boxes_lie_anywhere_in_a_wide_picture():
    top, left, height, width = draw_crops(4000, (0.1, 0.3), np.random.default_rng(0)).boxes(100, 300)
    for place, free in ((top, 100 - height), (left, 300 - width)):
        assert ((place >= 0) & (place <= free)).all()
        assert place.min() == 0
        assert (place == free).any()
        assert abs((place / np.maximum(free, 1))[free > 20].mean() - 0.5) < 0.03


def test_scale_through_augment_keeps_size_and_levels():
    pixels = np.full((3, 10, 10, 3), 77, np.uint8)
    found = augmented(Augment(AugmentConfig(scale=(0.3, 1.0), flip=True), 24, 24), pixels, np.random.default_rng(0))
    assert found.shape == (3, 24, 24, 3)
    assert (found == 77).all()


def test_the_same_generator_state_gives_the_same_pictures():
    pixels = noise(8, 16)
    for config in (AugmentConfig(pad=2, flip=True), AugmentConfig(scale=(0.3, 1.0), flip=True)):
        augment, generator = Augment(config, 16, 16), np.random.default_rng(5)
        state = generator.bit_generator.state
        first, second = augmented(augment, pixels, generator), augmented(augment, pixels, generator)
        generator.bit_generator.state = state
        np.testing.assert_array_equal(augmented(augment, pixels, generator), first)
        assert (first != second).any()
