"""What the plots of a measured split and VisualDL show: example images, their features, and files in ``figures/``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import paddle
from matplotlib.figure import Figure
from paddle import nn

from paddle_resnet.console import logger
from paddle_resnet.data.datasets.open_splits import resize_size
from paddle_resnet.evaluation.metrics import confused_pairs, precision_recall_curves
from paddle_resnet.images.decode import resize_and_crop_batch
from paddle_resnet.models import ImageClassifier
from paddle_resnet.plots.classification import draw_calibration, draw_confusion_matrix, draw_precision_recall
from paddle_resnet.plots.curves import draw_learning_curves
from paddle_resnet.plots.image_grids import COLUMNS, draw_confused_pairs, draw_mistakes, draw_samples
from paddle_resnet.plots.style import save_figure
from paddle_resnet.results import Evaluation
from paddle_resnet.tracking.evaluation_log import Embeddings

if TYPE_CHECKING:
    from paddle_resnet.data import Split
    from paddle_resnet.training.run_folder import Run

SPLIT_PLOTS = ("samples", "confusion_matrix", "confused_pairs", "mistakes", "precision_recall", "calibration")
SAMPLES = 40
MISTAKES = 24
PAIRS = 6
LARGEST_MATRIX = 1000  # classes of a confusion matrix that is drawn; its memory grows with their square
BATCH = 64


def draw_split_plots(
    run: Run, split_name: str, split: Split, evaluation: Evaluation, plots: Sequence[str] = SPLIT_PLOTS
) -> dict[str, Path]:
    """Draw plots of a measured split, names out of `SPLIT_PLOTS`, as ``figures/<plot>_<split>.png`` of the run.

    Returns:
        The files by plot; without the confusion matrix of more than `LARGEST_MATRIX` classes.
    """
    name, classes = run.config.name, evaluation.classes
    title = f"{name}: {split_name} images"

    def draw_chosen_samples() -> Figure:
        chosen = choose_samples(np.asarray(split.labels), len(classes))
        return draw_samples(split.batch(chosen), evaluation.labels[chosen], classes, title)

    def draw_chosen_mistakes() -> Figure:
        chosen = choose_mistakes(evaluation)
        images = split.batch(chosen) if len(chosen) else np.zeros((0, 1, 1, 3), np.uint8)
        return draw_mistakes(images, chosen, evaluation, f"{name}: most confident mistakes, {split_name}")

    def draw_chosen_pairs() -> Figure:
        pairs = confused_pairs(evaluation, PAIRS)
        examples = [split.batch(examples_of_pair(evaluation, *pair[:2])) for pair in pairs]
        return draw_confused_pairs(examples, pairs, evaluation, f"{name}: most confused classes, {split_name}")

    draw: dict[str, Callable[[], Figure]] = {
        "samples": draw_chosen_samples,
        "confusion_matrix": lambda: draw_confusion_matrix(evaluation.confusion, classes, title),
        "confused_pairs": draw_chosen_pairs,
        "mistakes": draw_chosen_mistakes,
        "precision_recall": lambda: draw_precision_recall(precision_recall_curves(evaluation), title),
        "calibration": lambda: draw_calibration(evaluation.calibration, title),
    }
    files = {plot: run.figures_path / f"{plot}_{split_name}.png" for plot in plots}
    if len(classes) > LARGEST_MATRIX and "confusion_matrix" in files:
        del files["confusion_matrix"]
        logger.info("no confusion matrix is drawn: %d classes, at most %d are readable", len(classes), LARGEST_MATRIX)
    for plot, file in files.items():
        save_figure(file, draw[plot])
    return files


def draw_history_plot(run: Run) -> None:
    """Draw ``figures/learning_curves.png``, unless the run has not finished an epoch."""
    if history := run.history():
        title = f"{run.config.name}: learning curves"
        monitor = run.config.train.monitor
        save_figure(run.figures_path / "learning_curves.png", lambda: draw_learning_curves(history, title, monitor))


def choose_samples(labels: np.ndarray, classes: int, number: int = SAMPLES) -> np.ndarray:
    """Choose images evenly from all classes: the first of each class, then the second, ...; int64 `[<= number]`.

    With more classes than `number`, take classes at equal distances.
    """
    by_class = [np.flatnonzero(labels == label) for label in range(classes)]
    by_class = [indices for indices in by_class if len(indices)]
    if len(by_class) > number:
        by_class = [by_class[place] for place in np.linspace(0, len(by_class) - 1, number).astype(int)]
    in_turns = [index for turn in zip_longest(*by_class) for index in turn if index is not None]
    return np.array(in_turns[:number], np.int64)


def choose_mistakes(evaluation: Evaluation, number: int = MISTAKES) -> np.ndarray:
    """Choose the wrong predictions of the highest probability, highest first, int64 `[<= number]`."""
    wrong = np.flatnonzero(evaluation.predicted != evaluation.labels)
    confidence = evaluation.scores[wrong].max(axis=1, initial=0.0)
    return wrong[np.argsort(-confidence, kind="stable")][:number]


def examples_of_pair(evaluation: Evaluation, true: int, predicted: int) -> np.ndarray:
    """Choose the images of class `true` that are predicted as `predicted`, the most confident first, a row of them."""
    chosen = np.flatnonzero((evaluation.labels == true) & (evaluation.predicted == predicted))
    return chosen[np.argsort(-evaluation.scores[chosen, predicted], kind="stable")][:COLUMNS]


def features_of(network: ImageClassifier, normalize: nn.Layer, batches: Iterable[np.ndarray]) -> np.ndarray:
    """Map batches of uint8 images `[n, S, S, 3]` to the inputs of `fc`, float32 `[N, num_features]`.

    The network must be in evaluation mode.
    """
    seen: list[np.ndarray] = []
    hook = network.fc.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].numpy()))
    try:
        with paddle.no_grad():
            for images in batches:
                network(normalize(paddle.to_tensor(images)))
    finally:
        hook.remove()
    return np.concatenate(seen)


def embeddings_of(network: ImageClassifier, run: Run, split: Split, evaluation: Evaluation) -> Embeddings | None:
    """Compute features of `evaluation.embeddings` images (a config key), or of none if that is 0."""
    number, classes = run.config.evaluation.embeddings, evaluation.classes
    if number == 0:
        return None
    resize, size = resize_size(run.config.data), run.config.data.image_size
    chosen = choose_samples(evaluation.labels, len(classes), number)
    parts = np.split(chosen, range(BATCH, len(chosen), BATCH))
    batches = (resize_and_crop_batch(split.batch(part), resize, size) for part in parts)
    true, predicted = ([classes[label] for label in each[chosen]] for each in (evaluation.labels, evaluation.predicted))
    return Embeddings(features_of(network, run.normalize(), batches), true, predicted)
