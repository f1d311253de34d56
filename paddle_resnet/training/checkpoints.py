"""Checkpoints ``last`` and ``best``: each a folder that is written aside, then renamed."""

from __future__ import annotations

from pathlib import Path

import paddle

from paddle_resnet.files import write_folder, write_json
from paddle_resnet.training.ema import MovingAverage
from paddle_resnet.training.run_folder import EpochRecord, RunFolder


class Checkpoints:
    """Saves ``last`` after each epoch, and ``best`` when validation top-1 rises (a tie goes to the lower loss).

    ``model.pdparams`` is what was validated. Where that is a moving average, ``last`` also has ``trained.pdparams``,
    the weights themselves: with these, the average and the optimizer's state, training could go on.
    """

    def __init__(self, run: RunFolder, average: MovingAverage | None = None) -> None:
        self._run = run
        self._average = average
        self.best: EpochRecord | None = None

    def save(self, model: paddle.Model, record: EpochRecord) -> None:
        """Save the epoch that has just been validated."""
        write_folder(
            self._run.checkpoint_path("last"), lambda folder: self._write(folder, model, record, training=True)
        )
        if self.best is None or record.rank > self.best.rank:
            self.best = record
            write_folder(
                self._run.checkpoint_path("best"), lambda folder: self._write(folder, model, record, training=False)
            )

    def _write(self, folder: Path, model: paddle.Model, record: EpochRecord, *, training: bool) -> None:
        paddle.save(model.network.state_dict(), str(folder / "model.pdparams"))
        if training:
            paddle.save(model._optimizer.state_dict(), str(folder / "optimizer.pdopt"))
            if self._average is not None:
                paddle.save(self._average.trained, str(folder / "trained.pdparams"))
        write_json(
            folder / "state.json",
            {
                "epoch": record.epoch,
                "model": self._run.config.model.name,
                "validation_loss": record.validation_loss,
                "validation_top1": record.validation_top1,
                "paddle": paddle.__version__,
                "averaged_steps": self._average.steps if self._average is not None else None,
            },
        )
