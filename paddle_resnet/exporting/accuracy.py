"""The exported model compared with the trained network: difference of probabilities, top-1 and agreement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import numpy as np
import paddle

from paddle_resnet import onednn, runtime
from paddle_resnet.config import Config
from paddle_resnet.console import logger
from paddle_resnet.data import Normalize, Split, uint8_batches
from paddle_resnet.errors import RunFailure, UsageError, command
from paddle_resnet.evaluation import NetworkScorer, Scorer
from paddle_resnet.evaluation.report import ProgressFn
from paddle_resnet.evaluation.scorer import Views
from paddle_resnet.images import Indices, Pixels
from paddle_resnet.inference.inference_config import PrecisionMetrics
from paddle_resnet.inference.options import BackendName, Precision
from paddle_resnet.inference.predictor import Predictor
from paddle_resnet.models import create_configured_model, load_weights
from paddle_resnet.training.run_folder import Run

CHECKED_IMAGES = 64
BATCH = 32
TOLERANCE = 1e-4  # of a probability: oneDNN's float32 differs from the dynamic graph's by about 3e-5

PROBES, SAME_NETWORK = 8, 0.1
"""Random images, and the mean difference of probabilities on them. Reduced precision stays within it, other weights do
not."""

Key = TypeVar("Key")
PrecisionTable = dict[Precision, dict[BackendName, PrecisionMetrics | None]]
"""The exported precisions and their backends; None where nothing was measured."""


def check_export(
    run: Run, scorer: NetworkScorer, folder: Path, backends: Iterable[BackendName], pixels: Pixels
) -> float:
    """Return the largest difference between a float32 probability of an exported model and of the run's network.

    It is at most `TOLERANCE`, or there is a RunFailure. This also means the same class for every image whose two best
    probabilities are further apart than twice that.
    """
    expected = scorer.scores(pixels)
    differences = []
    for backend in backends:
        with _load(folder, "fp32", backend) as predictor:
            difference = float(np.abs(predictor.scores(pixels) - expected).max())
        if not difference <= TOLERANCE:
            raise RunFailure(
                f"{run.inference_path}: not exported: in {backend} the exported model's probabilities differ from the "
                f"network's by {difference:.2g} (at most {TOLERANCE:g} allowed); an earlier export is left as it was"
            )
        differences.append(difference)
    return max(differences)


def load_trained(predictor: Predictor) -> NetworkScorer:
    """Load the network that was exported from the run's folder around the model: it has gradients and features.

    The predictor's device becomes Paddle's current one. Raise a UsageError if there is no run, or its best checkpoint
    is not what was exported.
    """
    run = predictor.path.resolve().parent
    weights = run / "checkpoints" / "best" / "model.pdparams"
    if not weights.is_file():
        raise UsageError(
            f"{predictor.path}: the exported program gives probabilities only; for Grad-CAM and embeddings it has to "
            "lie in the folder of its run, beside config.yaml and checkpoints/best"
        )
    config, normalization = predictor.config, predictor.config.normalization
    runtime.select_device(predictor.device)
    network = create_configured_model(Config.load(run / "config.yaml").model, len(config.classes))
    load_weights(network, weights, new_head=False)
    network.eval()
    trained = NetworkScorer(network, Normalize(normalization.mean, normalization.std), Views(config.flip, config.shift))
    pixels = random_images(config.input.image_size)[:PROBES]
    difference = float(np.abs(trained.scores(pixels) - predictor.scores(pixels)).mean())
    if not difference <= SAME_NETWORK:
        raise UsageError(
            f"{run}: its best checkpoint is not what was exported (probabilities differ by {difference:.2g}); export "
            f"it again with {command('export', run)}"
        )
    return trained


def measure_precisions(
    run: Run,
    scorer: NetworkScorer,
    folder: Path,
    precisions: PrecisionTable,
    images: int | None,
    progress: ProgressFn | None,
) -> PrecisionTable:
    """Measure the `precisions` of an exported `folder` beside the run's network, which may be accelerated in place.

    They are measured on so many `images` of the test split (None: all), except those that this machine cannot run.
    `progress` is called with images measured and all images.
    """
    test = _test_split(run)
    count = len(test) if images is None else min(images, len(test))
    onednn.accelerate_evaluation(scorer.network)
    with ExitStack() as loaded:
        predictors = {}
        for precision, backends in precisions.items():
            for backend in backends:
                try:
                    predictors[precision, backend] = loaded.enter_context(_load(folder, precision, backend))
                except UsageError as error:
                    logger.info("%s is not measured here: %s", precision, error)
        report = None if progress is None else lambda done: progress(done, count)
        metrics = compare(scorer, predictors, test_batches(run, BATCH, count), report)
    return {
        precision: {backend: metrics.get((precision, backend)) for backend in backends}
        for precision, backends in precisions.items()
    }


def compare(
    trained: Scorer,
    exported: Mapping[Key, Scorer],
    batches: Iterable[tuple[Pixels, Indices]],
    progress: Callable[[int], None] | None = None,
) -> dict[Key, PrecisionMetrics]:
    """Return top-1 and agreement with the trained network; each batch is read once for all.

    `batches` are pairs of uint8 images `[n, S, S, 3]` and labels `[n]`, with at least one image. `progress` is called
    after each with the number of images so far.
    """
    correct, agreeing, images = dict.fromkeys(exported, 0), dict.fromkeys(exported, 0), 0
    for pixels, labels in batches:
        expected = trained.scores(pixels).argmax(axis=1)
        for key, scorer in exported.items():
            predicted = scorer.scores(pixels).argmax(axis=1)
            correct[key] += int((predicted == labels).sum())
            agreeing[key] += int((predicted == expected).sum())
        images += len(pixels)
        if progress is not None:
            progress(images)
    return {
        key: PrecisionMetrics(top1=correct[key] / images, agreement=agreeing[key] / images, images=images)
        for key in exported
    }


def test_batches(run: Run, batch: int, images: int) -> Iterator[tuple[Pixels, Indices]]:
    """Yield the first `images` of the test split as pixels, uint8 `[n, S, S, 3]`, and labels, int64 `[n]`."""
    for pixels, labels in uint8_batches(_test_split(run), batch, run.splits().resize, run.config.data.image_size):
        yield pixels[:images], labels[:images]
        images -= len(pixels)
        if images <= 0:
            return


def random_images(image_size: int) -> Pixels:
    """Return noise around random colours, uint8 `[n, S, S, 3]`, for a check without the run's data."""
    generator = np.random.default_rng(0)
    colours = generator.integers(0, 256, (CHECKED_IMAGES, 1, 1, 3))
    noise = generator.normal(0, 64, (CHECKED_IMAGES, image_size, image_size, 3))
    return np.clip(colours + noise, 0, 255).astype(np.uint8)


def _test_split(run: Run) -> Split:
    splits = run.splits()
    return splits.test if len(splits.test) else splits.validation


def _load(folder: Path, precision: Precision, backend: BackendName) -> Predictor:
    device = "cpu" if backend == "onnxruntime" else str(paddle.device.get_device())
    return Predictor(folder, device, precision, backend=backend)
