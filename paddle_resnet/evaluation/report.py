"""A run measured on a split: into `metrics.json`, `evaluation_<split>.json` and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from paddle_resnet import distributed
from paddle_resnet.console import logger
from paddle_resnet.errors import UsageError, counted, did_you_mean
from paddle_resnet.evaluation.metrics import evaluation_of, measure
from paddle_resnet.evaluation.scorer import NetworkScorer, Scorer
from paddle_resnet.files import write_json
from paddle_resnet.results import Evaluation

if TYPE_CHECKING:
    from pathlib import Path

    from paddle import nn

    from paddle_resnet.training.run_folder import RunFolder, Which

SPLITS = ("train", "validation", "test")
LARGEST_BATCH = 256
FEW_IMAGES = 50
PIXELS_A_BATCH = LARGEST_BATCH * 64 * 64

Progress = Callable[[int, int], None]
"""Called with the number of images done and the number of all."""


def evaluate_run(
    run: RunFolder, split: str = "test", checkpoint: Which = "best", progress: Progress | None = None
) -> Evaluation:
    """Measure the run's network on a whole split; write its figures, details and pictures, these for VisualDL too.

    Pictures are of the best checkpoint alone.

    `metrics.json` gets a section, named by `metrics_section`; the details go to `details_path`. Processes that trained
    the run together measure it together, and the first one writes.

    Args:
        run: the run's folder.
        split: "train", "validation" or "test"; no split is augmented here.
        checkpoint: "best" (by validation) or "last".
        progress: called with images done and all images.

    Raises:
        UsageError: the run has no such split or checkpoint.
    """
    from paddle_resnet.evaluation.run_plots import draw_figures, draw_history
    from paddle_resnet.evaluation.tracking import write_visual_dl

    _check_split(split)
    run.metrics()  # a damaged one, as a damaged history, is an error before anything is written
    run.history()
    network = run.load_network(checkpoint)
    evaluation = measure_split(run, _scorer(run, network), split, progress)
    if not distributed.is_main_process():
        return evaluation
    warn_of_few_images(split, evaluation)
    write_json(details_path(run, split, checkpoint), details(evaluation, split, checkpoint))
    if checkpoint == "best":
        draw_history(run)
        figures = draw_figures(run, split, evaluation)
        write_visual_dl(visual_dl_path(run, split), run, split, evaluation, figures, network)
    run.update_metrics(metrics_section(split, checkpoint), evaluation.summary() | {"checkpoint": checkpoint})
    return evaluation


def show_validation_mistakes(run: RunFolder) -> None:
    """Draw the most confident mistakes of the best checkpoint on the validation split, for VisualDL too.

    They are what a recipe may be changed by; the test split's, once looked at, make its figure too good. Several
    processes measure together, and the first one draws.

    Raises:
        UsageError: the run has no such checkpoint.
    """
    from paddle_resnet.evaluation.run_plots import draw_figures
    from paddle_resnet.evaluation.tracking import write_visual_dl

    split = "validation"
    evaluation = measure_split(run, _scorer(run, run.load_network("best")), split)
    if not distributed.is_main_process():
        return
    figures = draw_figures(run, split, evaluation, ["mistakes"])
    write_visual_dl(visual_dl_path(run, split), run, split, evaluation, figures)


def _scorer(run: RunFolder, network: nn.Layer) -> NetworkScorer:
    return NetworkScorer(network, run.normalize(), flip=run.config.evaluation.flip)


def measure_split(run: RunFolder, scorer: Scorer, split: str = "test", progress: Progress | None = None) -> Evaluation:
    """Measure `scorer` on a whole split of the run's data; write nothing.

    Of several processes that train together, each scores its part, and all get the whole evaluation.

    Raises:
        UsageError: there is no split of that name.
    """
    from paddle_resnet.data.loader import rank_batches, read_batches

    _check_split(split)
    splits = run.splits()
    images = getattr(splits, split)
    if len(images) == 0:
        raise UsageError(f"{run.path}: the {split} split is empty; there is nothing to measure")
    size = run.config.data.image_size
    ranks = distributed.joined()
    parts = (ranks.rank, ranks.world_size) if len(images) >= ranks.world_size else (0, 1)
    chosen = rank_batches(len(images), _batch_size(size), *parts)
    count = None if progress is None else lambda done: progress(done, len(images))
    evaluation = measure(scorer, read_batches(images, chosen, splits.resize, size), run.classes(), count)
    return evaluation if parts == (0, 1) else _of_all_processes(evaluation, np.concatenate(chosen), images.labels)


def _of_all_processes(own: Evaluation, places: np.ndarray, labels: np.ndarray) -> Evaluation:
    """Put the scores of the images at `places` and those of the other processes together."""
    scores = np.zeros((len(labels), len(own.classes)))
    scores[places] = own.scores
    distributed.barrier()
    return evaluation_of(distributed.all_reduce_sum(scores).astype(np.float32), labels, own.classes, own.seconds)


def warn_of_few_images(split: str, evaluation: Evaluation) -> None:
    """Say how uncertain top-1 on a small split is, by Wilson's interval (1927)."""
    n, top1, z = evaluation.images, evaluation.top1, 1.96
    if n >= FEW_IMAGES:
        return
    centre, half = top1 + z**2 / (2 * n), z * math.sqrt(top1 * (1 - top1) / n + z**2 / (4 * n**2))
    low, high = (max(0.0, centre - half) / (1 + z**2 / n), min(1.0, (centre + half) / (1 + z**2 / n)))
    logger.warning(
        "warning: the %s split holds %s: its top-1, %.2f%%, tells of one between %.0f%% and %.0f%% (95%% interval)",
        split,
        counted(n, "image"),
        100 * top1,
        100 * low,
        100 * high,
    )


def metrics_section(split: str, checkpoint: Which = "best") -> str:
    """The section of `metrics.json`: "test", or "evaluation_<split>", as training has sections of those names.

    The last checkpoint has "last_<split>": a run's test figure is that of the epoch chosen by validation.
    """
    if checkpoint == "last":
        return f"last_{split}"
    return split if split == "test" else f"evaluation_{split}"


def details_path(run: RunFolder, split: str, checkpoint: Which = "best") -> Path:
    """Where the details are written: `evaluation_<split>.json` in the run's folder, or `last_<split>.json`."""
    return run.path / f"{'last' if checkpoint == 'last' else 'evaluation'}_{split}.json"


def visual_dl_path(run: RunFolder, split: str) -> Path:
    """Where VisualDL finds a measured split: beside ``vdl/train`` and ``vdl/validation``, which are the training's."""
    return run.vdl_path / metrics_section(split)


def details(evaluation: Evaluation, split: str, checkpoint: str) -> dict[str, object]:
    """Everything counted, for a program to read: the figures, each class, the confusion matrix [true][predicted]."""
    return {
        "split": split,
        "checkpoint": checkpoint,
        **evaluation.summary(),
        "classes": list(evaluation.classes),
        "per_class": [asdict(result) for result in evaluation.per_class],
        "confusion": evaluation.confusion.tolist(),
    }


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise UsageError(f'split "{split}": expected one of {", ".join(SPLITS)}{did_you_mean(split, SPLITS)}')


def _batch_size(image_size: int) -> int:
    """As many images as keep a batch's memory near that of 256 images of 64 x 64."""
    return max(8, min(LARGEST_BATCH, PIXELS_A_BATCH // image_size**2))
