"""Random erasing and TrivialAugment, against the papers' ranges, by numpy."""

from __future__ import annotations

import numpy as np
import pytest
from random_images import noise
from scipy.stats import chisquare, kstest, uniform

from paddle_resnet.config import AugmentConfig
from paddle_resnet.data.augment import host
from paddle_resnet.data.augment.batch import Augment
from paddle_resnet.data.augment.boxes import draw_erasing
from paddle_resnet.data.augment.trivial_augment import (
    NAMES,
    TrivialAugmentParams,
    apply_trivial_augment,
    draw_trivial_augment,
)


def test_erased_rectangles_have_the_papers_distribution():
    count, side = 2000, 100
    where = draw_erasing((count, side, side, 3), 0.5, np.random.default_rng(0)).mask
    erased = where.any(axis=(1, 2))
    assert abs(erased.sum() - count / 2) < 4 * (count / 4) ** 0.5
    tall, wide = where[erased].any(axis=2), where[erased].any(axis=1)
    height, width = tall.sum(axis=1), wide.sum(axis=1)
    np.testing.assert_array_equal(where[erased].sum(axis=(1, 2)), height * width)  # a rectangle
    for line in (tall, wide):
        assert (np.abs(np.diff(line.astype(int), axis=1)).sum(axis=1) <= 2).all()
    assert kstest(height * width / side**2, uniform(0.02, 0.38).cdf).statistic < 0.06  # wide ones fit less often
    ratio = height / width
    assert 0.26 < ratio.min() < 0.36
    assert 2.8 < ratio.max() < 3.8
    assert abs(np.log(ratio).mean()) < 4 * np.log(ratio).std() / len(ratio) ** 0.5


