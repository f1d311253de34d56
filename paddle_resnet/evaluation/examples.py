"""Images of a split that plots and VisualDL show as examples, and their features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import paddle
from paddle import nn

from paddle_resnet.images.decode import resize_and_crop_batch
from paddle_resnet.models import ImageClassifier
from paddle_resnet.results import Evaluation
from paddle_resnet.tracking.evaluation_log import Embeddings

if TYPE_CHECKING:
    from paddle_resnet.training.run_folder import RunFolder

SAMPLES = 40
MISTAKES = 24
BATCH = 64


def choose_samples(labels: np.ndarray, classes: int, number: int = SAMPLES) -> np.ndarray:
    """Choose images evenly from all classes: the first of each class, then the second, ...; int64 `[<= number]`.

    With more classes than `number`, take classes at equal distances.
    """
    by_class = [np.flatnonzero(labels == label) for label in range(classes)]
    by_class = [indices for indices in by_class if len(indices)]
    if len(by_class) > number:
        by_class = [by_class[place] for place in np.linspace(0, len(by_class) - 1, number).astype(int)]
    rounds = max((len(indices) for indices in by_class), default=0)
    chosen: list[int] = []
    for turn in range(rounds):
        chosen += [int(indices[turn]) for indices in by_class if turn < len(indices)]
        if len(chosen) >= number:
            break
    return np.array(chosen[:number], np.int64)


def choose_mistakes(evaluation: Evaluation, number: int = MISTAKES) -> np.ndarray:
    """Choose the wrong predictions of the highest probability, highest first, int64 `[<= number]`."""
    wrong = np.flatnonzero(evaluation.predicted != evaluation.labels)
    confidence = evaluation.scores[wrong].max(axis=1, initial=0.0)
    return wrong[np.argsort(-confidence, kind="stable")][:number]


def features_of(network: ImageClassifier, normalize: nn.Layer, images: np.ndarray) -> np.ndarray:
    """Map uint8 images `[N, S, S, 3]` to the inputs of `fc`, float32 `[N, num_features]`.

    The network must be in evaluation mode.
    """
    seen: list[np.ndarray] = []
    hook = network.fc.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].numpy()))
    try:
        with paddle.no_grad():
            network(normalize(paddle.to_tensor(images)))
    finally:
        hook.remove()
    return seen[0]


def embeddings_of(
    network: ImageClassifier, run: RunFolder, split_name: str, evaluation: Evaluation
) -> Embeddings | None:
    """Compute features of `evaluation.embeddings` images (a config key), or of none if that is 0."""
    number, classes = run.config.evaluation.embeddings, evaluation.classes
    if number == 0:
        return None
    splits, size, normalize = run.splits(), run.config.data.image_size, run.normalize()
    chosen = choose_samples(evaluation.labels, len(classes), number)
    features = [
        features_of(
            network, normalize, resize_and_crop_batch(getattr(splits, split_name).batch(indices), splits.resize, size)
        )
        for indices in np.split(chosen, range(BATCH, len(chosen), BATCH))
    ]
    true, predicted = ([classes[label] for label in each[chosen]] for each in (evaluation.labels, evaluation.predicted))
    return Embeddings(np.concatenate(features), true, predicted)
