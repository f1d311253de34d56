"""Splits: holding out, and the splits of each source."""

import importlib
import sys

import numpy as np
import pytest

from paddle_resnet.config import DataConfig
from paddle_resnet.data import MemorySplit, open_splits
from paddle_resnet.data.datasets.open_splits import load_digits
from paddle_resnet.data.splits import hold_out
from paddle_resnet.errors import UsageError

LABELS = np.random.default_rng(0).integers(0, 7, 1000)


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.333])
def test_hold_out_is_exact_and_disjoint(fraction):
    kept, held = hold_out(LABELS, fraction, seed=0)
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, held])), np.arange(1000))
    assert len(held) == round(1000 * fraction)


def test_every_class_is_held_out_in_proportion():
    _, held = hold_out(LABELS, 0.1, seed=0)
    for label in range(7):
        assert abs((LABELS[held] == label).sum() - 0.1 * (label == LABELS).sum()) < 1


def test_the_seed_alone_decides():
    _, first = hold_out(LABELS, 0.1, seed=3)
    np.random.seed(1)
    _, again = hold_out(LABELS, 0.1, seed=3)
    _, other = hold_out(LABELS, 0.1, seed=4)
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)


def test_the_division_is_the_same_under_every_numpy():
    # Written down once: a saved config must divide alike on the next machine.
    assert hold_out(np.arange(40) % 2, 0.2, seed=0)[1].tolist() == [4, 8, 9, 12, 15, 23, 33, 38]


def test_a_class_always_keeps_an_image():
    labels = np.array([0, 0, 0, 0, 1, 2, 2])
    kept, held = hold_out(labels, 0.9, seed=0)
    assert set(labels[kept]) == {0, 1, 2}
    assert 1 not in labels[held]


def test_too_few_images_to_divide():
    with pytest.raises(UsageError, match="3 images in 3 classes are too few"):
        hold_out(np.arange(3), 0.1, seed=0)


def test_memory_split_selects_its_positions():
    images = np.arange(5 * 2 * 2 * 3, dtype=np.uint8).reshape(5, 2, 2, 3)
    split = MemorySplit(images, np.array([4, 3, 2, 1, 0]), "train", np.array([1, 3, 4]))
    assert len(split) == 3
    assert split.labels.tolist() == [3, 1, 0]
    assert split.labels.dtype == np.int64
    np.testing.assert_array_equal(split.batch([2, 0]), images[[4, 1]])
    assert split.names([2, 0]) == ["train 4", "train 1"]


@pytest.fixture(scope="module")
def digits():
    return open_splits(DataConfig(source="digits"))


def test_digits_are_scikit_learns(digits):
    from sklearn.datasets import load_digits

    parts = (digits.train, digits.validation, digits.test)
    assert [len(part) for part in parts] == [1294, 144, 359]
    assert digits.classes == tuple("0123456789")
    original = load_digits()
    positions = []
    for part in parts:
        everything = np.arange(len(part))
        here = [int(name.split()[-1]) for name in part.names(everything)]
        positions += here
        pictures = part.batch(everything)
        assert (pictures.dtype, pictures.shape[1:]) == (np.uint8, (8, 8, 3))
        np.testing.assert_allclose(pictures[..., 1] / 255 * 16, original.images[here], atol=0.04)
        np.testing.assert_array_equal(part.labels, original.target[here])
    assert sorted(positions) == list(range(1797))


def test_a_folder_for_the_embedded_digits_is_refused():
    """Whoever forgets data.source would train on digits in the place of the pictures."""
    with pytest.raises(UsageError, match=r"data.root photos: source digits is embedded .*; leave it out, or set"):
        open_splits(DataConfig(source="digits", root="photos"))


def test_missing_digits_are_a_usage_error(monkeypatch, tmp_path):
    (tmp_path / "sklearn").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "sklearn", raising=False)
    for _ in range(2):
        with pytest.raises(UsageError, match=r"data.source digits: no .*/digits.csv.gz is installed: pip install"):
            load_digits()
        (tmp_path / "sklearn/__init__.py").touch()
        importlib.invalidate_caches()


def test_digits_mean_and_std_are_the_images_own(digits):
    pixels = np.concatenate(
        [part.batch(np.arange(len(part))) for part in (digits.train, digits.validation, digits.test)]
    )
    assert digits.mean == pytest.approx((pixels / 255).mean(axis=(0, 1, 2)), abs=1e-3)
    assert digits.std == pytest.approx((pixels / 255).std(axis=(0, 1, 2)), abs=1e-3)


def test_the_config_overrides_mean_std_resize_and_shares():
    config = DataConfig(mean=(0.1, 0.2, 0.3), std=(1, 2, 3), image_size=16, resize=24, test_fraction=0.5, split_seed=1)
    splits = open_splits(config)
    assert (splits.mean, splits.std, splits.resize) == ((0.1, 0.2, 0.3), (1, 2, 3), 24)
    assert len(splits.test) == round(1797 / 2)
