"""The checkpoints ``last`` and ``best`` of a run: how they are written, read, and checked before any of it is used."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.callbacks import Callback
from paddle.optimizer.lr import LRScheduler
from pydantic import ValidationError

from paddle_resnet import distributed, paddle_compat, safe_pickle
from paddle_resnet.config import TrainConfig
from paddle_resnet.errors import RunFailure, UsageError, shown
from paddle_resnet.files import md5_of, recover_folder, write_folder
from paddle_resnet.models import load_weights
from paddle_resnet.results import EpochRecord
from paddle_resnet.text_files import read_json, write_json
from paddle_resnet.training.callback_runner import BEGINNING, Logs, Position, State, collect_states
from paddle_resnet.training.callbacks.recipe import epochs_since_best
from paddle_resnet.training.callbacks.recorder import Recorder
from paddle_resnet.training.optim.ema import MovingAverage
from paddle_resnet.training.run_folder import Run
from paddle_resnet.training.schemas import CheckpointState, first_error


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
        paddle.save(paddle_compat.optimizer_of(self.model).state_dict(), str(folder / "optimizer.pdopt"))
        scaler = paddle_compat.grad_scaler_of(self.model)
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


COPIED_IN_PART = "so the run was copied in part: copy the whole folder, or train a new run under another name"
NAME_TABLE = "StructuredToParameterName@@"  # the key under which `paddle.save` keeps the names of the arrays


@dataclass(frozen=True)
class Checkpoint:
    """``checkpoints/last`` of a run, checked by `read_checkpoint`."""

    folder: Path
    state: CheckpointState

    @property
    def position(self) -> Position:
        return Position(self.state.epoch, self.state.step)

    @property
    def states(self) -> dict[str, State]:
        """Of the `Stateful` parts, by `state_name`."""
        return self.state.states.model_dump(exclude_none=True)

    def is_complete(self, train: TrainConfig) -> bool:
        """Return whether nothing is left to train: all epochs are done, or early stopping has ended the run."""
        records, patience = self.state.states.Recorder.records, train.patience
        early = patience is not None and records and epochs_since_best(records, train.monitor) >= patience
        return self.state.finished and (self.state.epoch == train.epochs or bool(early))

    def require_within(self, steps: int) -> None:
        """Check position and step counts against epochs of `steps` steps; raise `UsageError` if they do not fit."""
        done = self.position.epoch * steps + self.position.step
        if self.position.step > steps:
            raise _damaged(self.folder, f"state.json: step is {self.position.step}, and an epoch has {steps}")
        for name, key in (("Recorder", "step"), ("MovingAverage", "steps")):
            found = self.states.get(name, {}).get(key, done)
            if found != done:
                raise _damaged(self.folder, f"state.json: states.{name}.{key} is {found}, and {done} steps are done")

    def restore_network(self, network: nn.Layer, average: MovingAverage | None) -> None:
        """Load the weights of training into the network, and the averages into `average`."""
        if average is not None:
            # Through the network, so that names and shapes are checked.
            load_weights(network, self.folder / "model.pdparams", new_head=False)
            average.set_average({name: tensor.numpy() for name, tensor in network.state_dict().items()})
        trained = "model.pdparams" if average is None else "trained.pdparams"
        load_weights(network, self.folder / trained, new_head=False)

    def restore_optimizer(self, model: paddle.Model) -> None:
        """Load the states of the optimizer, of its schedule, and of mixed precision's loss scaler."""
        path = self.folder / "optimizer.pdopt"
        arrays = _read_arrays(path, {each.name: each.shape for each in model.network.parameters()})
        optimizer = paddle_compat.optimizer_of(model)
        schedule = paddle_compat.learning_rate_of(optimizer)
        expected = {"LR_Scheduler": schedule.state_dict()} if isinstance(schedule, LRScheduler) else {}
        if not _has_same_numbers(arrays, expected):
            raise _damaged(self.folder, f"{path.name}: LR_Scheduler is not the state of the learning rate's schedule")
        # Paddle checks a state against accumulators that exist, and loads one unchecked if there are none.
        trainable = [each for each in model.network.parameters() if not each.stop_gradient]
        paddle_compat.create_optimizer_state(optimizer, trainable)
        _load(arrays, optimizer.set_state_dict, path)
        scaler = self.folder / "scaler.pdscaler"
        if scaler.is_file():
            # `paddle.Model` makes one in its first step, unless it has one.
            loss_scaler = paddle.amp.GradScaler()
            paddle_compat.set_grad_scaler(model, loss_scaler)
            _load(_read_arrays(scaler, {}), loss_scaler.load_state_dict, scaler)


