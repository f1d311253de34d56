"""What a training writes for VisualDL: curves, histograms, pictures, config and hyper-parameters.

Training and validation are two runs (``vdl/train``, ``vdl/validation``) with the same tags: VisualDL draws them in one
chart.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from paddle_resnet.console import logger
from paddle_resnet.results import EpochRecord
from paddle_resnet.tracking.records import open_records

BUCKETS = 30
"""Of a histogram; VisualDL's own 10 hide the shape of what is near 0."""

BEST = ["selected/top-1", "selected/loss", "selected/epoch"]
"""What the page of hyper-parameters shows beside them, of the best epoch by validation. The test split is not there:
what is chosen by it is no longer measured by it."""


class VisualDLLog:
    """Writes one run's VisualDL files; values by epoch count from 1, values by step from 0."""

    state_name = "VisualDLLog"

    def __init__(self, folder: Path) -> None:
        self._train = open_records(folder / "train")
        self._validation = open_records(folder / "validation")

    def state_dict(self) -> dict[str, int]:
        """The sizes of the files, which only grow."""
        return {"train": self._train.file.size(), "validation": self._validation.file.size()}

    def set_state_dict(self, state: dict[str, int]) -> None:
        """Forget what was logged later: those steps are done again."""
        for part, writer in (("train", self._train), ("validation", self._validation)):
            if not writer.file.cut(state[part]):
                logger.info("%s: curves of the steps before are missing", writer.file.get_filename())

    def config(self, text: str) -> None:
        """Show the resolved config as text."""
        self._train.add_text("config", f"```yaml\n{text}\n```", 0)

    def images(self, grid: np.ndarray) -> None:
        """Show a grid of augmented training images, uint8 ``[H, W, 3]``."""
        self._train.add_image("augmented training images", grid, 0)

    def step(self, step: int, loss: float, learning_rate: float) -> None:
        """Log one training step: the loss that is minimised (label smoothing included) and the learning rate."""
        self._train.add_scalar("step/loss", loss, step)
        self._train.add_scalar("step/learning rate", learning_rate, step)

    def rates(self, step: int, rates: Mapping[str, float]) -> None:
        """Log the learning rate of each part of the network at one training step."""
        for part, rate in rates.items():
            self._train.add_scalar(f"learning rate/{part}", rate, step)

    def histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        """Log how `values`, of any shape, are distributed; those that are NaN or infinite are left out."""
        finite = values[np.isfinite(values)]
        if finite.size:
            # In float32, numpy finds no bins between values that differ in their last digits.
            self._train.add_histogram(tag, finite.astype(np.float64), step, buckets=BUCKETS)

    def hyper_parameters(self, values: Mapping[str, float | str]) -> None:
        """Give the run its line on VisualDL's page of hyper-parameters; `best` gives the figures beside them.

        They stand in the file of those figures: VisualDL looks for them nowhere else.
        """
        self._validation.add_hparams(dict(values), BEST)

    def best(self, epoch: int, record: EpochRecord) -> None:
        """Log which record is the best by validation after `epoch` epochs."""
        for tag, value in zip(BEST, (record.validation_top1, record.validation_loss, record.epoch), strict=True):
            self._validation.add_scalar(tag, value, epoch)

    def epoch(self, record: EpochRecord) -> None:
        """Log an epoch's means."""
        self._train.add_scalar("epoch/loss", record.train_loss, record.epoch)
        self._train.add_scalar("epoch/top-1", record.train_top1, record.epoch)
        self._train.add_scalar("epoch/learning rate", record.learning_rate, record.epoch)
        self._train.add_scalar("epoch/images per second", record.images_per_second, record.epoch)
        self._validation.add_scalar("epoch/loss", record.validation_loss, record.epoch)
        self._validation.add_scalar("epoch/top-1", record.validation_top1, record.epoch)

    def close(self) -> None:
        """Write what is still held in memory."""
        self._train.close()
        self._validation.close()


def image_grid(images: np.ndarray, columns: int = 8) -> np.ndarray:
    """Lay uint8 images ``[N, S, S, 3]`` out in rows, small ones enlarged to at least 64 pixels; ``[H, W, 3]``."""
    count = len(images) // columns * columns or len(images)
    columns = min(columns, count)
    enlarged = images[:count].repeat(-(-64 // images.shape[1]), axis=1).repeat(-(-64 // images.shape[1]), axis=2)
    framed = np.pad(enlarged, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    rows, side = count // columns, framed.shape[1]
    return framed.reshape(rows, columns, side, side, 3).swapaxes(1, 2).reshape(rows * side, columns * side, 3)
