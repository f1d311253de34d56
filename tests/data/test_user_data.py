"""Batches of a user's own array or dataset, against numpy."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from PIL import Image

from paddle_resnet.data import Loader
from paddle_resnet.errors import UsageError

GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.integers(0, 256, (10, 8, 8, 3), np.uint8)
LABELS = np.arange(10) % 3


class Pictures(paddle.io.Dataset):
    """The arrays as a dataset, with items of the kinds that those of `paddle.vision.datasets` are."""

    def __init__(self, pictures, labels=LABELS):
        super().__init__()
        self.pictures, self.labels = pictures, labels

    def __getitem__(self, index):
        return self.pictures[index], np.array(self.labels[index])

    def __len__(self):
        return len(self.pictures)


class Stream(paddle.io.IterableDataset):
    def __iter__(self):
        return iter(Pictures(PIXELS))


def whole(loader):
    """Return all images and labels of an epoch."""
    batches = [[tensor.numpy() for tensor in batch] for batch in loader]
    return tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))


def test_images_in_order_are_normalised_pixels():
    images, labels = whole(Loader(PIXELS, LABELS[:, np.newaxis], 4, mean=(0.1, 0.2, 0.3), std=0.5))
    expected = (PIXELS / 255 - [0.1, 0.2, 0.3]) / 0.5
    np.testing.assert_allclose(images, expected.transpose(0, 3, 1, 2), atol=1e-6)
    np.testing.assert_array_equal(labels[:, 0], LABELS)


@pytest.mark.parametrize("pictures", [PIXELS, [Image.fromarray(each) for each in PIXELS]], ids=["arrays", "PIL"])
def test_a_dataset_gives_the_batches_of_its_array(pictures):
    for found, expected in zip(whole(Loader(Pictures(pictures))), whole(Loader(PIXELS, LABELS)), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_grey_images_have_three_equal_channels():
    images, _ = whole(Loader(PIXELS[..., 0], LABELS, mean=0.0, std=1.0))
    np.testing.assert_allclose(images, np.repeat(PIXELS[:, np.newaxis, ..., 0] / 255, 3, axis=1), atol=1e-6)


def test_a_shuffled_epoch_has_each_image_once_in_new_order():
    loader = Loader(PIXELS, LABELS, 5, shuffle=True, mean=0.0, std=1.0)
    first, second = (whole(loader)[0] for _ in range(2))
    assert (first != second).any()
    for epoch in (first, second):
        assert sorted(epoch.sum((1, 2, 3))) == pytest.approx(sorted(PIXELS.sum((1, 2, 3)) / 255), rel=1e-5)


def test_pictures_of_other_sizes_are_resized_and_cropped():
    sizes = [(8, 12), (16, 8), (20, 20)]
    pictures = [Image.new("RGB", size, (255, 0, 0)) for size in sizes]
    images, _ = whole(Loader(Pictures(pictures, [0, 1, 2]), image_size=8, mean=0.0, std=1.0))
    np.testing.assert_array_equal(images, np.broadcast_to(np.eye(3)[0][:, None, None], (3, 3, 8, 8)))


def test_paddle_model_trains_evaluates_and_predicts_with_it():
    network = paddle.nn.Sequential(paddle.nn.Flatten(), paddle.nn.Linear(8 * 8 * 3, 3))
    model = paddle.Model(network)
    optimizer = paddle.optimizer.Adam(0.05, parameters=network.parameters())
    model.prepare(optimizer, paddle.nn.CrossEntropyLoss(), paddle.metric.Accuracy())
    model.fit(Loader(PIXELS, LABELS, 5, shuffle=True), epochs=30, verbose=0)
    assert model.evaluate(Loader(PIXELS, LABELS, 4), verbose=0)["acc"] == 1.0  # 10 images, 579 parameters
    (scores,) = model.predict(Loader(PIXELS, LABELS, 4), stack_outputs=True, verbose=0)
    np.testing.assert_array_equal(scores.argmax(1), LABELS)


@pytest.mark.parametrize(
    ("images", "labels", "options", "words"),
    [
        (PIXELS / 255, LABELS, {}, "uint8 pixels 0..255, got float64; leave out transforms such as ToTensor"),
        (PIXELS.transpose(0, 3, 1, 2), LABELS, {}, r"expected \[10, H, W, 3\] .*got \[10, 3, 8, 8\]"),
        (PIXELS, LABELS[:9], {}, r"expected \[9, H, W, 3\].*there are 9 labels, got \[10, 8, 8, 3\]"),
        (PIXELS, LABELS / 2, {}, "labels: expected integers"),
        (PIXELS, None, {}, "an array with labels, or a dataset"),
        (PIXELS, LABELS - 1, {}, "of at least 0, got -1"),
        (PIXELS, np.eye(3)[LABELS], {}, r"integers \[N\] or \[N, 1\], got float64 \[10, 3\]"),
        (Pictures(PIXELS), LABELS, {}, "a dataset has its own"),
        (Pictures(PIXELS, np.eye(3)[LABELS]), None, {}, r"item 0: expected \(image, integer\)"),
        (Pictures(PIXELS, LABELS + 0.5), None, {}, r"item 0: expected \(image, integer\)"),
        (Pictures(PIXELS, ["cat"] * 10), None, {}, r"item 0: expected \(image, integer\)"),
        ([(PIXELS[0], 1), (PIXELS[1], 2)], 64, {}, r"labels: expected integers \[N\] or \[N, 1\], got int64 \[\]"),
        (Stream(), None, {}, "an array with labels, or a dataset"),
        (Pictures([]), None, {}, "no items"),
        (Pictures(PIXELS / 255), None, {}, "leave out transforms"),
        (PIXELS, LABELS, {"augment": {"flip": True}}, "shuffle=True"),
        (PIXELS, LABELS, {"augment": {"flop": True}, "shuffle": True}, 'unknown key "flop".*flip'),
        (PIXELS, LABELS, {"augment": "flip", "shuffle": True}, "augment: expected keys with values.*got 'flip'"),
        (PIXELS, LABELS, {"seed": -1, "shuffle": True}, "seed: expected a whole number of at least 0, got -1"),
        (PIXELS, LABELS, {"batch_size": 0}, "at least 1, got 0"),
        (PIXELS, LABELS, {"batch_size": 4.0}, "a whole number of at least 1, got 4.0"),
        (PIXELS, LABELS, {"image_size": 0}, "image_size: expected a whole number of at least 1, got 0"),
        (PIXELS, LABELS, {"std": (1, 2)}, "std: expected a number, or three, above 0"),
        (PIXELS, LABELS, {"std": [0.2, [0.2]]}, "std: expected a number, or three, above 0"),
        (PIXELS, LABELS, {"std": 0}, "std: expected a number, or three, above 0 .*got 0"),
        (PIXELS, LABELS, {"mean": (123.675, 116.28, 103.53)}, r"mean: .*as of pixels in 0\.\.1, got \(123\.675"),
        (PIXELS, LABELS, {"mean": float("nan")}, r"mean: .*got nan"),
        (PIXELS, LABELS, {"mean": "imagenet"}, r"mean: .*got imagenet"),
    ],
)
def test_what_it_cannot_read_is_told(images, labels, options, words):
    with pytest.raises(UsageError, match=words):
        Loader(images, labels, **options)


def test_a_batch_of_mixed_images_has_both_labels_and_their_weights():
    pixels = np.broadcast_to(LABELS[:, None, None, None].astype(np.uint8) * 100, (10, 8, 8, 3))
    loader = Loader(pixels, LABELS, 5, shuffle=True, augment={"mixup": 0.2}, mean=0.0, std=1.0)
    for images, labels, partners, lam in ([tensor.numpy() for tensor in batch] for batch in loader):
        expected = (lam * labels + (1 - lam) * partners) * 100 / 255
        np.testing.assert_allclose(images.mean((1, 2, 3))[:, np.newaxis], expected, atol=1e-5)
