"""A warning for each property of the data that makes a good result unlikely, and none for ordinary data."""

from __future__ import annotations

import numpy as np
import pytest

from paddle_resnet.data import MemorySplit, Normalize, Splits
from paddle_resnet.data.checks import warn_of_data

LABELS = np.repeat(np.arange(3), 40)
MEAN, STD = (0.5, 0.5, 0.5), (0.29, 0.29, 0.29)
"""Of uniform noise: a deviation of 1 / sqrt(12)."""


def noise(count=120):
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def warnings_of(caplog, *, images=None, labels=LABELS, validation=60, held=None, mean=MEAN, std=STD, step=32):
    images = noise(len(labels)) if images is None else images
    held = np.arange(validation) % 3 if held is None else held
    held_out = MemorySplit(noise(len(held)), held, "validation")
    splits = Splits(MemorySplit(images, labels, "train"), held_out, held_out, ("a", "b", "c"), MEAN, STD, 8)
    caplog.clear()
    warn_of_data(splits, step, Normalize(mean, std))
    return [each.getMessage() for each in caplog.records]


def test_classes_that_differ_by_capitals_are_named(caplog):
    held_out = MemorySplit(noise(60), np.arange(60) % 3, "validation")
    splits = Splits(MemorySplit(noise(), LABELS, "train"), held_out, held_out, ("Cat", "cat", "dog"), MEAN, STD, 8)
    warn_of_data(splits, 32, Normalize(MEAN, STD))
    assert "the classes Cat, cat differ by capital letters only" in caplog.text


def test_ordinary_data_give_no_warning(caplog):
    assert warnings_of(caplog) == []


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"step": 121}, "120 training images, fewer than the 121 of a step"),
        ({"labels": np.array([0] * 60 + [1] * 59 + [2])}, "a single training image of c"),
        ({"labels": LABELS // 2}, "no training image of c"),
        ({"held": LABELS // 2 * 2}, "no validation image of b"),
        ({"validation": 49}, "49 validation images, fewer than 50"),
        ({"images": np.repeat(noise(1), 120, axis=0)}, "of 64 training images that were looked at, all are equal"),
        (
            {"images": np.repeat(np.repeat(noise()[:, :1, :1], 8, axis=1), 8, axis=2)},
            "of 64 training images that were looked at, each has a single colour",
        ),
        ({"mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4)}, "mean [123.7, 116.3, 103.5] and std"),
        ({"std": (0.05, 0.29, 0.29)}, "std [0.05, 0.29, 0.29] are far from the images'"),
        ({"images": noise() // 16}, "and std [0.29, 0.29, 0.29] are far from the images' [0.0"),
    ],
)
def test_each_fault_is_one_warning(caplog, change, warning):
    lines = warnings_of(caplog, **change)
    assert len(lines) == 1 and warning in lines[0]
