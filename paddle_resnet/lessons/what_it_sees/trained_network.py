"""A trained network with its test images, and the measurements on its feature maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import paddle
from paddle import nn
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.neighbors import KNeighborsClassifier

from paddle_resnet.evaluation import NetworkScorer
from paddle_resnet.evaluation.grad_cam import enlarge, grad_cam
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.models import ImageClassifier
from paddle_resnet.plots.style import percent, shortened
from paddle_resnet.results import Evaluation
from paddle_resnet.training.run_folder import Run

LONGEST_NAME = 9
BATCH = 256
NEIGHBOURS = 5
MAX_POINTS = 2000  # t-SNE's time grows with their number

HeatRow = tuple[np.ndarray, Sequence[str]]
HeatRows = Mapping[str, HeatRow]
"""Maps ``[n, S, S]`` and n labels, by the row's name."""


@dataclass(frozen=True, eq=False)
class LessonContext:
    """What the sections of the lesson share: page, run, network of the best checkpoint, test images, their scores."""

    page: Page
    run: Run
    trained: TrainedNetwork
    test: ImageSet
    evaluation: Evaluation

    @property
    def classes(self) -> Sequence[str]:
        return self.evaluation.classes

    def one_of_each_class(self) -> np.ndarray:
        """Return the index of the first test image of each class."""
        return np.unique(self.test.labels, return_index=True)[1]

    def class_name(self, label: int) -> str:
        return shortened(self.classes[label], LONGEST_NAME)

    def true_name(self, index: int) -> str:
        return self.classes[self.test.labels[index]]

    @property
    def shown_image(self) -> int:
        """Index of the test image whose responses and maps are drawn."""
        return int(self.one_of_each_class()[:4][-1])

    def heat(self, chosen: np.ndarray, labels: np.ndarray, layer: str | None = None) -> HeatRow:
        """Return Grad-CAM maps of test images `chosen` ``[n]`` for classes ``[n]``, and those with probabilities."""
        pairs = zip(labels, self.evaluation.scores[chosen, labels], strict=True)
        words = [f"{self.class_name(label)}: {percent(float(probability))}" for label, probability in pairs]
        return self.trained.grad_cam(self.test.pixels[chosen], labels, layer), words


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images uint8 ``[N, S, S, 3]`` and their labels int64 ``[N]``."""

    pixels: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, limit: int) -> ImageSet:
        """Return a fixed sample of at most `limit` images, in their order."""
        if len(self) <= limit:
            return self
        chosen = np.sort(np.random.default_rng(0).permutation(len(self))[:limit])
        return ImageSet(self.pixels[chosen], self.labels[chosen])


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A trained network with the normalisation of its images."""

    network: ImageClassifier
    normalize: nn.Layer

    def tensor(self, pixels: np.ndarray) -> paddle.Tensor:
        """Return normalised images ``[N, 3, S, S]``."""
        return self.normalize(paddle.to_tensor(pixels))

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Return the most probable class of each image, int64 ``[N]``."""
        scorer = NetworkScorer(self.network, self.normalize)
        return np.concatenate([scorer.scores(part).argmax(axis=1) for part in _batches(pixels)])

    @paddle.no_grad()
    def maps(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs of the stem and of each stage by name, ``[N, channels, H, W]`` each."""
        network, images = self.network, self.tensor(pixels)
        stem = network.maxpool(network.relu(network.bn1(network.conv1(images))))
        stages = zip(network.stage_names, network.forward_stages(images), strict=True)
        return {name: output.numpy() for name, output in [("stem", stem), *stages]}

    def means(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Return the means of these outputs over H and W, ``[N, channels]`` each."""
        parts = [self.maps(part) for part in _batches(pixels)]
        return {name: np.concatenate([part[name].mean(axis=(2, 3)) for part in parts]) for name in parts[0]}

    def grad_cam(self, pixels: np.ndarray, classes: np.ndarray, layer: str | None = None) -> np.ndarray:
        """Return Grad-CAM maps of the images' size, ``[N, S, S]``."""
        parts = zip(_batches(pixels), _batches(classes), strict=True)
        small = [grad_cam(self.network, self.tensor(part), labels, layer) for part, labels in parts]
        return enlarge(np.concatenate(small), *pixels.shape[1:3])


def _batches(array: np.ndarray) -> list[np.ndarray]:
    return [array[start : start + BATCH] for start in range(0, len(array), BATCH)]


def knn_accuracy(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Return the accuracy of a k-nearest-neighbours classifier on points ``[n, d]``."""
    return float(KNeighborsClassifier(NEIGHBOURS).fit(train, train_labels).score(test, test_labels))


@dataclass(frozen=True, eq=False)
class Projections:
    """Two projections of points ``[N, d]``.

    Attributes:
        pca: the first two principal components, ``[N, 2]``.
        explained: their share of the variance.
        tsne: the t-SNE embedding, ``[N, 2]``.
        silhouette: of the classes in all d dimensions, from -1 to 1.
    """

    pca: np.ndarray
    explained: float
    tsne: np.ndarray
    silhouette: float


def project_2d(points: np.ndarray, labels: np.ndarray) -> Projections:
    """Project points ``[N, d]`` by PCA, and by t-SNE initialised with PCA."""
    analysis = PCA(2, random_state=0)
    principal = analysis.fit_transform(points)
    tsne = TSNE(2, perplexity=30, init="pca", learning_rate="auto", random_state=0).fit_transform(points)
    explained = float(analysis.explained_variance_ratio_.sum())
    return Projections(principal, explained, tsne, float(silhouette_score(points, labels)))


def mask_pixels(pixels: np.ndarray, importance: np.ndarray, share: float, colour: np.ndarray) -> np.ndarray:
    """Paint the `share` of each image's pixels of highest importance in one colour, ties in a fixed random order.

    Args:
        pixels: uint8 ``[N, S, S, 3]``.
        importance: ``[N, S, S]``.
        share: of the pixels, 0..1.
        colour: uint8 ``[3]``.
    """
    images = len(pixels)
    flat = importance.reshape(images, -1)
    order = np.lexsort((np.random.default_rng(0).random(flat.shape), -flat), axis=-1)
    chosen = order[:, : round(share * flat.shape[1])]
    painted = pixels.reshape(images, -1, 3).copy()
    painted[np.arange(images)[:, np.newaxis], chosen] = colour
    return painted.reshape(pixels.shape)


def mean_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean correlation of two maps ``[N, H, W]`` over the images, without constant maps."""
    pairs = [(a.ravel(), b.ravel()) for a, b in zip(first, second, strict=True) if a.std() > 0 and b.std() > 0]
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs])) if pairs else 0.0
