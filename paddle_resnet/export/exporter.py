"""Exporting a run: raw pixels in, probabilities out; checked against the trained network before it replaces any."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import paddle

from paddle_resnet import environment, onednn, runtime
from paddle_resnet.console import logger
from paddle_resnet.data.datasets.open_splits import resize_size
from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.evaluation import NetworkScorer
from paddle_resnet.export.accuracy import calibration_batches, compare, measured_batches, measured_images
from paddle_resnet.export.onnx import require_onnx, write_onnx_program
from paddle_resnet.export.program import PROGRAM_SUFFIXES, save_program
from paddle_resnet.export.quantization import quantize
from paddle_resnet.files import scratch_folder, write_folder
from paddle_resnet.inference.inference_config import (
    FILE_NAME,
    InferenceConfig,
    InputConfig,
    ModelFile,
    ModelFiles,
    NormalizationConfig,
    PrecisionMetrics,
    TestMetrics,
)
from paddle_resnet.inference.options import BackendName, Precision
from paddle_resnet.inference.predictor import Predictor

if TYPE_CHECKING:
    from paddle_resnet.evaluation.report import ProgressFn
    from paddle_resnet.training.run_folder import RunFolder, Which


STEM = "model"
ONNX, ONNX_INT8 = "model.onnx", "model_int8.onnx"
OWN_FILES = {FILE_NAME, ONNX, ONNX_INT8, *(STEM + suffix for suffix in (*PROGRAM_SUFFIXES, ".pdiparams"))}
OWN_FILES |= {f"{STEM}.pdiparams.info"}
CHECKED_IMAGES = 64
TOLERANCE = 1e-4  # of a probability; oneDNN's float32 differs from the dynamic graph's by about 3e-5
BATCH = 32
ONNX_PACKAGES = ("paddle2onnx", "onnx", "onnxruntime")

PrecisionTable = dict[Precision, dict[BackendName, PrecisionMetrics | None]]


@dataclass(frozen=True)
class ExportReport:
    """What was exported, and how it compared: the largest difference of a probability over `images` images.

    They are of the test split, or where no data were asked for, drawn at random: `drawn`.
    """

    path: Path
    max_difference: float
    images: int
    drawn: bool
    precisions: PrecisionTable

    @property
    def files(self) -> list[Path]:
        """The exported files, by name."""
        return sorted(path for path in self.path.iterdir() if path.name in OWN_FILES)


def export_run(
    run: RunFolder,
    checkpoint: Which = "best",
    *,
    precisions: Sequence[Precision] = (),
    onnx: bool = False,
    batch: int | None = None,
    images: int | None = None,
    progress: ProgressFn | None = None,
) -> ExportReport:
    """Export a run's network to its `inference/`, in the format of the running Paddle, and check it on real images.

    An earlier export is replaced only when the new one has passed; files of the user's own beside it are kept.

    Args:
        run: the run's folder.
        checkpoint: "best" (by validation) or "last".
        precisions: what is offered besides fp32. "int8" has a file of its own, quantised for ONNX Runtime with images
            of the validation split; the others are properties of the predictor, here to be measured.
        onnx: write an ONNX file too; int8 does so in any case.
        batch: a fixed number of images at once; None: any number.
        images: measure top-1 and agreement on this many images of the test split; None: on all, 0: on none, and the
            run's data are not needed, but for int8: the check is made with random pictures.
        progress: called with images measured and all images.

    Raises:
        UsageError: the run has no such checkpoint, its data are not what it was trained on, or a package that ONNX
            needs is missing.
        RunFailure: the exported model answers differently from the network, or cannot be written.
    """
    onnx = onnx or "int8" in precisions
    if onnx:
        require_onnx()
    scorer = NetworkScorer(run.load_network(checkpoint), run.normalize(), flip=run.config.evaluation.flip)
    if images != 0 or "int8" in precisions:
        run.splits()  # before anything is written
    offered = _offered(precisions, onnx)
    destination = run.inference_path.resolve()
    reports: list[ExportReport] = []

    def write(folder: Path) -> None:
        files = _write_models(run, checkpoint, folder, batch, onnx, "int8" in precisions)
        config = _describe(run, checkpoint, files, batch, offered)
        config.save(folder)
        pixels = _drawn(run) if images == 0 else next(measured_batches(run, CHECKED_IMAGES))[0]
        difference = _difference(run, scorer, folder, offered["fp32"], pixels)
        figures = _measure(run, scorer, folder, offered, images, progress)
        config.model_copy(update={"precisions": figures}).save(folder)
        _keep_other_files(destination, folder)
        reports.append(ExportReport(run.inference_path, difference, len(pixels), images == 0, figures))

    write_folder(destination, write)
    return reports[0]


def _offered(precisions: Sequence[Precision], onnx: bool) -> PrecisionTable:
    offered: PrecisionTable = {"fp32": {"paddle": None, "onnxruntime": None} if onnx else {"paddle": None}}
    for precision in precisions:
        if precision != "fp32":
            offered[precision] = {"onnxruntime" if precision == "int8" else "paddle": None}
    return offered


def _write_models(
    run: RunFolder, checkpoint: Which, folder: Path, batch: int | None, onnx: bool, int8: bool
) -> ModelFiles:
    program, parameters = save_program(run, checkpoint, folder / STEM, batch)
    if onnx:
        write_onnx_program(program, parameters, folder / ONNX, _about(run))
    if int8:
        with scratch_folder() as temporary:
            whole = temporary / ONNX
            saved = save_program(run, checkpoint, temporary / STEM, batch, one_level=True)
            write_onnx_program(*saved, whole, _about(run))
            quantize(whole, folder / ONNX_INT8, calibration_batches(run, batch or BATCH))
    return ModelFiles(
        program=ModelFile.of(program),
        parameters=ModelFile.of(parameters),
        onnx=ModelFile.of(folder / ONNX) if onnx else None,
        onnx_int8=ModelFile.of(folder / ONNX_INT8) if int8 else None,
    )


def _about(run: RunFolder) -> dict[str, str]:
    """What an ONNX file says of itself: enough to classify a picture without `inference.yml`."""
    return {
        "classes": json.dumps(run.classes(), ensure_ascii=False),
        "image_size": str(run.config.data.image_size),
        "resize": str(resize_size(run.config.data)),
    }


def _describe(
    run: RunFolder, checkpoint: Which, files: ModelFiles, batch: int | None, offered: PrecisionTable
) -> InferenceConfig:
    normalize, resize = run.normalize(), resize_size(run.config.data)
    test = run.metrics().get("test", {})
    return InferenceConfig(
        model=run.config.model.name,
        classes=tuple(run.classes()),
        input=InputConfig(image_size=run.config.data.image_size, resize=resize, batch=batch),
        flip=run.config.evaluation.flip,
        normalization=NormalizationConfig.model_validate({"mean": normalize.mean, "std": normalize.std}),
        versions=environment.describe("paddle_resnet", "paddle")
        | environment.package_versions(*(ONNX_PACKAGES if files.onnx else ())),
        files=files,
        test=TestMetrics(top1=test["top1"], images=test["images"]) if test.get("checkpoint") == checkpoint else None,
        precisions=offered,
        exported_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _difference(
    run: RunFolder,
    scorer: NetworkScorer,
    folder: Path,
    backends: dict[BackendName, PrecisionMetrics | None],
    pixels: np.ndarray,
) -> float:
    """Return the largest difference of a probability, of any backend from the network, on uint8 `[n, S, S, 3]`.

    A difference of at most `TOLERANCE` also means the same class for every image whose two best probabilities
    are further apart than twice that.
    """
    expected = scorer.scores(pixels)
    largest = 0.0
    for backend in backends:
        with _predictor(folder, "fp32", backend) as predictor:
            difference = float(np.abs(predictor.scores(pixels) - expected).max())
        if not difference <= TOLERANCE:
            raise RunFailure(
                f"{run.inference_path}: not exported: in {backend} the exported model's probabilities differ from the "
                f"network's by {difference:.2g} (at most {TOLERANCE:g} allowed); an earlier export is left as it was"
            )
        largest = max(largest, difference)
    return largest


def _drawn(run: RunFolder) -> np.ndarray:
    """Pictures to compare answers on where there are no data: noise around colours, uint8 `[n, S, S, 3]`."""
    generator, size = np.random.default_rng(0), run.config.data.image_size
    colours = generator.integers(0, 256, (CHECKED_IMAGES, 1, 1, 3))
    noise = generator.normal(0, 64, (CHECKED_IMAGES, size, size, 3))
    return np.clip(colours + noise, 0, 255).astype(np.uint8)


def _measure(
    run: RunFolder,
    scorer: NetworkScorer,
    folder: Path,
    offered: PrecisionTable,
    images: int | None,
    progress: ProgressFn | None,
) -> PrecisionTable:
    """Give what is offered its figures, where it can be used on this machine."""
    if images == 0:
        return offered
    count = measured_images(run, images)
    if onednn.unavailable_reason() is None:
        with suppress(TypeError):  # a layer that has no counterpart there
            onednn.accelerate(scorer.classifier.network)
    with ExitStack() as loaded:
        predictors = {}
        for precision, backends in offered.items():
            for backend in backends:
                try:
                    predictors[precision, backend] = loaded.enter_context(_predictor(folder, precision, backend))
                except UsageError as error:
                    logger.info("%s is not measured here: %s", precision, error)
        report = None if progress is None else lambda done: progress(done, count)
        figures = compare(scorer, predictors, measured_batches(run, BATCH, count), report)
    return {
        precision: {backend: figures.get((precision, backend)) for backend in backends}
        for precision, backends in offered.items()
    }


def _predictor(folder: Path, precision: Precision, backend: BackendName) -> Predictor:
    device = str(paddle.device.get_device())
    try:
        return Predictor(folder, "cpu" if backend == "onnxruntime" else device, precision, backend=backend)
    finally:
        runtime.select_device(device)


def _keep_other_files(earlier: Path, folder: Path) -> None:
    """Copy what a user has put beside an earlier export into the new one."""
    for item in earlier.iterdir() if earlier.is_dir() else ():
        if item.name in OWN_FILES:
            continue
        if item.is_dir():
            shutil.copytree(item, folder / item.name, symlinks=True)
        else:
            shutil.copy2(item, folder / item.name, follow_symlinks=False)
