"""What is measured inside a trained network: its maps by place, how classes part, and what hiding pixels does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import paddle
from paddle import nn
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.neighbors import KNeighborsClassifier

from paddle_resnet.data import Split, uint8_batches
from paddle_resnet.evaluation import NetworkScorer
from paddle_resnet.evaluation.grad_cam import enlarge, grad_cam
from paddle_resnet.models import ImageClassifier
from paddle_resnet.training.run_folder import RunFolder

BATCH = 256
NEIGHBOURS = 5
POINTS = 2000  # images at most that are laid on the page, or hidden in part: t-SNE's time grows with their number


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images uint8 ``[N, S, S, 3]`` and their labels int64 ``[N]``."""

    pixels: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Sequence[int] | np.ndarray) -> Pictures:
        """Those at `indices`."""
        return Pictures(self.pixels[indices], self.labels[indices])

    def some(self, limit: int) -> Pictures:
        """At most `limit` of them, the same ones each time, in their order."""
        if len(self) <= limit:
            return self
        return self.take(np.sort(np.random.default_rng(0).permutation(len(self))[:limit]))


def read_pictures(run: RunFolder, split: Split) -> Pictures:
    """All images of a split as the run's network sees them, before they are normalised."""
    batches = list(uint8_batches(split, BATCH, run.splits().resize, run.config.data.image_size))
    return Pictures(
        np.concatenate([pixels for pixels, _ in batches]), np.concatenate([labels for _, labels in batches])
    )


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network with the layer that normalises its images."""

    network: ImageClassifier
    normalize: nn.Layer

    def tensor(self, pixels: np.ndarray) -> paddle.Tensor:
        """Normalised images ``[N, 3, S, S]``."""
        return self.normalize(paddle.to_tensor(pixels))

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities ``[N, classes]``."""
        scorer = NetworkScorer(self.network, self.normalize)
        return in_batches(scorer.scores, pixels)

    @paddle.no_grad()
    def maps(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """The output of the stem and of each stage by name, ``[N, channels, H, W]`` each."""
        network, images = self.network, self.tensor(pixels)
        stem = network.maxpool(network.relu(network.bn1(network.conv1(images))))
        stages = zip(network.stage_names, network.forward_stages(images), strict=True)
        return {name: output.numpy() for name, output in [("stem", stem), *stages]}

    def means(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """The means of those outputs over H and W, ``[N, channels]`` each."""
        parts = [self.maps(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
        return {name: np.concatenate([part[name].mean(axis=(2, 3)) for part in parts]) for name in parts[0]}

    def grad_cam(self, pixels: np.ndarray, classes: np.ndarray, layer: str | None = None) -> np.ndarray:
        """Maps of the images' size, ``[N, S, S]``."""
        starts = range(0, len(pixels), BATCH)
        small = [
            grad_cam(self.network, self.tensor(pixels[start : start + BATCH]), classes[start : start + BATCH], layer)
            for start in starts
        ]
        return enlarge(np.concatenate(small), *pixels.shape[1:3])


def in_batches(answer: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """Let `answer` work on a batch at a time."""
    return np.concatenate([answer(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)])


def as_points(pictures: Pictures) -> np.ndarray:
    """Pictures as points ``[N, S * S * 3]``, levels in 0..1."""
    return pictures.pixels.reshape(len(pictures), -1).astype(np.float32) / 255


def nearest_neighbours(known: np.ndarray, known_labels: np.ndarray, asked: np.ndarray, labels: np.ndarray) -> float:
    """The share of `asked` whose class most of its nearest among `known` have: ``[n, d]`` and ``[m, d]``."""
    return float(KNeighborsClassifier(NEIGHBOURS).fit(known, known_labels).score(asked, labels))


@dataclass(frozen=True, eq=False)
class Flat:
    """Points ``[N, d]`` laid on the page in two ways.

    Attributes:
        principal: the first two principal components, ``[N, 2]``.
        explained: their share of the variance.
        neighbours: by t-SNE, ``[N, 2]``.
        silhouette: of the classes among the points in all d dimensions, from -1 to 1.
    """

    principal: np.ndarray
    explained: float
    neighbours: np.ndarray
    silhouette: float


def flatten(points: np.ndarray, labels: np.ndarray) -> Flat:
    """Lay points on the page: PCA, and t-SNE from there."""
    analysis = PCA(2, random_state=0)
    principal = analysis.fit_transform(points)
    neighbours = TSNE(2, perplexity=30, init="pca", learning_rate="auto", random_state=0).fit_transform(points)
    explained = float(analysis.explained_variance_ratio_.sum())
    return Flat(principal, explained, neighbours, float(silhouette_score(points, labels)))


def hide(pixels: np.ndarray, importance: np.ndarray, share: float, colour: np.ndarray) -> np.ndarray:
    """Paint the `share` of each image's pixels that have the highest importance in one colour.

    Pixels of equal importance are taken in random order, the same each time.

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
    """The mean over images of the correlation of two maps ``[N, H, W]``; maps without any variation are left out."""
    pairs = [(a.ravel(), b.ravel()) for a, b in zip(first, second, strict=True) if a.std() > 0 and b.std() > 0]
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs])) if pairs else 0.0
