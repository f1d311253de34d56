"""Checkpoints ``last`` and ``best``: each a folder that is written aside, then renamed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.callbacks import Callback

from paddle_resnet import distributed, paddle_compat
from paddle_resnet.errors import RunFailure
from paddle_resnet.files import md5_of, write_folder, write_json
from paddle_resnet.results import EpochRecord
from paddle_resnet.training.callback_runner import BEGINNING, Position, collect_states
from paddle_resnet.training.callbacks.recording import Recorder
from paddle_resnet.training.optim.ema import MovingAverage
from paddle_resnet.training.run_folder import RunFolder

Values = dict[str, Any]


class Checkpoints(Callback):
    """Saves ``last``, from which a stopped run goes on, and ``best`` when validation top-1 rises (ties: a lower loss).

    ``last`` is written after each epoch, and within it every so many minutes or steps. It stands behind all callbacks
    whose states it saves. ``model.pdparams`` is what is evaluated. Where that is a moving average, ``last`` also has
    ``trained.pdparams``, the weights themselves. Of several processes, which all have the same, the first one writes.
    """

    def __init__(
        self,
        run: RunFolder,
        recorder: Recorder,
        parts: Sequence[object],
        average: MovingAverage | None = None,
        about: Values | None = None,
        start: Position = BEGINNING,
    ) -> None:
        """Prepare to save `run`.

        Args:
            run: its folder; its config says how often.
            recorder: of the epochs.
            parts: what may have a state to be saved (`course.Stateful`).
            average: what is evaluated in place of the weights.
            about: what else to write down: on what the run is trained.
            start: where the run stands.
        """
        super().__init__()
        self._run = run
        self._recorder = recorder
        self._parts = parts
        self._average = average
        self._about = about or {}
        self._position = self._saved_at = start
        self._saved = time.monotonic()

    def on_train_batch_end(self, step: int, logs: Values | None = None) -> None:
        """Save if it is time to."""
        self._position = Position(self._position.epoch, step + 1)
        train = self._run.config.train
        # The processes' clocks differ, and all have to save together.
        minutes = distributed.all_reduce_max((time.monotonic() - self._saved) / 60)
        if minutes >= train.checkpoint_minutes or (
            train.checkpoint_steps is not None and (step + 1) % train.checkpoint_steps == 0
        ):
            self.save()

    def on_eval_end(self, logs: Values | None = None) -> None:
        """Save the epoch that has just been validated."""
        self._position = Position(self._position.epoch + 1, 0)
        record = self._recorder.records[-1]
        if self._recorder.best is record and distributed.is_main_process():
            write_folder(self._run.checkpoint_path("best"), lambda folder: self._write_evaluated(folder, record))
        self.save()

    def save(self) -> None:
        """Save ``last`` as of now, between two steps, unless it is there already.

        Raises:
            RunFailure: a weight is NaN or infinite, or the folder cannot be written; the earlier one stays.
        """
        if self._saved_at == self._position:
            return
        self._require_finite()
        if distributed.is_main_process():
            write_folder(self._run.checkpoint_path("last"), self._write_last)
        distributed.barrier()
        self._saved_at = self._position
        self._saved = time.monotonic()

    def _write_last(self, folder: Path) -> None:
        epoch, step = self._position
        self._write_weights(folder)
        if self._average is not None:
            paddle.save(self._average.trained(), str(folder / "trained.pdparams"))
        paddle.save(paddle_compat.optimizer_of(self.model).state_dict(), str(folder / "optimizer.pdopt"))
        scaler = paddle_compat.grad_scaler_of(self.model)
        if scaler is not None:
            paddle.save(scaler.state_dict(), str(folder / "scaler.pdscaler"))
        finished = step == 0 and (epoch == self.params["epochs"] or self.model.stop_training)
        state = {
            **self._described(self._recorder.records[-1] if step == 0 else None),
            "epoch": epoch,
            "step": step,
            "finished": finished,
            **self._about,
            "states": collect_states(self._parts),
            "md5": {path.name: md5_of(path) for path in sorted(folder.iterdir())},
        }
        write_json(folder / "state.json", state)

    def _write_evaluated(self, folder: Path, record: EpochRecord) -> None:
        self._write_weights(folder)
        write_json(folder / "state.json", {**self._described(record), "epoch": record.epoch})

    def _write_weights(self, folder: Path) -> None:
        weights = self.model.network.state_dict() if self._average is None else self._average.average
        paddle.save(weights, str(folder / "model.pdparams"))

    def _described(self, record: EpochRecord | None) -> Values:
        return {
            "model": self._run.config.model.name,
            "validation_loss": record.validation_loss if record is not None else None,
            "validation_top1": record.validation_top1 if record is not None else None,
            "paddle": paddle.__version__,
            "averaged_steps": self._average.steps if self._average is not None else None,
        }

    def _require_finite(self) -> None:
        """Keep what a step has spoilt, whose loss only the next would show, from taking a good checkpoint's place."""
        weights = self.model.network.state_dict() if self._average is None else self._average.trained()
        for name, tensor in weights.items():
            if not np.isfinite(tensor.numpy()).all():
                raise RunFailure(
                    f"{name} became NaN or infinite at step {self._position.step} of epoch {self._position.epoch + 1}; "
                    "try a lower train.learning_rate, or train.clip_norm=1; the checkpoints written so far are kept"
                )
