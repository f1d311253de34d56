"""Balanced epochs: how often each class and each image is drawn."""

import csv

import numpy as np
import pytest
from tiny_run import make_pictures

from paddle_resnet.config import AugmentConfig, Config
from paddle_resnet.data import MemorySplit, Normalize, TrainLoader, loader
from paddle_resnet.data.loader import balanced_order


@pytest.mark.parametrize("counts", [(90, 10), (7, 7, 7), (50, 3, 1), (1, 1), (11, 0, 4)])
def test_classes_and_their_images_come_equally_often(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    order = balanced_order(labels, np.random.default_rng(0))
    present = [label for label, count in enumerate(counts) if count]
    assert order.shape == labels.shape
    for label in present:
        drawn = int((labels[order] == label).sum())
        assert drawn in (len(labels) // len(present), -(-len(labels) // len(present)))
        times = np.bincount(order, minlength=len(labels))[labels == label]
        assert set(times.tolist()) <= {drawn // counts[label], -(-drawn // counts[label])}


def test_rare_images_come_five_times_and_frequent_ones_change():
    labels = np.repeat([0, 1], [90, 10])
    generator = np.random.default_rng(0)
    epochs = [np.bincount(balanced_order(labels, generator), minlength=100) for _ in range(20)]
    assert all((times[90:] == 5).all() for times in epochs)
    assert all(times[:90].sum() == 50 and times[:90].max() == 1 for times in epochs)
    assert (sum(epochs)[:90] > 0).all()


def test_remainder_goes_to_every_class_in_turn():
    labels = np.repeat([0, 1, 2], [10, 3, 1])  # 14 images: 5, 5 and 4
    generator = np.random.default_rng(0)
    drawn = np.array([np.bincount(labels[balanced_order(labels, generator)]) for _ in range(60)])
    assert np.sort(drawn, axis=1).tolist() == [[4, 5, 5]] * 60
    assert (drawn.min(axis=0) == 4).all()


def test_the_loader_draws_balanced_epochs_that_its_generator_repeats():
    images = np.zeros((40, 8, 8, 3), np.uint8)
    split = MemorySplit(images, np.repeat([0, 1], [30, 10]), "made")
    normalize = Normalize((0.5,) * 3, (0.5,) * 3)

    def make(balanced):
        return TrainLoader(split, 8, 8, 8, normalize, AugmentConfig(), seed=3, balanced=balanced)

    def labels(batches):
        return np.concatenate([batch.numpy()[:, 0] for _, batch in batches]).tolist()

    chosen = make(True)
    state = chosen.generator.bit_generator.state
    first = labels(chosen)
    assert sum(first) == 20
    assert sum(labels(make(False))) == 10
    chosen.generator.bit_generator.state = state
    assert labels(chosen) == first


def test_run_balances_epochs_and_lists_unreadable_files(tmp_path, monkeypatch):
    from paddle_resnet.training import train

    root = make_pictures(tmp_path / "pictures", {"train": 8, "test": 2})
    (root / "train" / "red" / "bad.jpg").write_text("no picture")
    for k in range(5):
        (root / "train" / "blue" / f"{k}.png").unlink()
    drawn = []

    def spy(labels, generator):
        order = balanced_order(labels, generator)
        drawn.append(np.bincount(labels[order]))
        return order

    monkeypatch.setattr(loader, "balanced_order", spy)
    data = {"source": "image_folder", "root": str(root), "image_size": 16, "sampler": "balanced"}
    values = {"output": str(tmp_path / "runs"), "device": "cpu", "data": data, "model": {"name": "resnet8"}}
    run = train(Config.from_values({**values, "train": {"epochs": 1, "batch_size": 4}}))
    assert all(np.ptp(counts) <= 1 for counts in drawn)
    assert drawn
    rows = csv.reader((run.path / "pictures.csv").read_text().splitlines())
    assert ["train/red/bad.jpg", "unreadable"] in [row[:2] for row in rows]
    assert "1 of 26 files cannot be read" in run.log_path.read_text()
