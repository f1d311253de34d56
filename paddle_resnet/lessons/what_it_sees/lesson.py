"""Inside a trained network: filters, feature maps, embeddings of the test set, Grad-CAM, confident mistakes."""

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

from paddle_resnet import runtime
from paddle_resnet.evaluation import NetworkScorer, measure_split
from paddle_resnet.evaluation.grad_cam import enlarge, grad_cam
from paddle_resnet.evaluation.run_plots import choose_mistakes
from paddle_resnet.lessons.common.network_costs import format_shape
from paddle_resnet.lessons.common.runs import flatten_pixels, image_settings, read_images, train_run
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.models import ImageClassifier, create_configured_model
from paddle_resnet.plots.feature_maps import draw_filters, draw_heatmaps, draw_maps, draw_points
from paddle_resnet.plots.style import percent, shortened
from paddle_resnet.results import Evaluation
from paddle_resnet.training.run_folder import Run

COLUMNS = 7  # images drawn with their heat
HIDDEN = (0.1, 0.25, 0.5)  # shares of the pixels
MAPS = 8  # per stage
MAX_NEIGHBOURS = 5000  # training images for the nearest neighbours, at most
RECIPE = {"epochs": 10, "weight_decay": 5e-4, "schedule": "one_cycle", "warmup": 0.2}
QUICK = {**RECIPE, "batch_size": 64, "learning_rate": 0.1}
FULL = {**RECIPE, "batch_size": 128, "learning_rate": 0.2}

LONGEST_NAME = 9
BATCH = 256
NEIGHBOURS = 5
MAX_POINTS = 2000  # t-SNE's time grows with their number

HeatRow = tuple[np.ndarray, Sequence[str]]  # maps ``[n, S, S]`` and n labels


def teach(page: Page, effort: Effort) -> None:
    """Train a small network, then show its filters, feature maps, embeddings, Grad-CAM maps and mistakes."""
    # The digits are enlarged, so that the last stage has 8x8 positions.
    settings = {**image_settings(effort, size=32, pad=3), "train": FULL if effort.full else QUICK}
    run = train_run(page, effort, "network", settings, "resnet20" if effort.full else "resnet8")
    trained = TrainedNetwork(run.load_network("best"), run.normalize())
    evaluation = measure_split(run, NetworkScorer(trained.network, trained.normalize), "test")
    context = LessonContext(page, run, trained, ImageSet(*read_images(run, run.splits().test)), evaluation)
    _network(context)
    _filters(context)
    _maps(context)
    _points(context)
    _cam_equivalence(context)
    _heatmaps(context)
    _occlusion(context)
    _mistakes(context)


def _network(context: LessonContext) -> None:
    page, evaluation = context.page, context.evaluation
    page.section("network", config=context.run.config, top1=percent(evaluation.top1), images=evaluation.images)
    if context.run.config.data.source == "digits":
        page.say("digits")
    mistakes = int((evaluation.predicted != evaluation.labels).sum())
    page.record(top1=evaluation.top1, test_images=evaluation.images, mistakes=mistakes)


def _filters(context: LessonContext) -> None:
    page, trained, (chosen, class_name) = context.page, context.trained, context.shown_image
    page.heading("filters_heading")
    weight = trained.network.conv1.weight.numpy()  # [out, 3, k, k]
    inputs = trained.tensor(context.test.pixels[[chosen]])
    responses = trained.network.conv1(inputs).numpy()[0]
    number, *shape = weight.shape
    size = {"number": number, "shape": format_shape(shape, "x")}
    if (context.test.pixels == context.test.pixels[..., :1]).all():  # the images are grey
        drawn = weight.sum(axis=1)
        difference = float(np.abs(_convolve(inputs.numpy()[0, 0], drawn) - responses).max())
        largest = float(np.abs(responses).max())
        page.say("grey_filters", size=size, difference=difference, largest=largest)
        page.record(sum_difference=difference, largest_answer=largest)
    else:
        spread = weight - weight.min(axis=(1, 2, 3), keepdims=True)
        drawn = (spread / spread.max(axis=(1, 2, 3), keepdims=True)).transpose(0, 2, 3, 1)
        page.say("colour_filters", size=size)
    title = f"First layer: filters, and their responses to a {class_name}"
    page.figure("filters", lambda: draw_filters(drawn, responses, title))


