"""Flips, turns, colour changes, blur and a user's own change, against torchvision, numpy and scipy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from random_images import noise
from scipy.ndimage import gaussian_filter
from scipy.stats import kstest, uniform

from paddle_resnet.config import AugmentConfig
from paddle_resnet.data import MemorySplit, Normalize, TrainLoader
from paddle_resnet.data.augment import host
from paddle_resnet.data.augment.batch import Augment
from paddle_resnet.data.augment.pictures import PictureParams, change_pictures, draw_pictures
from paddle_resnet.errors import UsageError

TORCHVISION = np.load(Path(__file__).parents[1] / "fixtures" / "torchvision_augment.npz")


def unchanged(count=1):
    return PictureParams(
        np.zeros(count, bool),
        np.zeros(count, int),
        np.zeros(count),
        np.ones((count, 3)),
        np.tile(np.arange(3), (count, 1)),
        np.zeros(count, bool),
        np.zeros(count),
    )


def changed(image, **params):
    """One image after the changes given."""
    images = image[np.newaxis].copy()
    change_pictures(images, unchanged()._replace(**{name: np.array([each]) for name, each in params.items()}))
    return images[0]


@pytest.mark.parametrize(
    ("result", "params"),
    [
        ("image", {}),
        ("upside_down", {"upside_down": True}),
        ("rotated", {"angles": 30.0}),
        # Brightness, contrast, saturation; saturation first.
        ("jittered", {"factors": [1.3, 0.6, 1.7], "orders": [2, 0, 1]}),
        ("grey", {"grey": True}),
    ],
)
def test_changes_equal_torchvisions(result, params):
    np.testing.assert_array_equal(changed(TORCHVISION["image"], **params), TORCHVISION[result])


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_are_numpys(turns):
    image = noise(1, 9)[0]
    np.testing.assert_array_equal(changed(image, quarter_turns=turns), np.rot90(image, turns))


@pytest.mark.parametrize("deviation", [0.7, 2.0])
def test_blur_is_gaussian(deviation):
    image = np.repeat(np.repeat(noise(1, 8)[0], 8, axis=0), 8, axis=1)
    expected = gaussian_filter(image.astype(float), (deviation, deviation, 0), mode="nearest")
    error = changed(image, blurs=deviation).astype(float) - expected
    # Pillow approximates the Gaussian by box filters.
    assert np.sqrt(np.mean(error**2)) < 0.05 * image.std()


def test_probabilities_and_ranges_are_the_configs():
    count = 8000
    config = AugmentConfig(
        vertical_flip=0.3,
        quarter_turns=0.5,
        rotate=20,
        rotate_probability=0.4,
        color_jitter=0.25,
        color_jitter_probability=0.6,
        grey=0.2,
        blur=2.0,
        blur_probability=0.1,
    )
    params = draw_pictures(count, config, np.random.default_rng(0))
    shares = {
        0.3: params.upside_down,
        0.5: params.quarter_turns > 0,
        0.4: params.angles != 0,
        0.6: (params.factors != 1).any(axis=1),
        0.2: params.grey,
        0.1: params.blurs > 0,
    }
    for probability, mask in shares.items():
        assert mask.mean() == pytest.approx(probability, abs=4 * (probability * (1 - probability) / count) ** 0.5)
    assert kstest(params.angles[params.angles != 0], uniform(-20, 40).cdf).pvalue > 0.01
    assert kstest(params.factors[params.factors != 1], uniform(0.75, 0.5).cdf).pvalue > 0.01
    assert kstest(params.blurs[params.blurs > 0], uniform(0.1, 1.9).cdf).pvalue > 0.01
    assert len(np.unique(params.orders, axis=0)) == 6


def test_without_them_nothing_more_is_drawn():
    generator = np.random.default_rng(0)
    before = generator.bit_generator.state
    assert draw_pictures(5, AugmentConfig(pad=4, flip=True), generator) is None
    assert generator.bit_generator.state == before


OWN = """
import numpy as np

def rain(images, generator):
    assert images.dtype == np.uint8 and images.ndim == 4
    drops = generator.random(images.shape[:3]) < 0.1
    images[drops] = 255
    return images

def wrong(images, generator):
    return images[:, :-1]

def fails(images, generator):
    raise ValueError("two\\nlines")

number = 3
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A module in the working folder; each test has its own name for it."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return name


def test_a_users_function_changes_the_images(own_module):
    pixels = np.zeros((30, 16, 16, 3), np.uint8)
    augment = Augment(AugmentConfig(custom=f"{own_module}:rain"), 16, 16)
    params = augment.draw(30, np.random.default_rng(0))
    found = host.augment(pixels, params)
    assert (found == 255).mean() == pytest.approx(0.1, abs=0.02)
    some = np.array([7, 3])
    np.testing.assert_array_equal(host.augment(pixels[some], params.select(some)), found[some])


def test_a_users_function_resumes_exactly(own_module):
    split = MemorySplit(noise(40, 16), np.arange(40), "train")
    normalize = Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))

    def loader():
        config = AugmentConfig(custom=f"{own_module}:rain", rotate=15, color_jitter=0.4)
        return TrainLoader(split, 8, 16, 16, normalize, config, seed=3)

    whole, resumed = loader(), loader()
    batches = [images.numpy() for _ in range(2) for images, _ in whole]
    resumed.first_batch = 3
    found = [images.numpy() for _ in range(2) for images, _ in resumed]
    np.testing.assert_array_equal(np.stack(found), np.stack(batches[3:]))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nothing", "cannot be imported"),
        ("number", "is no function"),
        ("wrong", r"returned uint8 \[1, 15, 16, 3\]"),
        ("fails", r"failed \(ValueError: two lines; .*\.py, line \d+\)"),
    ],
)
def test_a_users_wrong_function_is_named(own_module, function, message):
    with pytest.raises(UsageError, match=rf"augment.custom: {own_module}:{function} {message}"):
        augment = Augment(AugmentConfig(custom=f"{own_module}:{function}"), 16, 16)
        host.augment(noise(2, 16), augment.draw(2, np.random.default_rng(0)))


def test_preview_without_augmentation_shows_the_images():
    pixels = noise(12, 16)
    normalize = Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    loader = TrainLoader(MemorySplit(pixels, np.arange(12), "train"), 4, 16, 16, normalize, AugmentConfig(), seed=0)
    chosen = np.array([5, 2, 9])
    draws = list(loader.preview(chosen, 3))
    np.testing.assert_array_equal(np.stack(draws), np.broadcast_to(pixels[chosen], (3, 3, 16, 16, 3)))
