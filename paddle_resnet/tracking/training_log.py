"""What a training writes for VisualDL and TensorBoard: curves, histograms, images, its config and its hyper-parameters.

Training and validation are two runs (``vdl/train``, ``vdl/validation``; ``tensorboard/train``, ...) with the same tags,
so that both are drawn in one chart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from paddle_resnet.config import Config
from paddle_resnet.console import logger
from paddle_resnet.results import EpochRecord
from paddle_resnet.tracking.records import open_records

BUCKETS = 30  # of a histogram. VisualDL's default of 10 hides the shape near 0.
BEST = ["selected/top-1", "selected/loss", "selected/epoch"]
"""Metrics beside the hyper-parameters, of the best epoch by validation. The test split is left out: once a recipe is
chosen by it, it no longer measures that recipe."""

COMPARED = (
    *("model.name", "model.pretrained", "model.stem", "data.source", "data.image_size"),
    *("train.optimizer", "train.learning_rate", "train.epochs", "train.batch_size", "train.accumulate", "train.seed"),
    *("train.momentum", "train.weight_decay", "train.schedule", "train.warmup", "train.label_smoothing", "train.ema"),
    *("train.clip_norm", "train.layer_decay", "train.freeze_epochs", "train.first_size"),
    *("augment.pad", "augment.scale", "augment.flip", "augment.cutout", "augment.erase", "augment.trivial_augment"),
    *("augment.mixup", "augment.cutmix", "model.dropout", "model.stochastic_depth"),
)
"""Config keys on the page of hyper-parameters: those in which recipes differ. The whole config is a text record."""


class VisualDLLog:
    """Writes the VisualDL files of one run. Epochs count from 1, steps from 0."""

    state_name = "VisualDLLog"
    state_is_optional = True

    def __init__(self, folder: Path) -> None:
        self._train = self._open(folder / "train")
        self._validation = self._open(folder / "validation")

    def _open(self, folder: Path) -> Any:
        return open_records(folder)

    def state_dict(self) -> dict[str, int]:
        """Return the sizes of the files, to which a resumed run cuts them back."""
        return {"train": self._train.file.size(), "validation": self._validation.file.size()}

    def set_state_dict(self, state: dict[str, int]) -> None:
        for part, writer in (("train", self._train), ("validation", self._validation)):
            if not writer.file.cut(state[part]):
                logger.info("%s: the curves of earlier steps are missing", writer.file.get_filename())

    def config(self, text: str) -> None:
        self._train.add_text("config", f"```yaml\n{text}\n```", 0)

    def images(self, grid: np.ndarray) -> None:
        """Show a grid of augmented training images, uint8 ``[H, W, 3]``."""
        self._train.add_image("augmented training images", grid, 0)

    def step(self, step: int, loss: float, learning_rate: float) -> None:
        """Log the training loss (label smoothing included) and the learning rate of one step."""
        self._train.add_scalar("step/loss", loss, step)
        self._train.add_scalar("step/learning rate", learning_rate, step)

    def histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        """Log the distribution of the finite ones among `values`, which have any shape."""
        finite = values[np.isfinite(values)]
        if finite.size:
            # In float32, numpy finds no bins between values that differ in their last digits.
            self._train.add_histogram(tag, finite.astype(np.float64), step, buckets=BUCKETS)

    def epoch(self, record: EpochRecord) -> None:
        self._train.add_scalar("epoch/loss", record.train_loss, record.epoch)
        self._train.add_scalar("epoch/top-1", record.train_top1, record.epoch)
        self._train.add_scalar("epoch/learning rate", record.learning_rate, record.epoch)
        self._train.add_scalar("epoch/images per second", record.images_per_second, record.epoch)
        self._validation.add_scalar("epoch/loss", record.validation_loss, record.epoch)
        self._validation.add_scalar("epoch/top-1", record.validation_top1, record.epoch)

    def hyper_parameters(self, config: Config) -> None:
        """Add the run to VisualDL's page of hyper-parameters, after the first epoch and before its `best`.

        The page needs them in the file of the metrics (`BEST`).
        """
        self._validation.add_hparams(hyper_parameters(config), BEST)

    def best(self, epoch: int, record: EpochRecord) -> None:
        """Log the record that is best by validation after `epoch` epochs."""
        for tag, value in zip(BEST, (record.validation_top1, record.validation_loss, record.epoch), strict=True):
            self._validation.add_scalar(tag, value, epoch)

    def close(self) -> None:
        self._train.close()
        self._validation.close()


class TensorBoardLog(VisualDLLog):
    """Writes the same to event files of TensorBoard."""

    state_name = "TensorBoardLog"

    def _open(self, folder: Path) -> Any:
        from paddle_resnet.tracking.event_file import EventWriter  # the package need not be installed

        return EventWriter(folder)


LOGS: Mapping[str, type[VisualDLLog]] = {"visualdl": VisualDLLog, "tensorboard": TensorBoardLog}
"""By the names in the config's `tracking`."""


def hyper_parameters(config: Config) -> dict[str, float | str]:
    """Return the values of the keys `COMPARED`, named as ``train/learning_rate``: a dot makes an empty column there.

    The values of one key have one type in all runs: numbers for keys that are always numbers, text for all others. A
    key that may be null is text, as VisualDL has no such number.
    """
    values: dict[str, float | str] = {}
    for key in COMPARED:
        *groups, name = key.split(".")
        group = reduce(getattr, groups, config)
        kind, value = type(group).model_fields[name].annotation, getattr(group, name)
        if kind is int or kind is float:
            values[key.replace(".", "/")] = kind(value)
        else:
            values[key.replace(".", "/")] = value if isinstance(value, str) else json.dumps(value)
    return values


def image_grid(images: np.ndarray, columns: int = 8) -> np.ndarray:
    """Arrange uint8 images ``[N, S, S, 3]`` in rows as ``[H, W, 3]``; enlarge small ones to at least 64 pixels."""
    count = len(images) // columns * columns or len(images)
    columns = min(columns, count)
    factor = -(-64 // images.shape[1])
    enlarged = images[:count].repeat(factor, axis=1).repeat(factor, axis=2)
    framed = np.pad(enlarged, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    rows, side = count // columns, framed.shape[1]
    return framed.reshape(rows, columns, side, side, 3).swapaxes(1, 2).reshape(rows * side, columns * side, 3)
