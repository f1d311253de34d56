"""What a network makes of images before its last layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import paddle
from paddle import nn
from PIL import Image

from paddle_resnet.images.decode import resize_and_crop_batch
from paddle_resnet.models import ImageClassifier
from paddle_resnet.plots.image_grids import choose_samples
from paddle_resnet.results import Evaluation
from paddle_resnet.tracking.records import LogWriter, replace_records

if TYPE_CHECKING:
    from paddle_resnet.training.run_folder import RunFolder


def features_of(network: ImageClassifier, normalize: nn.Layer, images: np.ndarray) -> np.ndarray:
    """Uint8 images `[N, S, S, 3]` to what `fc` takes, float32 `[N, num_features]`; the network is in eval mode."""
    seen: list[np.ndarray] = []
    hook = network.fc.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].numpy()))
    try:
        with paddle.no_grad():
            network(normalize(paddle.to_tensor(images)))
    finally:
        hook.remove()
    return seen[0]


BATCH = 64


def write_visual_dl(
    folder: Path,
    run: RunFolder,
    split: str,
    evaluation: Evaluation,
    figures: Sequence[Path],
    network: ImageClassifier | None = None,
) -> None:
    """Show what was measured of a split, in the place of what an earlier evaluation has shown.

    Args:
        folder: within the run's ``vdl/``, which makes it a run of its own in VisualDL.
        run: the run's folder.
        split: "train", "validation" or "test".
        evaluation: of that split.
        figures: its PNG files; an image's tag is its file's name without the split.
        network: the one that was measured, in evaluation mode, for the embeddings; None: without them.

    Raises:
        RunFailure: it cannot be written.
    """

    def write(writer: LogWriter) -> None:
        for path in figures:
            with Image.open(path) as picture:
                tag = path.stem.removesuffix(f"_{split}").replace("_", " ")
                writer.add_image(tag, np.array(picture.convert("RGB")), 0)
        if network is not None and run.config.evaluation.embeddings > 0:
            _embed(writer, run, split, evaluation, network)

    replace_records(folder, write)


def _embed(
    writer: LogWriter, run: RunFolder, split_name: str, evaluation: Evaluation, network: ImageClassifier
) -> None:
    """Add the features of images spread evenly over the classes, each with its class and the predicted one."""
    split, size, resize = getattr(run.splits(), split_name), run.config.data.image_size, run.splits().resize
    classes, normalize = evaluation.classes, run.normalize()
    chosen = choose_samples(evaluation.labels, len(classes), run.config.evaluation.embeddings)
    features = [
        features_of(network, normalize, resize_and_crop_batch(split.batch(indices), resize, size))
        for indices in np.split(chosen, range(BATCH, len(chosen), BATCH))
    ]
    columns = [[classes[label] for label in labels[chosen]] for labels in (evaluation.labels, evaluation.predicted)]
    writer.add_embeddings("features", np.concatenate(features), columns, ["class", "predicted"])