def test_erased_pixels_are_noise_and_others_unchanged():
    pixels = np.full((50, 16, 16, 3), 100, np.uint8)
    augment = Augment(AugmentConfig(erase=1.0), 16, 16)
    params = augment.draw(len(pixels), np.random.default_rng(1))
    on_host = host.augment(pixels, params)
    where = params.erasing.mask
    assert where.any(axis=(1, 2)).all()
    assert (on_host[~where] == 100).all()
    _, frequency = np.unique(on_host[where] // 32, return_counts=True)
    assert chisquare(frequency).pvalue > 0.01


def changed(name, magnitude, images):
    """The images after one operation of TrivialAugment."""
    images = images.copy()
    places = np.full(len(images), NAMES.index(name))
    apply_trivial_augment(images, TrivialAugmentParams(places, np.full(len(images), magnitude)))
    return images


def grey(images):
    """Luma of ITU-R 601, as Pillow rounds it."""
    red, green, blue = (images[..., channel].astype(int) for channel in range(3))
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def blended(images, others, magnitude):
    """Interpolate from `others` (factor 0) to the images (1) and beyond."""
    factor = 1 + 0.99 * magnitude
    return np.clip(others + factor * (images.astype(float) - others), 0, 255)


def shifted(images, magnitude):
    """The pixel at column x is that at x + magnitude * 32; black from outside."""
    result, by = np.zeros_like(images), int(32 * magnitude)
    if by >= 0:
        result[:, :, : 32 - by] = images[:, :, by:]
    else:
        result[:, :, -by:] = images[:, :, :by]
    return result


def equalized(images):
    """Pillow's lookup table: half a step ahead, in whole numbers."""
    result = np.empty_like(images)
    for image, target in zip(images, result, strict=True):
        for channel in range(3):
            histogram = np.bincount(image[..., channel].ravel(), minlength=256)
            step = (histogram.sum() - histogram[histogram > 0][-1]) // 255
            table = (step // 2 + np.concatenate([[0], np.cumsum(histogram)[:-1]])) // step
            target[..., channel] = np.clip(table, 0, 255)[image[..., channel]]
    return result


def stretched(images):
    low, high = images.min(axis=(1, 2), keepdims=True), images.max(axis=(1, 2), keepdims=True)
    return (images.astype(float) - low) * 255 / (high.astype(float) - low)


REFERENCES = {
    "identity": lambda images, magnitude: images,
    "translate_x": shifted,
    "translate_y": lambda images, magnitude: shifted(images.swapaxes(1, 2), magnitude).swapaxes(1, 2),
    "brightness": lambda images, magnitude: blended(images, 0, magnitude),
    "color": lambda images, magnitude: blended(images, grey(images)[..., None], magnitude),
    "contrast": lambda images, magnitude: blended(
        images, np.floor(grey(images).mean(axis=(1, 2)) + 0.5)[:, None, None, None], magnitude
    ),
    "posterize": lambda images, magnitude: images & (0xFF << round(6 * abs(magnitude)) & 0xFF),
    "solarize": lambda images, magnitude: np.where(images < round(255 * (1 - abs(magnitude))), images, 255 - images),
    "autocontrast": lambda images, magnitude: stretched(images),
    "equalize": lambda images, magnitude: equalized(images),
}


@pytest.mark.parametrize("magnitude", [-1.0, -0.3, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", REFERENCES)
def test_an_operation_is_what_numpy_makes_of_it(name, magnitude):
    images = (noise(4, 32) // 2 + 30).astype(np.uint8)
    found = changed(name, magnitude, images).astype(float)
    assert np.abs(found - REFERENCES[name](images, magnitude)).max() <= 1


def test_shear_turn_and_sharpness():
    images = noise(3, 16)
    sheared = changed("shear_x", 1.0, images)
    for row in range(16):
        # The pixel's centre, 0.99 of its row to the right.
        source = np.floor(np.arange(16) + 0.5 + 0.99 * (row + 0.5)).astype(int)
        expected = np.where((source < 16)[None, :, None], images[:, row, source.clip(0, 15)], 0)
        np.testing.assert_array_equal(sheared[:, row], expected)
    by_rows = changed("shear_y", -0.5, images)
    expected = changed("shear_x", -0.5, np.ascontiguousarray(images.swapaxes(1, 2))).swapaxes(1, 2)
    np.testing.assert_array_equal(by_rows, expected)
    quarter = changed("rotate", 90 / 135, images)
    np.testing.assert_array_equal(quarter, np.rot90(images, axes=(1, 2)))
    flat = np.full((1, 16, 16, 3), 90, np.uint8)
    flat[0, 8, 8] = 142
    softened, sharpened = changed("sharpness", -1.0, flat), changed("sharpness", 1.0, flat)
    # Pillow's smoothing gives the middle 5 of 13 parts: 52 levels above the rest become 20.
    assert softened[0, 8, 8, 0] == pytest.approx(110 + 0.01 * 32, abs=1)
    assert sharpened[0, 8, 8, 0] == pytest.approx(142 + 0.99 * 32, abs=1)


def test_each_image_has_its_own_operation_and_magnitude():
    images, drawn = noise(60, 16), draw_trivial_augment(60, np.random.default_rng(2))
    together = images.copy()
    apply_trivial_augment(together, drawn)
    for place, (operation, magnitude) in enumerate(zip(drawn.operations, drawn.magnitudes, strict=True)):
        alone = changed(NAMES[operation], magnitude, images[place : place + 1])[0]
        np.testing.assert_array_equal(together[place], alone)


def test_operations_strengths_and_directions_are_uniform():
    params = draw_trivial_augment(20_000, np.random.default_rng(0))
    assert len(NAMES) == 14
    assert chisquare(np.bincount(params.operations, minlength=14)).pvalue > 0.01
    strengths = np.rint(30 * np.abs(params.magnitudes))
    assert np.array_equal(np.unique(strengths), np.arange(31))
    assert chisquare(np.bincount(strengths.astype(int))).pvalue > 0.01
    assert abs(np.mean(params.magnitudes[strengths > 0] > 0) - 0.5) < 4 * 0.5 / 20_000**0.5


def test_trivial_augment_follows_the_crop():
    pixels = noise(40, 16)
    params = Augment(AugmentConfig(trivial_augment=True), 16, 16).draw(len(pixels), np.random.default_rng(0))
    expected = pixels.copy()
    apply_trivial_augment(expected, params.trivial_augment)
    np.testing.assert_array_equal(host.augment(pixels, params), expected)
    assert (expected != pixels).any(axis=(1, 2, 3)).sum() > 20
