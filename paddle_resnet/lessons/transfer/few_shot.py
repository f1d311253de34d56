"""Two tasks from one data set, and networks that learn the second from a few images per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from paddle_resnet import runtime
from paddle_resnet.data import MemorySplit, Split, Splits, TrainLoader
from paddle_resnet.evaluation.run_plots import features_of
from paddle_resnet.lessons.common.runs import flatten_pixels
from paddle_resnet.lessons.common.training_loop import LessonData, apply_cpu_backend, take_batches, train_batches
from paddle_resnet.models import ImageClassifier, create_model, load_weights
from paddle_resnet.training.optim.optimizer import make_optimizer

Weights = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Task:
    """A data set of some of the classes of another one."""

    classes: tuple[str, ...]
    train: MemorySplit
    test: MemorySplit


def make_task(splits: Splits, labels: Sequence[int]) -> Task:
    """Make a task of the classes `labels`, in that order; the validation images become training images."""
    names = tuple(splits.classes[label] for label in labels)
    parts = [select_classes([splits.train, splits.validation], labels), select_classes([splits.test], labels)]
    return Task(names, *parts)


def select_classes(sources: Sequence[Split], labels: Sequence[int]) -> MemorySplit:
    """Gather the images of the classes `labels`, and number the classes 0, 1, ..."""
    chosen = [(split, np.flatnonzero(np.isin(split.labels, labels))) for split in sources]
    images = np.concatenate([split.batch(positions) for split, positions in chosen])
    old = np.concatenate([split.labels[positions] for split, positions in chosen])
    return MemorySplit(images, np.array([list(labels).index(label) for label in old]), "chosen")


def sample_per_class(split: MemorySplit, number: int, seed: int) -> MemorySplit:
    """Sample `number` images of each class; with one seed, a larger sample contains the smaller ones."""
    generator = np.random.default_rng(seed)
    classes = np.unique(split.labels)
    shuffled = [generator.permutation(np.flatnonzero(split.labels == label)) for label in classes]
    positions = np.concatenate([members[:number] for members in shuffled])
    return MemorySplit(split.batch(positions), split.labels[positions], "chosen")


class FewShotTrainer:
    """Trains networks with the model, augmentation and optimizer of one config."""

    def __init__(self, data: LessonData) -> None:
        self._data, self.config = data, data.config

    def pretrain(self, task: Task, seed: int) -> tuple[Weights, float]:
        """Train on all images of the task for the config's epochs; return the weights and the test top-1."""
        network = self._start(len(task.classes), None, seed)
        loader = self._loader(task.train, seed)
        self._train(network, loader, self.config.train.epochs * len(loader))
        weights = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
        return weights, self._data.measure(network, task.test, task.classes).top1

    def learn(self, task: Task, images: MemorySplit, steps: int, seed: int, weights: Weights | None) -> float:
        """Train `steps` steps on `images`; return the top-1 on the task's test images.

        The network starts from `weights` with a new last layer, or from new weights (None).
        """
        network = self._start(len(task.classes), weights, seed)
        self._train(network, self._loader(images, seed), steps)
        return self._data.measure(network, task.test, task.classes).top1

    def features(self, images: MemorySplit, weights: Weights) -> np.ndarray:
        """Return the input of the last layer for each image, float32 ``[N, features]``."""
        network = create_model(self.config.model.name, weights["fc.bias"].size)
        load_weights(network, weights)
        network.eval()
        return features_of(network, self._data.normalize, (pixels for pixels, _ in self._data.batches(images)))

    def _start(self, classes: int, weights: Weights | None, seed: int) -> ImageClassifier:
        runtime.seed_everything(seed)
        network = create_model(self.config.model.name, classes)
        if weights is not None:
            load_weights(network, weights)
            network.reset_classifier(classes)
        apply_cpu_backend(network, self.config.train)
        return network

    def _loader(self, images: MemorySplit, seed: int) -> TrainLoader:
        return self._data.loader(self.config.train.batch_size, seed, images, self.config.augment)

    def _train(self, network: ImageClassifier, loader: TrainLoader, steps: int) -> None:
        optimizer = make_optimizer(network, self.config.train.model_copy(update={"epochs": 1}), steps)
        train_batches(network, optimizer, take_batches(loader, steps))


def linear_probe_top1(
    inputs: np.ndarray, labels: np.ndarray, test_inputs: np.ndarray, test_labels: np.ndarray
) -> float:
    """Fit a logistic regression on standardised inputs ``[N, D]``; return its top-1 on the test inputs."""
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)).fit(inputs, labels)
    return float(linear.score(test_inputs, test_labels))


def pixel_features(split: MemorySplit) -> np.ndarray:
    """Return the stored pixels of each image as one row."""
    return flatten_pixels(split.batch(np.arange(len(split))))