def _convolve(image: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """Cross-correlate a zero-padded image ``[H, W]`` with kernels ``[n, 3, 3]``; return ``[n, H, W]``."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, 1), kernels.shape[1:])
    return np.einsum("hwij,nij->nhw", windows, kernels)


def _maps(context: LessonContext) -> None:
    page, trained, (chosen, class_name) = context.page, context.trained, context.shown_image
    maps = {name: output[0] for name, output in trained.maps(context.test.pixels[[chosen]]).items()}
    page.section("coarser")
    title = f"The strongest {MAPS} maps of each stage for one {class_name}"
    page.figure("maps", lambda: draw_maps(context.test.pixels[chosen], maps, MAPS, title))
    train = ImageSet(*read_images(context.run, context.run.splits().train)).sample(MAX_NEIGHBOURS)
    test = context.test.sample(MAX_POINTS)
    page.say("neighbours_question", neighbours=NEIGHBOURS)
    known, asked = ({"pixels": flatten_pixels(each.pixels), **trained.means(each.pixels)} for each in (train, test))
    right = {name: knn_accuracy(known[name], train.labels, asked[name], test.labels) for name in known}
    labels = {"pixels": page.text("pixels"), **{name: page.text("means_after", name=name) for name in maps}}
    rows = [(labels[name], asked[name].shape[1], percent(share)) for name, share in right.items()]
    page.table("neighbours", rows)
    pixels, *stages = right.values()
    page.record(neighbours_pixels=pixels, neighbours_stages=stages, stages=list(maps))


def _points(context: LessonContext) -> None:
    page = context.page
    images = context.test.sample(MAX_POINTS)
    features = context.trained.means(images.pixels)[context.trained.network.stage_names[-1]]
    pixels_2d, features_2d = (project_2d(points, images.labels) for points in (flatten_pixels(images.pixels), features))
    page.section("projections", features=features)
    panels = {}
    for name, projections in (("pixels", pixels_2d), ("features", features_2d)):
        panels[f"{name}, PCA ({projections.explained:.0%} of the variance)"] = projections.pca
        panels[f"{name}, t-SNE"] = projections.tsne
    title = f"{len(images):,} test images, as pixels and as the network's features"
    page.figure("points", lambda: draw_points(panels, images.labels, context.classes, title))
    page.say("silhouette", pixels_2d=pixels_2d, features_2d=features_2d)
    page.record(silhouette_pixels=pixels_2d.silhouette, silhouette_features=features_2d.silhouette)
    page.record(explained_pixels=pixels_2d.explained, explained_features=features_2d.explained)


def _cam_equivalence(context: LessonContext) -> None:
    """Show that Grad-CAM at the last stage equals CAM."""
    page, trained = context.page, context.trained
    chosen = context.one_of_each_class()
    predicted = context.evaluation.predicted[chosen]
    inputs = trained.tensor(context.test.pixels[chosen])
    maps = grad_cam(trained.network, inputs, predicted)
    features = trained.network.forward_features(inputs).numpy()
    weights = trained.network.fc.weight.numpy()[:, predicted].T  # [N, K]
    cam = np.maximum(np.einsum("nk,nkhw->nhw", weights, features), 0)
    places = maps.shape[1] * maps.shape[2]
    difference = float(np.abs(maps * places - cam).max())
    page.section("cam")
    page.values(
        "w_k = mean over H, W of  d score / d A_k",
        "map = ReLU(sum over k of w_k A_k)",
        "",
        'maps = grad_cam(network, images, classes)             # the last stage; or layer="layer2"',
        f"maps.shape                                            {list(maps.shape)}",
    )
    page.say("closed_form", maps=maps, places=places, difference=difference, largest=cam.max())
    page.record(cam_difference=difference, cam_largest=float(cam.max()), places=places)


def _heatmaps(context: LessonContext) -> None:
    """Draw Grad-CAM maps over images."""
    chosen = context.one_of_each_class()[:COLUMNS]
    first, second, *_ = np.argsort(-context.evaluation.scores[chosen], axis=1, kind="stable").T
    *_, earlier, last = context.trained.network.stage_names
    rows = {
        f"predicted,\n{last}": context.heat(chosen, first),
        f"predicted,\n{earlier}": context.heat(chosen, first, earlier),
        f"second,\n{last}": context.heat(chosen, second),
    }
    _draw_heat(context, "grad_cam", chosen, rows, "Grad-CAM for the predicted class, and for the second")


def _draw_heat(context: LessonContext, name: str, chosen: np.ndarray, rows: Mapping[str, HeatRow], title: str) -> None:
    captions = [f"is {context.class_name(label)}" for label in context.test.labels[chosen]]
    context.page.figure(name, lambda: draw_heatmaps(context.test.pixels[chosen], captions, rows, title))


def _occlusion(context: LessonContext) -> None:
    """Test the maps by occlusion and against random weights."""
    page, trained = context.page, context.trained
    images = context.test.sample(MAX_POINTS)
    predicted = trained.predict(images.pixels)
    maps = trained.grad_cam(images.pixels, predicted)
    colour = np.rint(255 * np.array(context.run.normalize().mean)).astype(np.uint8)
    orders = {"highest": maps, "random": np.zeros_like(maps), "lowest": -maps}

    def accuracy(pixels: np.ndarray) -> float:
        return float((trained.predict(pixels) == images.labels).mean())

    right = {
        name: [accuracy(mask_pixels(images.pixels, order, share, colour)) for share in HIDDEN]
        for name, order in orders.items()
    }
    before = accuracy(images.pixels)
    page.section("occlusion", before=percent(before), images=len(images))
    rows = zip(HIDDEN, *right.values(), strict=True)
    page.table("occluded", [(f"{share:.0%}", *map(percent, accuracies)) for share, *accuracies in rows])
    holds = sum(top < chance for top, chance in zip(right["highest"], right["random"], strict=True))
    runtime.seed_everything(context.run.config.train.seed + 1)
    untrained = create_configured_model(context.run.config.model, len(context.classes))
    untrained.eval()
    random_maps = TrainedNetwork(untrained, trained.normalize).grad_cam(images.pixels, predicted)
    likeness = mean_correlation(maps, random_maps)
    page.say("occlusion_outcome", holds=holds, rows=len(HIDDEN), likeness=likeness)
    page.record(right_before=before, **{f"right_{name}": accuracies for name, accuracies in right.items()})
    page.record(likeness_untrained=likeness)


def _mistakes(context: LessonContext) -> None:
    """Show the most confident mistakes with their maps."""
    page, evaluation = context.page, context.evaluation
    page.heading("mistakes_heading")
    wrong = choose_mistakes(evaluation, evaluation.images)
    if len(wrong) == 0:
        page.say("no_mistakes")
        return
    chosen = wrong[:COLUMNS]
    surest = float(evaluation.scores[chosen[0]].max())
    page.say("confident_mistakes", images=evaluation.images, wrong=len(wrong), surest=percent(surest))
    rows = {
        "for the\nprediction": context.heat(chosen, evaluation.predicted[chosen]),
        "for the\ntruth": context.heat(chosen, evaluation.labels[chosen]),
    }
    _draw_heat(context, "mistakes", chosen, rows, "The most confident mistakes")
    page.record(surest_mistake=surest)


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

    @property
    def shown_image(self) -> tuple[int, str]:
        """Index and class of the test image whose responses and maps are drawn."""
        index = int(self.one_of_each_class()[:4][-1])
        return index, self.classes[self.test.labels[index]]

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
    """Two projections of points ``[N, d]``."""

    pca: np.ndarray  # the first two principal components, ``[N, 2]``
    explained: float  # their share of the variance
    tsne: np.ndarray  # the t-SNE embedding, ``[N, 2]``
    silhouette: float  # of the classes in all d dimensions, from -1 to 1


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
