"""Measure a run on a split: `metrics.json`, `evaluation_<split>.json`, plots, VisualDL."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from paddle_resnet import distributed, onednn
from paddle_resnet.config.value_types import SPLIT_NAMES
from paddle_resnet.console import logger
from paddle_resnet.data.datasets.file_report import report_left_out
from paddle_resnet.data.datasets.open_files import open_labelled
from paddle_resnet.data.datasets.open_splits import resize_size
from paddle_resnet.errors import UsageError, counted, require_one_of, shown
from paddle_resnet.evaluation.metrics import evaluation_of, lowest_threshold, measure
from paddle_resnet.evaluation.scorer import NetworkScorer, Scorer, Views
from paddle_resnet.paths import expand_home
from paddle_resnet.results import Evaluation, accuracy_text
from paddle_resnet.system.portable import portable_name
from paddle_resnet.text_files import write_json
from paddle_resnet.training.data_manifest import FileList
from paddle_resnet.training.run_folder import Run

if TYPE_CHECKING:
    from paddle_resnet.data import Split
    from paddle_resnet.models import ImageClassifier
    from paddle_resnet.training.run_folder import Which

FEW_IMAGES = 50
MAX_BATCH = 256
MAX_PIXELS = MAX_BATCH * 64 * 64  # of a batch, to limit the memory

ProgressFn = Callable[[int, int], None]  # called with the number of images done and of all images


class NamedSplit(NamedTuple):
    """Images of a run's classes to measure: a split of the run, or other pictures, which have a name of their own."""

    name: str
    images: Split
    path: Path | None = None

    @property
    def title(self) -> str:
        return f"{self.name} split" if self.path is None else f"pictures of {shown(str(self.path), 200)}"


def evaluate(
    run: Run | str | Path,
    split: str | NamedSplit = "test",
    checkpoint: Which = "best",
    progress: ProgressFn | None = None,
    *,
    data: str | Path | None = None,
) -> Evaluation:
    """Measure the run's network on a split or other pictures; write the metrics, and the best checkpoint's plots.

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
        split: "train", "validation" or "test", or what `other_pictures` returns; no split is augmented here.
        checkpoint: "best" (by validation) or "last".
        progress: called with the number of images done and of all images.
        data: other pictures instead of a split: a folder of class folders, or a list.

    Raises:
        UsageError: the run has no such split or checkpoint, or the other pictures are not of its classes.
    """
    from paddle_resnet.evaluation import run_plots

    run = Run.of(run)
    run.metrics()  # a damaged file, as a damaged history, is an error before anything is written
    run.history()
    network = run.load_network(checkpoint)
    if data is not None:
        split = other_pictures(run, expand_home(data))
    split = split if isinstance(split, NamedSplit) else split_of(run, split)
    evaluation = measure_split(run, network_scorer(run, network), split, progress)
    if not distributed.is_main_process():
        return evaluation
    warn_of_few_images(split, evaluation)
    if split.name == "test" and run.splits().test is run.splits().validation:
        logger.warning("warning: there is no test split: these are the validation images, which chose the best epoch")
    origin: dict[str, Any] = {"checkpoint": checkpoint}
    if split.path is not None:
        origin["data"] = str(split.path)
    details = {
        "split": split.name,
        **origin,
        **evaluation.summary(),
        "classes": list(evaluation.classes),
        "per_class": [asdict(result) for result in evaluation.per_class],
        "confusion": evaluation.confusion_counts().tolist(),
        "calibration": {name: values.tolist() for name, values in vars(evaluation.calibration).items()},
    }
    write_json(details_path(run, split.name, checkpoint), details)
    if checkpoint == "best":
        run_plots.draw_history_plot(run)
        _show(run, split, evaluation, run_plots.SPLIT_PLOTS, network)
    run.update_metrics(metrics_section(split.name, checkpoint), evaluation.summary() | origin)
    return evaluation


def split_of(run: Run, name: str) -> NamedSplit:
    """Return a split of the run; raise `UsageError` if there is none of that name or it has no images."""
    require_one_of("split", name, SPLIT_NAMES)
    split = NamedSplit(name, getattr(run.splits(), name))
    if len(split.images) == 0:
        raise UsageError(f"{run.path}: the {name} split is empty; there is nothing to measure")
    return split


def other_pictures(run: Run, path: Path) -> NamedSplit:
    """Return other pictures of some of the run's classes (`open_labelled`); the run's own images are not needed.

    They are named ``data_<name>``, or ``data_<name>_2`` if others of that name were measured before, by any checkpoint
    or the exported model. A warning counts those that the run was trained on.
    """
    path = path.resolve()
    images = open_labelled(path, run.config.data, resize_size(run.config.data), run.classes())
    report_left_out([images])
    if run.manifest is not None and (trained := run.manifest.files):
        used = {*trained["train"].contents(), *trained["validation"].contents()}
        if seen := sum(file in used for file in FileList.of(images, all_checksums=True).contents()):
            these = counted(len(images), "picture")
            logger.warning("warning: %s: the run was trained on %d of these %s, or chosen by them", path, seen, these)
    others = [name for name, section in run.metrics().items() if section.get("data", str(path)) != str(path)]
    first = name = f"data_{portable_name(path.stem)}"
    number = 1
    while any(_is_section_of(name, other) for other in others):
        number += 1
        name = f"{first}_{number}"
    return NamedSplit(name, images, path)


