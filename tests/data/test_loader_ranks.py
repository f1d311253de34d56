"""The batches of several ranks: together those of a single process."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from paddle_resnet.config import AugmentConfig
from paddle_resnet.data import MemorySplit, Normalize, TrainLoader, ValidationLoader
from paddle_resnet.data.loader import rank_batches

NORMALIZE = Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
AUGMENTS = {
    "plain": {},
    "all but mixing": {"pad": 2, "flip": True, "cutout": 3, "erase": 0.7, "trivial_augment": True},
    "boxes, mixup": {"scale": (0.3, 1.0), "mixup": 0.5},
    "cutmix, not always": {"pad": 1, "cutmix": 1.0, "mix_probability": 0.6, "erase": 0.4},
}


def pictures(count):
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return MemorySplit(images, np.arange(count), "train")


def epoch(split, batch_size, positions=None, **augment):
    loader = TrainLoader(split, batch_size, 8, 8, NORMALIZE, AugmentConfig(**augment), seed=3, rank_positions=positions)
    return [[np.array(each) for each in batch] for batch in loader]


@pytest.mark.parametrize("augment", AUGMENTS)
def test_ranks_together_yield_the_whole_batch(augment):
    split, per_rank = pictures(50), [np.array([0, 1, 4, 9]), np.array([2, 3, 5]), np.array([8, 7, 6])]
    whole = epoch(split, 10, **AUGMENTS[augment])
    parts = [epoch(split, 10, positions, **AUGMENTS[augment]) for positions in per_rank]
    assert [len(part) for part in parts] == [5, 5, 5]
    for batch, *own in zip(whole, *parts, strict=True):
        for positions, part in zip(per_rank, own, strict=True):
            for expected, got in zip(batch, part, strict=True):
                np.testing.assert_array_equal(got, expected[positions])


def test_ranks_together_yield_the_whole_batch_on_a_device(monkeypatch):
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    split, positions = pictures(20), np.array([1, 5, 6])
    options = {"pad": 1, "flip": True, "cutout": 3, "erase": 0.5, "mixup": 0.5}
    for batch, part in zip(epoch(split, 10, **options), epoch(split, 10, positions, **options), strict=True):
        for expected, got in zip(batch, part, strict=True):
            np.testing.assert_allclose(got, expected[positions], atol=1e-6)


@pytest.mark.parametrize(("images", "batch_size", "world_size"), [(449, 55, 2), (10, 4, 3), (3, 1, 2), (7, 100, 7)])
def test_each_validation_image_is_on_one_rank(images, batch_size, world_size):
    parts = [rank_batches(images, batch_size, rank, world_size) for rank in range(world_size)]
    assert len({len(part) for part in parts}) == 1
    assert all(len(batch) > 0 for part in parts for batch in part)
    assert sorted(np.concatenate([batch for part in parts for batch in part])) == list(range(images))


def test_validation_batches_are_at_most_batch_size():
    assert {len(batch) for rank in range(2) for batch in rank_batches(449, 55, rank, 2)} == {44, 45}


def test_ranks_together_validate_every_image():
    split = pictures(9)
    labels = [
        np.concatenate([batch[1].numpy().ravel() for batch in ValidationLoader(split, 2, 8, 8, NORMALIZE, each, 2)])
        for each in range(2)
    ]
    assert sorted(np.concatenate(labels)) == list(range(9))
