"""A run's network exported to its `inference/`: written, described, checked, measured, and put in place last."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from paddle_resnet import environment
from paddle_resnet.console import logger
from paddle_resnet.data.datasets.open_splits import resize_size
from paddle_resnet.errors import UsageError, require_count, require_one_of, shown
from paddle_resnet.evaluation.report import ProgressFn, network_scorer
from paddle_resnet.exporting import accuracy
from paddle_resnet.exporting.accuracy import PrecisionTable
from paddle_resnet.exporting.onnx import require_onnx, write_onnx_program
from paddle_resnet.exporting.program import PROGRAM_SUFFIXES, save_program
from paddle_resnet.exporting.quantization import calibration_batches, quantize, read_pictures
from paddle_resnet.files import scratch_folder, write_folder
from paddle_resnet.images import Pixels
from paddle_resnet.inference.inference_config import (
    FILE_NAME,
    InferenceConfig,
    InputConfig,
    ModelFile,
    ModelFiles,
    NormalizationConfig,
    TestMetrics,
)
from paddle_resnet.inference.options import PRECISIONS, Precision
from paddle_resnet.paths import expand_home
from paddle_resnet.training.run_folder import Run, Which

STEM = "model"
ONNX, ONNX_INT8 = "model.onnx", "model_int8.onnx"
SUFFIXES = (*PROGRAM_SUFFIXES, ".pdiparams", ".pdiparams.info")
OWN_FILES = {FILE_NAME, ONNX, ONNX_INT8, *(STEM + suffix for suffix in SUFFIXES)}
ONNX_PACKAGES = ("paddle2onnx", "onnx", "onnxruntime")


@dataclass(frozen=True)
class ExportReport:
    """An exported model, and how it compares with the trained network."""

    path: Path  # the exported folder
    max_difference: float  # the largest difference of a float32 probability
    images: int  # the number of images that this was checked on
    random: bool  # whether these were random images, instead of real ones
    precisions: PrecisionTable  # the exported precisions, with their metrics on the test split

    @property
    def files(self) -> list[Path]:
        """The exported files, by name."""
        return sorted(path for path in self.path.iterdir() if path.name in OWN_FILES)


def export(
    run: Run | str | Path,
    checkpoint: Which = "best",
    *,
    precisions: Sequence[Precision] = (),
    onnx: bool = False,
    batch: int | None = None,
    images: int | None = None,
    calibrate: str | Path | None = None,
    progress: ProgressFn | None = None,
) -> ExportReport:
    """Export a run's network to its `inference/`, in the format of the running Paddle, and check it on real images.

    An earlier export is replaced only when the new one has passed the check. The user's own files in it are kept.

        >>> import paddle_resnet
        >>> report = paddle_resnet.export("output/quickstart")
        >>> report.path.as_posix(), report.max_difference < 1e-4
        ('output/quickstart/inference', True)

    Args:
        run: the run, or its folder.
        checkpoint: "best" (by validation) or "last".
        precisions: those besides fp32. "int8" gets a file of its own, quantised for ONNX Runtime with images of the
            validation split. The others use the fp32 files, and are only measured here.
        onnx: write an ONNX file too; int8 does so in any case.
        batch: a fixed batch size; None: any.
        images: measure top-1 and agreement on this many images of the test split; None: on all; 0: on none. With 0
            the check uses random images, and only int8 needs the run's data.
        calibrate: a folder of other pictures, for int8 and the check.
        progress: called with images measured and all images.

    Raises:
        UsageError: the run has no such checkpoint, its data are not what it was trained on, or a package that ONNX
            needs is missing.
        RunFailure: the exported model's probabilities differ from the network's, or it cannot be written.
    """
    run = Run.of(run)
    if isinstance(precisions, str):
        raise UsageError(f"precisions: expected a list, such as {[precisions]}, got {shown(repr(precisions))}")
    for precision in precisions:
        require_one_of("precisions", precision, PRECISIONS)
    if batch is not None:
        require_count("batch", batch)
    if images != 0 and images is not None:
        require_count("images", images)
    onnx = onnx or "int8" in precisions
    if onnx:
        require_onnx()
    scorer = network_scorer(run, run.load_network(checkpoint))
    pictures = None if calibrate is None else read_pictures(expand_home(calibrate), run.config.data)
    if images != 0 or ("int8" in precisions and pictures is None):
        run.splits()  # fails, if it does, before anything is written
    table: PrecisionTable = {"fp32": {"paddle": None, "onnxruntime": None} if onnx else {"paddle": None}}
    for precision in precisions:
        if precision != "fp32":
            table[precision] = {"onnxruntime" if precision == "int8" else "paddle": None}
    destination = run.inference_path.resolve()

    def write(folder: Path) -> ExportReport:
        batches = calibration_batches(run, batch or accuracy.BATCH, pictures) if "int8" in precisions else None
        files = _write_models(run, checkpoint, folder, batch, onnx, batches)
        config = _describe(run, checkpoint, files, batch, table)
        config.save(folder)
        if pictures is not None:
            pixels = pictures[: accuracy.CHECKED_IMAGES]
        elif images != 0:
            pixels, _ = next(accuracy.test_batches(run, accuracy.CHECKED_IMAGES, accuracy.CHECKED_IMAGES))
        else:
            pixels = accuracy.random_images(run.config.data.image_size)
        difference = accuracy.check_export(run, scorer, folder, table["fp32"], pixels)
        measured = table if images == 0 else accuracy.measure_precisions(run, scorer, folder, table, images, progress)
        config.model_copy(update={"precisions": measured}).save(folder)
        if destination.is_dir():  # the user's own files in an earlier export
            shutil.copytree(destination, folder, symlinks=True, ignore=own_files, dirs_exist_ok=True)
        random = images == 0 and pictures is None
        return ExportReport(run.inference_path, difference, len(pixels), random, measured)

    def own_files(folder: str, names: list[str]) -> set[str]:
        return OWN_FILES if Path(folder) == destination else set()

    earlier = _onnx_files(destination)
    report = write_folder(destination, write)
    if gone := earlier - _onnx_files(destination):
        option = "--precision int8" if ONNX_INT8 in gone else "--onnx"
        names = " and ".join(sorted(gone))
        logger.warning("warning: the earlier export also had %s, now removed; write anew with %s", names, option)
    return report


def _onnx_files(folder: Path) -> set[str]:
    """Return the names of the optional files that an export has."""
    return {name for name in (ONNX, ONNX_INT8) if (folder / name).is_file()}


def _write_models(
    run: Run, checkpoint: Which, folder: Path, batch: int | None, onnx: bool, calibration: Iterator[Pixels] | None
) -> ModelFiles:
    metadata = {  # enough to classify a picture without `inference.yml`
        "classes": json.dumps(run.classes(), ensure_ascii=False),
        "image_size": str(run.config.data.image_size),
        "resize": str(resize_size(run.config.data)),
    }
    program, parameters = save_program(run, checkpoint, folder / STEM, batch)
    if onnx:
        write_onnx_program(program, parameters, folder / ONNX, metadata)
    if calibration is not None:
        with scratch_folder() as temporary:
            float32 = temporary / ONNX
            saved = save_program(run, checkpoint, temporary / STEM, batch, shared_mean=True)
            write_onnx_program(*saved, float32, metadata)
            quantize(float32, folder / ONNX_INT8, calibration)
    return ModelFiles(
        program=ModelFile.of(program),
        parameters=ModelFile.of(parameters),
        onnx=ModelFile.of(folder / ONNX) if onnx else None,
        onnx_int8=ModelFile.of(folder / ONNX_INT8) if calibration is not None else None,
    )


def _describe(
    run: Run, checkpoint: Which, files: ModelFiles, batch: int | None, precisions: PrecisionTable
) -> InferenceConfig:
    normalize, resize = run.normalize(), resize_size(run.config.data)
    test, threshold = (run.metrics().get(section, {}) for section in ("test", "threshold"))
    return InferenceConfig(
        model=run.config.model.name,
        classes=tuple(run.classes()),
        input=InputConfig(image_size=run.config.data.image_size, resize=resize, batch=batch),
        flip=run.config.evaluation.flip,
        shift=run.config.evaluation.shift,
        normalization=NormalizationConfig.model_validate({"mean": normalize.mean, "std": normalize.std}),
        versions=environment.describe("paddle_resnet", "paddle")
        | environment.package_versions(*(ONNX_PACKAGES if files.onnx else ())),
        files=files,
        test=TestMetrics(top1=test["top1"], images=test["images"]) if test.get("checkpoint") == checkpoint else None,
        threshold=threshold["threshold"] if threshold.get("checkpoint") == checkpoint else None,
        precisions=precisions,
        exported_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
