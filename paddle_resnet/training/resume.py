"""Reading ``checkpoints/last``, from which a stopped run goes on as if it had never been stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn
from pydantic import ValidationError

from paddle_resnet import distributed, environment, paddle_compat, safe_pickle
from paddle_resnet.config import Config, TrainConfig
from paddle_resnet.console import logger
from paddle_resnet.errors import UsageError, shown
from paddle_resnet.files import md5_of, read_json, recover_folder
from paddle_resnet.models import load_weights
from paddle_resnet.training.callback_runner import Position, State
from paddle_resnet.training.data_record import fingerprint, require_same
from paddle_resnet.training.optim.ema import MovingAverage
from paddle_resnet.training.run_folder import RunFolder
from paddle_resnet.training.saved_state import CheckpointState, explain

MAY_CHANGE = {
    "name",
    "output",
    "device",
    "data.root",
    "data.verify",
    "data.workers",
    "data.memory_mb",
    "train.checkpoint_minutes",
    "train.checkpoint_steps",
    "train.histogram_steps",
    "evaluation.flip",
    "evaluation.embeddings",
}
"""Keys that say where a run lies and how it is read, saved, watched and evaluated, but not what it learns."""
COPIED_IN_PART = "so the run was copied in part: copy the whole folder, or train a new run under another name"
NAMES = "StructuredToParameterName@@"
"""Where `paddle.save` keeps the names of the arrays."""


@dataclass(frozen=True)
class Checkpoint:
    """``checkpoints/last``, found whole."""

    folder: Path
    position: Position
    finished: bool
    """Whether nothing is left to train."""
    states: dict[str, State]
    """Of callbacks, loader and curves, by class."""
    processes: int
    """How many trained the run."""
    trained_on: dict[str, Any]
    """What `circumstances` said when it was written."""
    data: dict[str, Any]
    """What `fingerprint` said when it was written."""

    def require_within(self, steps: int) -> None:
        """See that the run can stand where it says, of epochs of so many steps.

        Raises:
            UsageError: it cannot.
        """
        done = self.position.epoch * steps + self.position.step
        if self.position.step > steps:
            raise _damaged(self.folder, f"state.json: step is {self.position.step}, and an epoch has {steps}")
        for name, key in (("Recorder", "step"), ("MovingAverage", "steps")):
            found = self.states.get(name, {}).get(key, done)
            if found != done:
                raise _damaged(self.folder, f"state.json: states.{name}.{key} is {found}, and {done} steps are done")

    def put_into(self, network: nn.Layer, average: MovingAverage | None) -> None:
        """Give the weights of training to the network, and the average its values."""
        if average is not None:
            # By way of the network, which takes what fits alone.
            load_weights(network, self.folder / "model.pdparams", new_head=False)
            average.set_average({name: tensor.numpy() for name, tensor in network.state_dict().items()})
        trained = "model.pdparams" if average is None else "trained.pdparams"
        load_weights(network, self.folder / trained, new_head=False)

    def put_into_optimizer(self, model: paddle.Model) -> None:
        """Give their state to the optimizer, its schedule, and to what scales the loss of mixed precision."""
        path = self.folder / "optimizer.pdopt"
        arrays = _read_arrays(path)
        _require_fitting(path, arrays, {each.name: each.shape for each in model.network.parameters()})
        optimizer = paddle_compat.optimizer_of(model)
        schedule = paddle_compat.learning_rate_of(optimizer)
        expected = (
            {"LR_Scheduler": schedule.state_dict()} if isinstance(schedule, paddle.optimizer.lr.LRScheduler) else {}
        )
        if not _has_numbers_of(arrays, expected):
            raise _damaged(self.folder, f"{path.name}: LR_Scheduler is not the state of the learning rate's schedule")
        # Paddle compares a state with what is there, and believes one that comes before.
        paddle_compat.create_optimizer_state(
            optimizer, [each for each in model.network.parameters() if not each.stop_gradient]
        )
        _give(arrays, optimizer.set_state_dict, path)
        scaler = self.folder / "scaler.pdscaler"
        if scaler.is_file():
            # `Model` makes its own in the first step, unless there is one.
            loss_scaler = paddle.amp.GradScaler()
            paddle_compat.set_grad_scaler(model, loss_scaler)
            arrays = _read_arrays(scaler)
            _require_fitting(scaler, arrays, {})
            _give(arrays, loss_scaler.load_state_dict, scaler)


def read_checkpoint(run: RunFolder) -> Checkpoint | None:
    """Read a run's ``last`` checkpoint; None where it has none yet.

    Raises:
        UsageError: it is damaged, or was written by a version that could not resume, or the folder was copied in part;
            the line names file and field.
    """
    folder = run.checkpoint_path("last")
    recover_folder(folder)
    if not folder.is_dir():
        if len(run.history()) > 1:  # after the first epoch there may be none: `best` and the history are written before
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
        raise _damaged(folder, f"state.json: {explain(error)}") from None
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
    return Checkpoint(
        folder=folder,
        position=Position(state.epoch, state.step),
        finished=state.finished,
        states=state.states_by_name(),
        processes=state.processes,
        trained_on=state.trained_on,
        data=state.data,
    )


def _require_plausible(folder: Path, state: CheckpointState, train: TrainConfig) -> None:
    """See that the fields of a checkpoint agree with each other and with the run's config.

    Raises:
        UsageError: they do not; the line names the field.
    """
    records = [record.epoch for record in state.states.Recorder.records]
    early = train.patience is not None and state.epoch > 0
    files = {"model.pdparams", "optimizer.pdopt"} | ({"trained.pdparams"} if train.ema is not None else set())
    for field, value, holds in (
        ("epoch", state.epoch, state.epoch <= train.epochs),
        ("step", state.step, state.step == 0 or state.epoch < train.epochs),
        ("finished", state.finished, state.step == 0 or not state.finished),
        ("finished", state.finished, state.finished == (state.epoch == train.epochs) or (early and state.finished)),
        ("states.Recorder.records", f"the epochs {shown(records)}", _are_first(records, state.epoch)),
        ("md5", sorted(state.md5), files <= set(state.md5)),
    ):
        if not holds:
            raise _damaged(
                folder,
                f"state.json: {field} is {shown(value)}, which fits neither its other fields nor train.epochs "
                f"{train.epochs} of config.yaml",
            )


def _are_first(epochs: list[int], count: int) -> bool:
    """Whether these are the first `count` epochs, which may be said to be any number."""
    return len(epochs) == count and epochs == list(range(1, len(epochs) + 1))


def require_same_training(run: RunFolder, config: Config) -> None:
    """Let a run only go on as it began.

    Raises:
        UsageError: a key differs that is none of `MAY_CHANGE`.
    """
    began, now = _flat(run.config.model_dump(mode="json")), _flat(config.model_dump(mode="json"))
    for key, value in began.items():
        if key not in MAY_CHANGE and now[key] != value:
            raise UsageError(
                f"{run.path}: {key} is {now[key]} now, but the run began with {value}, and a resumed run goes on as it "
                "began; leave the key as it was, or start a new run under another name"
            )


def require_same_data(run: RunFolder, checkpoint: Checkpoint) -> None:
    """Let a run only go on with the images it began with.

    Raises:
        UsageError: there are other images, or other classes, than when it began.
    """
    require_same(run.path, checkpoint.data, fingerprint(run.splits()))


def require_same_processes(run: RunFolder, checkpoint: Checkpoint) -> None:
    """Let a run only go on in as many processes as it began in, as they make the batch and the steps of an epoch.

    Raises:
        UsageError: there are more or fewer.
    """
    if checkpoint.processes != distributed.world_size():
        how = "alone" if checkpoint.processes == 1 else f"in {checkpoint.processes} processes"
        raise UsageError(
            f"{run.path}: there are {distributed.world_size()} processes now, but the run was trained {how}, and each "
            f"step is of all of them; start it {how} again, or start a new run"
        )


def warn_of_other_circumstances(checkpoint: Checkpoint, device: str) -> None:
    """Say what keeps a run from going on bit for bit."""
    now = circumstances(device)
    for what, value in checkpoint.trained_on.items():
        if now.get(what, value) != value:
            logger.warning(
                "warning: the run began with %s %s and goes on with %s: not bit for bit as if it had not been stopped",
                what,
                shown(value),
                now[what],
            )


def circumstances(device: str) -> dict[str, Any]:
    """What else than config and data the bits of a result depend on."""
    return environment.describe("paddle", "threads") | {"device": device}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested groups of keys as one dict by dotted key."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _read_arrays(path: Path) -> dict[str, Any]:
    """Read what `paddle.save` made of an optimizer's or a scaler's state, as data."""
    with path.open("rb") as file:
        content = safe_pickle.load(file, str(path), encoding="latin1")
    if not isinstance(content, dict):
        raise _damaged(path.parent, f"{path.name} holds {safe_pickle.kind_of(content)}")
    content.pop(NAMES, None)
    return _without_names(path, content)


def _give(arrays: dict[str, Any], load: Callable[[dict[str, Any]], object], path: Path) -> None:
    """Let Paddle load a state."""
    try:
        load(arrays)
    except Exception as error:  # Paddle's own are of any kind
        reason = shown(" ".join(str(error).split()) or type(error).__name__)
        raise _damaged(path.parent, f"{path.name} does not fit the run: {reason}") from error


def _has_numbers_of(found: Any, expected: Any) -> bool:
    """Whether a number is found wherever one is expected, in dictionaries of dictionaries."""
    if isinstance(expected, dict):
        return isinstance(found, dict) and all(_has_numbers_of(found.get(key), each) for key, each in expected.items())
    return isinstance(found, int | float) or not isinstance(expected, int | float)


def _require_fitting(path: Path, arrays: dict[str, Any], shapes: Mapping[str, Sequence[int]]) -> None:
    """See that what an optimizer keeps is finite, and has the shape of its parameter or is a single number.

    Paddle finds a wrong shape in the first step only, or writes beyond the end of an array.
    """
    for key, value in arrays.items():
        if isinstance(value, dict):
            _require_fitting(path, value, shapes)
            continue
        array = np.asarray(value if isinstance(value, np.ndarray | int | float) else None)
        owner = max((name for name in shapes if key.startswith(f"{name}_")), key=len, default=None)
        if array.dtype.kind not in "fiub" or not np.isfinite(array.astype(np.float64)).all():
            raise _damaged(path.parent, f"{path.name}: {shown(key)} holds what is no finite number")
        if array.size != 1 and (owner is None or list(array.shape) != list(shapes[owner])):
            raise _damaged(path.parent, f"{path.name}: {shown(key)} has the shape {shown(array.shape)}")


def _without_names(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Paddle saves a tensor as its name and its array: leave the array."""
    plain: dict[str, Any] = {}
    for name, value in content.items():
        if not isinstance(name, str) or (isinstance(value, tuple) and len(value) != 2):
            raise _damaged(path.parent, f"{path.name}: {shown(name)} holds {safe_pickle.kind_of(value)}")
        if isinstance(value, dict):
            plain[name] = _without_names(path, value)
        else:
            plain[name] = value[1] if isinstance(value, tuple) else value
    return plain


def _damaged(folder: Path, what: str) -> UsageError:
    return UsageError(
        f"{folder}: damaged: {what}; the run cannot go on. checkpoints/best may be whole: a new run can start from it "
        "by model.pretrained"
    )
