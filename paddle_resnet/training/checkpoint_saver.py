"""Writes the checkpoints ``last`` and ``best``; `checkpoint_loader` reads them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.callbacks import Callback

from paddle_resnet import distributed
from paddle_resnet.errors import RunFailure
from paddle_resnet.files import md5_of, write_folder, write_json
from paddle_resnet.paddle_compat import grad_scaler_of, optimizer_of
from paddle_resnet.results import EpochRecord
from paddle_resnet.training.callback_runner import BEGINNING, Logs, Position, collect_states
from paddle_resnet.training.callbacks.recorder import Recorder
from paddle_resnet.training.optim.ema import MovingAverage
from paddle_resnet.training.run_folder import Run


class CheckpointSaver(Callback):
    """Saves ``last``, from which a run resumes, and ``best`` when validation improves (`EpochRecord.rank`).

    ``last`` is written after each epoch, and within it every `train.checkpoint_minutes` or `train.checkpoint_steps`.
    Each is a folder that is written aside and renamed when whole. Its ``model.pdparams`` are the weights that are
    evaluated; where those are a moving average, ``last`` has the weights of training in ``trained.pdparams``. The main
    process writes. This callback follows all those whose states it saves.
    """

    def __init__(
        self,
        run: Run,
        recorder: Recorder,
        parts: Sequence[object],
        average: MovingAverage | None,
        about: Mapping[str, Any],
        start: Position = BEGINNING,
    ) -> None:
        """Save the states of those `parts` that are `Stateful`, and the entries `about` the training."""
        super().__init__()
        self._run = run
        self._recorder = recorder
        self._parts = parts
        self._average = average
        self._about = about
        self._position = self._saved_position = start
        self._saved_time = time.monotonic()

    def on_train_batch_end(self, step: int, logs: Logs | None = None) -> None:
        self._position = Position(self._position.epoch, step + 1)
        train = self._run.config.train
        # The ranks' clocks differ, and all ranks have to save together.
        minutes = distributed.all_reduce_max((time.monotonic() - self._saved_time) / 60)
        if minutes >= train.checkpoint_minutes or (
            train.checkpoint_steps is not None and (step + 1) % train.checkpoint_steps == 0
        ):
            self.save()

    def on_eval_end(self, logs: Logs | None = None) -> None:
        self._position = Position(self._position.epoch + 1, 0)
        record = self._recorder.records[-1]
        if self._recorder.best is record and distributed.is_main_process():
            write_folder(self._run.checkpoint_path("best"), lambda folder: self._write_best(folder, record))
        self.save()

    def save(self) -> None:
        """Save ``last`` as of now, between two steps, unless that is done already.

        Raises:
            RunFailure: a weight is NaN or infinite, or the folder cannot be written; the earlier checkpoint stays.
        """
        if self._saved_position == self._position:
            return
        self._require_finite()
        if distributed.is_main_process():
            write_folder(self._run.checkpoint_path("last"), self._write_last)
        distributed.barrier()
        self._saved_position = self._position
        self._saved_time = time.monotonic()

    def _write_last(self, folder: Path) -> None:
        epoch, step = self._position
        self._write_weights(folder)
        if self._average is not None:
            paddle.save(self._average.trained(), str(folder / "trained.pdparams"))
        paddle.save(optimizer_of(self.model).state_dict(), str(folder / "optimizer.pdopt"))
        scaler = grad_scaler_of(self.model)
        if scaler is not None:
            paddle.save(scaler.state_dict(), str(folder / "scaler.pdscaler"))
        state = {
            **self._summary(self._recorder.records[-1] if step == 0 else None),
            "epoch": epoch,
            "step": step,
            "finished": step == 0 and (epoch == self.params["epochs"] or self.model.stop_training),
            **self._about,
            "states": collect_states(self._parts),
            "md5": {path.name: md5_of(path) for path in sorted(folder.iterdir())},
        }
        write_json(folder / "state.json", state)

    def _write_best(self, folder: Path, record: EpochRecord) -> None:
        self._write_weights(folder)
        write_json(folder / "state.json", {**self._summary(record), "epoch": record.epoch})

    def _write_weights(self, folder: Path) -> None:
        weights = self.model.network.state_dict() if self._average is None else self._average.average
        paddle.save(weights, str(folder / "model.pdparams"))

    def _summary(self, record: EpochRecord | None) -> dict[str, Any]:
        return {
            "model": self._run.config.model.name,
            "validation_loss": record.validation_loss if record is not None else None,
            "validation_top1": record.validation_top1 if record is not None else None,
            "paddle": paddle.__version__,
            "averaged_steps": self._average.steps if self._average is not None else None,
        }

    def _require_finite(self) -> None:
        """Refuse weights that the last step made infinite: only the loss of the next step would show it."""
        weights = self.model.network.state_dict() if self._average is None else self._average.trained()
        for name, tensor in weights.items():
            if not np.isfinite(tensor.numpy()).all():
                raise RunFailure(
                    f"{name} became NaN or infinite at step {self._position.step} of epoch {self._position.epoch + 1}; "
                    "try a lower train.learning_rate, or train.clip_norm=1; the checkpoints written so far are kept"
                )
