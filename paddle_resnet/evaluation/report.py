"""Measure a run on a split: `metrics.json`, `evaluation_<split>.json`, plots, VisualDL."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paddle_resnet import distributed
from paddle_resnet.console import logger
from paddle_resnet.errors import UsageError, counted, did_you_mean
from paddle_resnet.evaluation.metrics import evaluation_of, measure
from paddle_resnet.evaluation.scorer import NetworkScorer, Scorer
from paddle_resnet.files import write_json
from paddle_resnet.results import Evaluation
from paddle_resnet.training.run_folder import Run

if TYPE_CHECKING:
    from paddle_resnet.models import ImageClassifier
    from paddle_resnet.training.run_folder import Which

SPLITS = ("train", "validation", "test")
FEW_IMAGES = 50
MAX_BATCH = 256
MAX_PIXELS = MAX_BATCH * 64 * 64  # of a batch, to limit the memory

ProgressFn = Callable[[int, int], None]
"""Called with the number of images done and of all images."""


def evaluate(
    run: Run | str | Path, split: str = "test", checkpoint: Which = "best", progress: ProgressFn | None = None
) -> Evaluation:
    """Measure the run's network on a whole split and write the metrics; for the best checkpoint, the plots too.

    The metrics go to a section of `metrics.json` (see `metrics_section`), the details to `details_path`, the plots to
    ``figures/`` and to VisualDL. Ranks that trained the run together measure it together; the main process writes.

        >>> import paddle_resnet
        >>> evaluation = paddle_resnet.evaluate("output/quickstart", split="test")
        >>> evaluation.images, evaluation.confusion.shape
        (359, (10, 10))
        >>> 0 <= evaluation.top1 <= evaluation.top5 <= 1
        True

    Args:
        run: the run, or its folder.
        split: "train", "validation" or "test"; no split is augmented here.
        checkpoint: "best" (by validation) or "last".
        progress: called with the number of images done and of all images.

    Raises:
        UsageError: the run has no such split or checkpoint.
    """
    from paddle_resnet.evaluation import run_plots

    run = Run.of(run)
    run.metrics()  # a damaged file, as a damaged history, is an error before anything is written
    run.history()
    network = run.load_network(checkpoint)
    evaluation = measure_split(run, _scorer(run, network), split, progress)
    if not distributed.is_main_process():
        return evaluation
    warn_of_few_images(split, evaluation)
    if split == "test" and run.splits().test is run.splits().validation:
        logger.warning("warning: there is no test split: these are the validation images, which chose the best epoch")
    details = {
        "split": split,
        "checkpoint": checkpoint,
        **evaluation.summary(),
        "classes": list(evaluation.classes),
        "per_class": [asdict(result) for result in evaluation.per_class],
        "confusion": evaluation.confusion.tolist(),
    }
    write_json(details_path(run, split, checkpoint), details)
    if checkpoint == "best":
        run_plots.draw_history_plot(run)
        _show(run, split, evaluation, run_plots.SPLIT_PLOTS, network)
    run.update_metrics(metrics_section(split, checkpoint), evaluation.summary() | {"checkpoint": checkpoint})
    return evaluation


def show_validation_mistakes(run: Run) -> None:
    """Plot the most confident mistakes of the best checkpoint on the validation split, also for VisualDL.

    A recipe may be changed by these. A recipe changed by mistakes of the test split gets too good a test accuracy.

    Raises:
        UsageError: the run has no such checkpoint.
    """
    split = "validation"
    evaluation = measure_split(run, _scorer(run, run.load_network("best")), split)
    if distributed.is_main_process():
        _show(run, split, evaluation, ["mistakes"])


def _show(
    run: Run, split: str, evaluation: Evaluation, plots: Sequence[str], network: ImageClassifier | None = None
) -> None:
    """Draw the plots into the run's folder and for VisualDL, there with the embeddings of a given `network`."""
    from PIL import Image

    from paddle_resnet.evaluation import run_plots
    from paddle_resnet.tracking.evaluation_log import log_evaluation

    images = {}
    for plot, path in run_plots.draw_split_plots(run, split, evaluation, plots).items():
        with Image.open(path) as picture:
            images[plot.replace("_", " ")] = np.array(picture.convert("RGB"))
    embeddings = None if network is None else run_plots.embeddings_of(network, run, split, evaluation)
    log_evaluation(run.vdl_path / metrics_section(split), images, embeddings)


