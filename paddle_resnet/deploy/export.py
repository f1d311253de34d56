"""Exporting a run: raw pixels in, probabilities out; checked against the trained network before it replaces any."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import paddle
from paddle import nn
from paddle.static import InputSpec

from paddle_resnet.data import uint8_batches
from paddle_resnet.deploy.inference_config import (
    FILE_NAME,
    InferenceConfig,
    InputConfig,
    ModelFile,
    NormalizationConfig,
    TestFigures,
)
from paddle_resnet.deploy.predictor import Predictor
from paddle_resnet.errors import RunFailure
from paddle_resnet.evaluation import NetworkScorer
from paddle_resnet.evaluation.classifier import Classifier
from paddle_resnet.files import md5_of, write_folder

if TYPE_CHECKING:
    from paddle_resnet.training.run_folder import RunFolder, Which

STEM = "model"
OWN_FILES = {FILE_NAME, *(STEM + suffix for suffix in (".json", ".pdmodel", ".pdiparams", ".pdiparams.info"))}
CHECKED_IMAGES = 64
TOLERANCE = 1e-4  # of a probability; oneDNN's float32 differs from the dynamic graph's by about 3e-5


@dataclass(frozen=True)
class ExportReport:
    """What was exported, and how it compared: the largest difference of a probability over `images` real images."""

    path: Path
    max_difference: float
    images: int

    @property
    def files(self) -> list[Path]:
        """The exported files, by name."""
        return sorted(path for path in self.path.iterdir() if path.name in OWN_FILES)


def export_run(run: RunFolder, checkpoint: Which = "best") -> ExportReport:
    """Export a run's network to its `inference/`, in the format of the running Paddle, and check it on real images.

    An earlier export is replaced only when the new one has passed; files of the user's own beside it are kept.

    Raises:
        UsageError: the run has no such checkpoint.
        RunFailure: the exported model answers differently from the network, or cannot be written.
    """
    network = run.load_network(checkpoint)
    destination = run.inference_path.resolve()
    checked: list[tuple[float, int]] = []

    def write(folder: Path) -> None:
        _save(run, network, checkpoint, folder)
        checked.append(_difference(run, network, folder))
        _keep_other_files(destination, folder)

    write_folder(destination, write)
    return ExportReport(run.inference_path, *checked[0])


def _save(run: RunFolder, network: nn.Layer, checkpoint: Which, folder: Path) -> None:
    size = run.config.data.image_size
    layer = Classifier(run.normalize(), network, flip=run.config.evaluation.flip)
    layer.eval()
    with _quiet_stderr():
        paddle.jit.save(
            layer, str(folder / STEM), input_spec=[InputSpec([None, size, size, 3], dtype="uint8", name="images")]
        )
    _describe(run, checkpoint, folder).save(folder)


def _describe(run: RunFolder, checkpoint: Which, folder: Path) -> InferenceConfig:
    program = next(path for path in folder.iterdir() if path.suffix in (".json", ".pdmodel"))
    parameters = folder / f"{STEM}.pdiparams"
    splits, normalize = run.splits(), run.normalize()
    test = run.metrics().get("test", {})
    return InferenceConfig(
        model=run.config.model.name,
        classes=tuple(run.classes()),
        input=InputConfig(image_size=run.config.data.image_size, resize=splits.resize),
        flip=run.config.evaluation.flip,
        normalization=NormalizationConfig.model_validate({"mean": normalize.mean, "std": normalize.std}),
        paddle=paddle.__version__,
        program=ModelFile(name=program.name, md5=md5_of(program)),
        parameters=ModelFile(name=parameters.name, md5=md5_of(parameters)),
        test=TestFigures(top1=test["top1"], images=test["images"]) if test.get("checkpoint") == checkpoint else None,
        exported_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _difference(run: RunFolder, network: nn.Layer, folder: Path) -> tuple[float, int]:
    """Compare exported and dynamic probabilities on real images; return the largest difference and how many images.

    A difference of at most `TOLERANCE` also means the same class for every image whose two best probabilities
    are further apart than twice that.
    """
    splits, size = run.splits(), run.config.data.image_size
    split = splits.test if len(splits.test) else splits.validation
    images, _ = next(iter(uint8_batches(split, CHECKED_IMAGES, splits.resize, size)))
    expected = NetworkScorer(network, run.normalize(), flip=run.config.evaluation.flip).scores(images)
    with Predictor(folder, device=str(paddle.device.get_device())) as predictor:
        difference = float(np.abs(predictor.scores(images) - expected).max())
    if not difference <= TOLERANCE:
        raise RunFailure(
            f"{run.inference_path}: not exported: the exported model's probabilities differ from the network's by "
            f"{difference:.2g} (at most {TOLERANCE:g} allowed); an earlier export is left as it was"
        )
    return difference, len(images)


def _keep_other_files(earlier: Path, folder: Path) -> None:
    """Copy what a user has put beside an earlier export into the new one."""
    for item in earlier.iterdir() if earlier.is_dir() else ():
        if item.name in OWN_FILES:
            continue
        if item.is_dir():
            shutil.copytree(item, folder / item.name, symlinks=True)
        else:
            shutil.copy2(item, folder / item.name, follow_symlinks=False)


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep the warnings that Paddle's C++ prints while it traces a graph from the terminal; show them if it fails."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(terminal, said.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
