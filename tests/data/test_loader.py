"""Batches for training, validation and scoring."""

import threading

import numpy as np
import paddle
import pytest

from paddle_resnet.config import AugmentConfig
from paddle_resnet.data import MemorySplit, Normalize, Split, TrainLoader, ValidationLoader, uint8_batches
from paddle_resnet.errors import UsageError

NORMALIZE = Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def numbered(count, side=8):
    """Images whose pixels and label are the image's number."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, side, side, 3))
    return MemorySplit(np.ascontiguousarray(images), np.arange(count), "train")


def train_loader(split, batch_size=10, seed=0, **augment):
    return TrainLoader(split, batch_size, 8, 8, NORMALIZE, AugmentConfig(**augment), seed)


def seen(loader):
    """The labels of each batch of one epoch."""
    return [batch[1].numpy().ravel().tolist() for batch in loader]


def chain(batches):
    return [label for batch in batches for label in batch]


def test_an_epoch_is_every_image_once_in_random_order():
    loader = train_loader(numbered(40))
    first, second = seen(loader), seen(loader)
    assert len(loader) == len(first) == 4
    for epoch in (first, second):
        assert sorted(chain(epoch)) == list(range(40))
    assert first != second
    assert chain(first) != list(range(40))


def test_pictures_and_labels_stay_together_and_are_normalised():
    for images, labels in train_loader(numbered(40), flip=True):
        assert (images.shape, images.dtype) == ([10, 3, 8, 8], paddle.float32)
        assert (labels.shape, labels.dtype) == ([10, 1], paddle.int64)
        expected = (labels.numpy() / 255 - np.array(NORMALIZE.mean)) / np.array(NORMALIZE.std)
        np.testing.assert_allclose(images.numpy()[:, :, 3, 4], expected, atol=1e-6)


def test_alternating_flips_show_each_image_both_ways_in_two_epochs():
    """Half of the images are flipped in the first epoch, the others in the second, and so on."""
    pixels = np.zeros((40, 8, 8, 3), np.uint8)
    pixels[:, :, 0] = 255  # the left column
    loader = train_loader(MemorySplit(pixels, np.arange(40), "train"), flip="alternating")
    flipped = np.zeros((3, 40), bool)
    for loader.epoch in range(3):
        for images, labels in loader:
            flipped[loader.epoch, labels.numpy()[:, 0]] = images.numpy()[:, 0, 0, -1] > images.numpy()[:, 0, 0, 0]
    assert 8 < flipped[0].sum() < 32
    np.testing.assert_array_equal(flipped[1], ~flipped[0])
    np.testing.assert_array_equal(flipped[2], flipped[0])


def test_incomplete_last_batch_is_dropped_unless_alone():
    assert [len(batch) for batch in seen(train_loader(numbered(25)))] == [10, 10]
    assert [len(batch) for batch in seen(train_loader(numbered(7)))] == [7]


def test_the_seed_and_the_generators_state_reproduce_an_epoch():
    options = {"pad": 2, "flip": True}
    loader, twin = (train_loader(numbered(40), seed=3, **options) for _ in range(2))
    first = [batch[0].numpy() for batch in loader]
    np.testing.assert_array_equal(first, [batch[0].numpy() for batch in twin])
    state = loader.generator.bit_generator.state
    second = [batch[0].numpy() for batch in loader]
    fresh = train_loader(numbered(40), seed=99, **options)
    fresh.generator.bit_generator.state = state
    np.testing.assert_array_equal(second, [batch[0].numpy() for batch in fresh])
    assert seen(train_loader(numbered(40), seed=4)) != seen(train_loader(numbered(40), seed=5))


@pytest.mark.parametrize("seen_before", [0, 1, 3, 4])
def test_interrupted_epoch_continues(seen_before):
    """From the state after this many of its 4 batches, with the same augmentation; the next epoch is the same too."""
    options = {"pad": 2, "flip": True}
    loader = train_loader(numbered(40), **options)
    batches = iter(loader)
    for _ in range(seen_before):
        next(batches)
    state = loader.state_dict()
    fresh = train_loader(numbered(40), seed=99, **options)
    fresh.set_state_dict(state)
    fresh.first_batch = seen_before
    rest = [batch[0].numpy() for batch in batches]
    assert len(rest) == 4 - seen_before
    for expected in (rest, [batch[0].numpy() for batch in loader]):
        found = [batch[0].numpy() for batch in fresh]
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_latest_batch_is_named():
    loader = train_loader(numbered(40))
    for _, labels in loader:
        assert loader.names() == [f"train {label}" for label in labels.numpy().ravel()]


def test_validation_is_every_image_in_order():
    loader = ValidationLoader(numbered(25), 10, 8, 8, NORMALIZE)
    batches = list(loader)
    assert len(loader) == len(batches) == 3
    assert [batch[1].shape for batch in batches] == [[10, 1], [10, 1], [5, 1]]
    assert np.concatenate([batch[1].numpy() for batch in batches]).ravel().tolist() == list(range(25))


def test_scoring_sees_the_pixels_that_validation_normalises():
    images = np.random.default_rng(0).integers(0, 256, (7, 20, 20, 3), dtype=np.uint8)
    split = MemorySplit(images, np.arange(7), "test")
    validation = ValidationLoader(split, 4, 24, 30, NORMALIZE)
    for (normalised, column), (pixels, labels) in zip(validation, uint8_batches(split, 4, 30, 24), strict=True):
        assert (pixels.dtype, pixels.shape[1:]) == (np.uint8, (24, 24, 3))
        np.testing.assert_array_equal(labels, column.numpy().ravel())
        np.testing.assert_allclose(NORMALIZE(paddle.to_tensor(pixels)).numpy(), normalised.numpy(), atol=1e-6)


class _BreaksAt(Split):
    """Cannot read the image number 12."""

    labels = np.arange(30)

    def batch(self, indices):
        if 12 in indices:
            raise UsageError("0012.jpg: cannot be read")
        return np.zeros((len(indices), 8, 8, 3), np.uint8)

    def names(self, indices):
        return [str(index) for index in indices]


def test_an_error_of_the_reading_thread_reaches_the_reader():
    batches = iter(ValidationLoader(_BreaksAt(), 10, 8, 8, NORMALIZE))
    next(batches)
    with pytest.raises(UsageError, match=r"0012\.jpg"):
        list(batches)


@pytest.mark.parametrize("end", ["close", "abandon", "error", "exhaust"])
def test_the_reading_thread_ends_with_the_iterator(end):
    split = _BreaksAt() if end == "error" else numbered(50)
    batches = iter(ValidationLoader(split, 10, 8, 8, NORMALIZE))
    next(batches)
    assert any(thread.name.startswith("prefetch") for thread in threading.enumerate())
    if end == "close":
        batches.close()
    elif end == "abandon":
        del batches
    elif end == "error":
        with pytest.raises(UsageError):
            list(batches)
    else:
        list(batches)
    assert not any(thread.name.startswith("prefetch") for thread in threading.enumerate())


def test_model_fit_takes_the_loaders():
    network = paddle.nn.Sequential(paddle.nn.Flatten(), paddle.nn.Linear(3 * 8 * 8, 40))
    model = paddle.Model(network)
    optimizer = paddle.optimizer.SGD(0.1, parameters=network.parameters())
    model.prepare(optimizer, paddle.nn.CrossEntropyLoss(), paddle.metric.Accuracy())
    before = network[1].weight.numpy().copy()
    model.fit(train_loader(numbered(40)), ValidationLoader(numbered(40), 16, 8, 8, NORMALIZE), epochs=1, verbose=0)
    assert (network[1].weight.numpy() != before).any()
