"""Two tasks out of one data set, and networks that learn the second from a few images a class, from several starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat

import numpy as np
import paddle
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from paddle_resnet import runtime
from paddle_resnet.config import Config
from paddle_resnet.data import MemorySplit, Normalize, Split, Splits, TrainLoader, ValidationLoader
from paddle_resnet.lessons.common.training_loop import measure_on, train_on, use_fast_layers
from paddle_resnet.models import ImageClassifier, create_model, load_weights
from paddle_resnet.training.optim.optimizer import make_optimizer

Weights = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Task:
    """Some of the classes of a data set, as a data set of its own."""

    classes: tuple[str, ...]
    train: MemorySplit
    test: MemorySplit


def task_of(splits: Splits, labels: Sequence[int]) -> Task:
    """Take the images of the classes `labels`, in that order; what was held out to validate trains too."""
    names = tuple(splits.classes[label] for label in labels)
    parts = [images_of([splits.train, splits.validation], labels), images_of([splits.test], labels)]
    return Task(names, *parts)


def images_of(sources: Sequence[Split], labels: Sequence[int]) -> MemorySplit:
    """Gather the images of `labels`, which become 0, 1, ..."""
    chosen = [(split, np.flatnonzero(np.isin(split.labels, labels))) for split in sources]
    images = np.concatenate([split.batch(positions) for split, positions in chosen])
    old = np.concatenate([split.labels[positions] for split, positions in chosen])
    return MemorySplit(images, np.array([list(labels).index(label) for label in old]), "chosen")


def few_of_each(split: MemorySplit, number: int, seed: int) -> MemorySplit:
    """Take `number` random images of each class; of one seed, a larger number holds all of a smaller one's."""
    generator = np.random.default_rng(seed)
    classes = np.unique(split.labels)
    shuffled = [generator.permutation(np.flatnonzero(split.labels == label)) for label in classes]
    positions = np.concatenate([members[:number] for members in shuffled])
    return MemorySplit(split.batch(positions), split.labels[positions], "chosen")


class Learner:
    """Trains networks for tasks of equally many classes, all by one config's network, augmentation and optimizer."""

    def __init__(self, config: Config, splits: Splits) -> None:
        """Take the network and the recipe of `config`, and the pixels' mean and deviation of `splits`."""
        self.config = config
        self._resize = splits.resize
        self._normalize = Normalize(splits.mean, splits.std)

    def pretrain(self, task: Task, seed: int) -> tuple[Weights, float]:
        """Train on all of the task's images for the config's epochs; return the weights and the test top-1."""
        network = self._start(len(task.classes), None, seed)
        loader = self._loader(task.train, seed)
        self._train(network, loader, self.config.train.epochs * len(loader))
        weights = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
        return weights, self._top1(network, task)

    def learn(self, task: Task, images: MemorySplit, steps: int, seed: int, weights: Weights | None) -> float:
        """Train `steps` steps on `images`; return the top-1 on the task's test images.

        Args:
            task: the classes to learn.
            images: those to learn from.
            steps: batches, of all images where they are fewer than a batch.
            seed: of new weights, of the order and of the augmentation.
            weights: where the network starts; its last layer is new. None: everything is new.
        """
        network = self._start(len(task.classes), weights, seed)
        self._train(network, self._loader(images, seed), steps)
        return self._top1(network, task)

    def features(self, images: MemorySplit, weights: Weights) -> np.ndarray:
        """What a network of these weights gives its last layer for each image, float32 ``[N, features]``."""
        network = create_model(self.config.model.name, weights["fc.bias"].size)
        load_weights(network, weights)
        network.remove_classifier()
        network.eval()
        with paddle.no_grad():
            batches = [network.forward_head(network(pixels)).numpy() for pixels, _ in self._as_they_are(images)]
        return np.concatenate(batches)

    def _start(self, classes: int, weights: Weights | None, seed: int) -> ImageClassifier:
        runtime.seed_everything(seed)
        network = create_model(self.config.model.name, classes)
        if weights is not None:
            load_weights(network, weights)
            network.reset_classifier(classes)
        use_fast_layers(network, self.config.train)
        return network

    def _loader(self, images: MemorySplit, seed: int) -> TrainLoader:
        return TrainLoader(
            images,
            batch_size=self.config.train.batch_size,
            image_size=self.config.data.image_size,
            resize=self._resize,
            normalize=self._normalize,
            augment=self.config.augment,
            seed=seed,
        )

    def _train(self, network: ImageClassifier, loader: TrainLoader, steps: int) -> None:
        optimizer = make_optimizer(network, self.config.train.model_copy(update={"epochs": 1}), steps)
        train_on(network, optimizer, _first(loader, steps))

    def _top1(self, network: ImageClassifier, task: Task) -> float:
        _, top1 = measure_on(network, self._as_they_are(task.test))
        return top1

    def _as_they_are(self, images: MemorySplit) -> ValidationLoader:
        return ValidationLoader(images, 256, self.config.data.image_size, self._resize, self._normalize)


def _first(loader: TrainLoader, steps: int) -> Iterator[list[paddle.Tensor]]:
    """So many batches, epoch after epoch."""
    return islice(chain.from_iterable(repeat(loader)), steps)


def linear_top1(inputs: np.ndarray, labels: np.ndarray, test_inputs: np.ndarray, test_labels: np.ndarray) -> float:
    """Fit a logistic regression on standardised inputs ``[N, D]`` to its end; return its top-1 on the test inputs."""
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)).fit(inputs, labels)
    return float(linear.score(test_inputs, test_labels))


def pixels_of(split: MemorySplit) -> np.ndarray:
    """The stored pixels of each image as one row, float32 ``[N, H * W * 3]`` from 0 to 1."""
    pixels = split.batch(np.arange(len(split)))
    return pixels.reshape(len(pixels), -1).astype(np.float32) / 255