def _is_section_of(split: str, section: str) -> bool:
    """Return whether a section of `metrics.json` may be of a split of that name, whatever was measured on it."""
    name = re.escape(split)
    return re.fullmatch(rf"(evaluation|last)_{name}|exported_{name}(_[a-z]+\d+)?", section) is not None


def choose_threshold(run: Run, evaluation: Evaluation, accuracy: float) -> dict[str, Any]:
    """Choose `lowest_threshold` by the best checkpoint's validation images; write it to the run, for its next export.

    Returns:
        Section ``threshold`` of `metrics.json`: the threshold, images kept, those right among them, and all images.

    Raises:
        UsageError: no threshold reaches that accuracy.
    """
    threshold = lowest_threshold(evaluation.scores, evaluation.labels, accuracy)
    if threshold is None:
        raise UsageError(f"--choose-threshold {accuracy:g}: no threshold reaches this accuracy; ask for a lower one")
    kept = evaluation.scores.max(axis=1) >= threshold
    right = int((kept & (evaluation.predicted == evaluation.labels)).sum())
    counts = {"accuracy": accuracy, "kept": int(kept.sum()), "right": right, "images": evaluation.images}
    run.update_metrics("threshold", section := {"threshold": threshold, **counts, "checkpoint": "best"})
    return section


def show_validation_mistakes(run: Run) -> None:
    """Plot the most confident mistakes of the best checkpoint on the validation split, also for VisualDL.

    A recipe may be changed by these. A recipe changed by mistakes of the test split gets too good a test accuracy.

    Raises:
        UsageError: the run has no such checkpoint.
    """
    split = split_of(run, "validation")
    evaluation = measure_split(run, network_scorer(run, run.load_network("best")), split)
    if distributed.is_main_process():
        _show(run, split, evaluation, ["mistakes"])


def _show(
    run: Run, split: NamedSplit, evaluation: Evaluation, plots: Sequence[str], network: ImageClassifier | None = None
) -> None:
    """Draw the plots into the run's folder and for VisualDL, there with the embeddings of a given `network`."""
    from PIL import Image

    from paddle_resnet.evaluation import run_plots
    from paddle_resnet.tracking.evaluation_log import log_evaluation

    images = {}
    for plot, path in run_plots.draw_split_plots(run, *split[:2], evaluation, plots).items():
        with Image.open(path) as picture:
            images[plot.replace("_", " ")] = np.array(picture.convert("RGB"))
    embeddings = None if network is None else run_plots.embeddings_of(network, run, split.images, evaluation)
    if "visualdl" in run.config.tracking:
        log_evaluation(run.vdl_path / metrics_section(split.name), images, embeddings)


def network_scorer(run: Run, network: ImageClassifier) -> NetworkScorer:
    """Return the scorer of a run's network, which averages, and uses oneDNN on a CPU, as the run's config says."""
    if run.config.train.cpu_backend != "native":
        onednn.accelerate_evaluation(network)
    return NetworkScorer(network, run.normalize(), Views.of_config(run.config.evaluation))


def measure_split(
    run: Run, scorer: Scorer, split: str | NamedSplit = "test", progress: ProgressFn | None = None
) -> Evaluation:
    """Measure `scorer` on a whole split of the run's data, or on other pictures, and write nothing.

    Each rank of a distributed run scores its share of the images; all ranks return the whole evaluation.

    Raises:
        UsageError: there is no split of that name.
    """
    from paddle_resnet.data.loader import rank_batches, read_batches

    images = (split if isinstance(split, NamedSplit) else split_of(run, split)).images
    size = run.config.data.image_size
    ranks = distributed.joined()
    parts = (ranks.rank, ranks.world_size) if len(images) >= ranks.world_size else (0, 1)
    batch_size = max(8, min(MAX_BATCH, MAX_PIXELS // size**2))
    chosen = rank_batches(len(images), batch_size, *parts)
    count = None if progress is None else lambda done: progress(done, len(images))
    evaluation = measure(scorer, read_batches(images, chosen, resize_size(run.config.data), size), run.classes(), count)
    return evaluation if parts == (0, 1) else _gathered(evaluation, np.concatenate(chosen), images.labels)


def _gathered(own: Evaluation, places: np.ndarray, labels: np.ndarray) -> Evaluation:
    """Combine this rank's scores, of the images at `places`, with those of the other ranks."""
    scores = np.zeros((len(labels), len(own.classes)))
    scores[places] = own.scores
    distributed.barrier()
    scores = distributed.all_reduce_sum(scores).astype(np.float32)
    single_view_top1 = own.single_view_top1
    if single_view_top1 is not None:
        single_view_top1 = float(distributed.all_reduce_sum([single_view_top1 * own.images]).round()[0] / len(labels))
    return replace(evaluation_of(scores, labels, own.classes, own.seconds), single_view_top1=single_view_top1)


def warn_of_few_images(split: NamedSplit, evaluation: Evaluation) -> None:
    """Warn how uncertain top-1 on a small split is."""
    if evaluation.images < FEW_IMAGES:
        images, top1 = counted(evaluation.images, "image"), accuracy_text(evaluation.top1, evaluation.images)
        logger.warning("warning: the %s: %s only: top-1 %s", split.title, images, top1)


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
