"""Write what is measured once, after a training or beside it: an evaluated split, a learning-rate sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from paddle_resnet.tracking.records import LogWriter, open_records, replace_records


class Embeddings(NamedTuple):
    """Features of images, float32 ``[n, features]``, and the names of their true and predicted classes, ``n`` each."""

    features: np.ndarray
    classes: Sequence[str]
    predicted: Sequence[str]


def log_evaluation(folder: Path, images: Mapping[str, np.ndarray], embeddings: Embeddings | None = None) -> None:
    """Show plots, uint8 ``[H, W, 3]`` by tag, and embeddings, in place of those of an earlier evaluation of the split.

    The folder is one of its own within the run's ``vdl/``: VisualDL shows it as a run.

    Raises:
        RunFailure: a file cannot be written.
    """

    def write(writer: LogWriter) -> None:
        for tag, pixels in images.items():
            writer.add_image(tag, pixels, 0)
        if embeddings is not None:
            labels = [list(embeddings.classes), list(embeddings.predicted)]
            writer.add_embeddings("features", embeddings.features, labels, ["class", "predicted"])

    replace_records(folder, write)


def log_lr_sweep(folder: Path, rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float]) -> None:
    """Write the curves of a learning-rate sweep; steps whose loss is not finite are left out.

    Raises:
        RunFailure: the file cannot be written.
    """
    with closing(open_records(folder)) as writer:
        for step, (rate, loss, average) in enumerate(zip(rates, losses, smoothed, strict=True)):
            if math.isfinite(loss):
                writer.add_scalar("sweep/learning rate", rate, step)
                writer.add_scalar("sweep/loss", loss, step)
                writer.add_scalar("sweep/smoothed loss", average, step)