def read_checkpoint(run: Run) -> Checkpoint | None:
    """Read a run's ``last`` checkpoint; return None if it has none yet.

    Raises:
        UsageError: it is damaged, comes from a version that could not resume, or the run's folder was copied in part.
    """
    folder = run.checkpoint_path("last")
    recover_folder(folder)
    if not folder.is_dir():
        # `last` is written after the history, so one epoch may be recorded without it.
        if len(run.history()) > 1:
            raise UsageError(f"{folder}: missing, {COPIED_IN_PART}")
        return None
    path = folder / "state.json"
    try:
        values = read_json(path)
    except UsageError as error:
        raise _damaged(folder, f"state.json cannot be understood: {str(error).removeprefix(f'{path}: ')}") from None
    if isinstance(values, dict) and "states" not in values:
        raise UsageError(f"{folder}: written by a version that could not resume; train the run again")
    try:
        state = CheckpointState.model_validate(values)
    except ValidationError as error:
        raise _damaged(folder, f"state.json: {first_error(error)}") from None
    _require_plausible(folder, state, run.config.train)
    for name, digest in state.md5.items():
        try:
            if md5_of(folder / name) != digest:
                raise _damaged(folder, f"{name} is not as it was written")
        except OSError as error:
            raise _damaged(folder, f"{name}: {error.strerror or error}") from error
    recover_folder(run.checkpoint_path("best"))
    if state.epoch > 0 and not (best := run.checkpoint_path("best") / "model.pdparams").is_file():
        raise UsageError(f"{best}: missing, {COPIED_IN_PART}")
    return Checkpoint(folder, state)


def _require_plausible(folder: Path, state: CheckpointState, train: TrainConfig) -> None:
    """Check that the fields of a checkpoint agree with each other and with the run's config."""
    records = [record.epoch for record in state.states.Recorder.records]
    are_first = len(records) == state.epoch and records == list(range(1, len(records) + 1))
    files = {"model.pdparams", "optimizer.pdopt"} | ({"trained.pdparams"} if train.ema is not None else set())
    for field, value, holds in (
        ("epoch", state.epoch, state.epoch <= train.epochs),
        ("step", state.step, state.step == 0 or state.epoch < train.epochs),
        ("finished", state.finished, state.step == 0 or not state.finished),
        ("finished", state.finished, state.finished or state.epoch < train.epochs),  # more: stopped early or extended
        ("states.Recorder.records", f"the epochs {shown(records)}", are_first),
        ("md5", sorted(state.md5), files <= set(state.md5)),
    ):
        if not holds:
            raise _damaged(
                folder,
                f"state.json: {field} is {shown(value)}, which fits neither its other fields nor train.epochs "
                f"{train.epochs} of config.yaml",
            )


def _read_arrays(path: Path, shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Read the state of an optimizer or a scaler, as `paddle.save` wrote it."""
    with path.open("rb") as file:
        content = safe_pickle.load(file, str(path), encoding="latin1")
    if not isinstance(content, dict):
        raise _damaged(path.parent, f"{path.name} holds {safe_pickle.kind_of(content)}")
    content.pop(NAME_TABLE, None)
    return _checked_arrays(path, content, shapes)


def _load(arrays: dict[str, Any], load: Callable[[dict[str, Any]], object], path: Path) -> None:
    try:
        load(arrays)
    except Exception as error:  # Paddle raises errors of any class
        reason = shown(" ".join(str(error).split()) or type(error).__name__)
        raise _damaged(path.parent, f"{path.name} does not fit the run: {reason}") from error


def _has_same_numbers(found: Any, expected: Any) -> bool:
    """Return whether `found`, a nest of dictionaries, has a number wherever `expected` has one."""
    if isinstance(expected, dict):
        return isinstance(found, dict) and all(
            _has_same_numbers(found.get(key), each) for key, each in expected.items()
        )
    return isinstance(found, int | float) or not isinstance(expected, int | float)


def _checked_arrays(path: Path, content: dict[Any, Any], shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Replace each pair (name, array), as which Paddle saves a tensor, by the array, and check it.

    It has to be finite, and have the shape of its parameter or a single element. Paddle notices a wrong shape in the
    first step only, or writes beyond the end of an array.
    """
    arrays: dict[str, Any] = {}
    for key, value in content.items():
        if not isinstance(key, str) or (isinstance(value, tuple) and len(value) != 2):
            raise _damaged(path.parent, f"{path.name}: {shown(key)} holds {safe_pickle.kind_of(value)}")
        if isinstance(value, dict):
            arrays[key] = _checked_arrays(path, value, shapes)
            continue
        arrays[key] = value[1] if isinstance(value, tuple) else value
        array = np.asarray(arrays[key] if isinstance(arrays[key], np.ndarray | int | float) else None)
        owner = max((name for name in shapes if key.startswith(f"{name}_")), key=len, default=None)
        if array.dtype.kind not in "fiub" or not np.isfinite(array.astype(np.float64)).all():
            raise _damaged(path.parent, f"{path.name}: {shown(key)} holds what is not a finite number")
        if array.size != 1 and (owner is None or list(array.shape) != list(shapes[owner])):
            raise _damaged(path.parent, f"{path.name}: {shown(key)} has the shape {shown(array.shape)}")
    return arrays


def _damaged(folder: Path, what: str) -> UsageError:
    return UsageError(
        f"{folder}: damaged: {what}; the run cannot go on. checkpoints/best may be whole: a new run can start from it "
        "by model.pretrained"
    )