def _scorer(run: Run, network: ImageClassifier) -> NetworkScorer:
    return NetworkScorer(network, run.normalize(), flip=run.config.evaluation.flip)


def measure_split(run: Run, scorer: Scorer, split: str = "test", progress: ProgressFn | None = None) -> Evaluation:
    """Measure `scorer` on a whole split of the run's data, and write nothing.

    Each rank of a distributed run scores its share of the images; all ranks return the whole evaluation.

    Raises:
        UsageError: there is no split of that name.
    """
    from paddle_resnet.data.loader import rank_batches, read_batches

    if split not in SPLITS:
        raise UsageError(f'split "{split}": expected one of {", ".join(SPLITS)}{did_you_mean(split, SPLITS)}')
    splits = run.splits()
    images = getattr(splits, split)
    if len(images) == 0:
        raise UsageError(f"{run.path}: the {split} split is empty; there is nothing to measure")
    size = run.config.data.image_size
    ranks = distributed.joined()
    parts = (ranks.rank, ranks.world_size) if len(images) >= ranks.world_size else (0, 1)
    batch_size = max(8, min(MAX_BATCH, MAX_PIXELS // size**2))
    chosen = rank_batches(len(images), batch_size, *parts)
    count = None if progress is None else lambda done: progress(done, len(images))
    evaluation = measure(scorer, read_batches(images, chosen, splits.resize, size), run.classes(), count)
    return evaluation if parts == (0, 1) else _gathered(evaluation, np.concatenate(chosen), images.labels)


def _gathered(own: Evaluation, places: np.ndarray, labels: np.ndarray) -> Evaluation:
    """Combine this rank's scores, of the images at `places`, with those of the other ranks."""
    scores = np.zeros((len(labels), len(own.classes)))
    scores[places] = own.scores
    distributed.barrier()
    return evaluation_of(distributed.all_reduce_sum(scores).astype(np.float32), labels, own.classes, own.seconds)


def warn_of_few_images(split: str, evaluation: Evaluation) -> None:
    """Warn how uncertain top-1 on a small split is, by Wilson's interval (1927)."""
    n, top1, z = evaluation.images, evaluation.top1, 1.96
    if n >= FEW_IMAGES:
        return
    centre, half = top1 + z**2 / (2 * n), z * math.sqrt(top1 * (1 - top1) / n + z**2 / (4 * n**2))
    low, high = (max(0.0, centre - half) / (1 + z**2 / n), min(1.0, (centre + half) / (1 + z**2 / n)))
    interval = f"{low:.0%} to {high:.0%}"
    logger.warning(
        "warning: the %s split has %s: top-1 %.2f%%, 95%% interval %s", split, counted(n, "image"), 100 * top1, interval
    )


def metrics_section(split: str, checkpoint: Which = "best") -> str:
    """Return the section of `metrics.json`: "test", "evaluation_<split>", or "last_<split>" for the last checkpoint.

    Training itself writes "train" and "validation". "test" is always of the epoch chosen by validation.
    """
    if checkpoint == "last":
        return f"last_{split}"
    return split if split == "test" else f"evaluation_{split}"


def details_path(run: Run, split: str, checkpoint: Which = "best") -> Path:
    """Return the file of the details: `evaluation_<split>.json` in the run's folder, or `last_<split>.json`."""
    return run.path / f"{'last' if checkpoint == 'last' else 'evaluation'}_{split}.json"
