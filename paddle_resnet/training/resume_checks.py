"""Whether a run can resume: with which config, with the same images and number of processes."""

from __future__ import annotations

from typing import Any

from paddle_resnet import distributed, environment
from paddle_resnet.config import Config
from paddle_resnet.console import logger
from paddle_resnet.errors import UsageError, shown
from paddle_resnet.training.checkpoint_loader import Checkpoint
from paddle_resnet.training.data_manifest import fingerprint, require_same_fingerprint
from paddle_resnet.training.run_folder import DATA_ACCESS_KEYS, Run

RESUME_MUTABLE_KEYS = DATA_ACCESS_KEYS | {
    "name",
    "output",
    "train.checkpoint_minutes",
    "train.checkpoint_steps",
    "train.histogram_steps",
    "train.threads",
    "train.patience",
    "tracking",
    "evaluation.flip",
    "evaluation.embeddings",
}
"""Config keys that may change: how a run is stored, read, saved, logged and evaluated, and when it ends, but not what
it learns."""


def run_environment(device: str) -> dict[str, Any]:
    """Return what the bits of a result depend on besides config and data."""
    return environment.describe("paddle", "threads") | {"device": device}


def resumed_config(run: Run, config: Config) -> Config:
    """Return `config` as that of the run from here on; more epochs than the run's extend it.

    Raises:
        UsageError: it changes another key of the run's config than `RESUME_MUTABLE_KEYS`.
    """
    began, train = run.config.train, config.train
    if train.minutes is not None:
        logger.info("train.minutes: the run goes on with its %d epochs; train.epochs would extend it", began.epochs)
        train = train.model_copy(update={"minutes": None, "epochs": began.epochs})
    extended, mutable = (*began.extended_from, began.epochs), set(RESUME_MUTABLE_KEYS)
    if train.epochs > began.epochs and train.extended_from in ((), began.extended_from, extended):
        train = train.model_copy(update={"extended_from": extended})
        mutable |= {"train.epochs", "train.extended_from"} | (set() if began.extended_from else {"train.extend_rate"})
    elif train.epochs == began.epochs and not train.extended_from:  # by the config that the run was extended with
        train = train.model_copy(update={"extended_from": began.extended_from})
    config = config.model_copy(update={"train": train})
    before, now = _flat(run.config.model_dump(mode="json")), _flat(config.model_dump(mode="json"))
    for key, value in before.items():
        if key not in mutable and now[key] != value:
            raise UsageError(
                f"{run.path}: {key} is {now[key]} now, but the run began with {value}, and a resumed run goes on as it "
                "began; leave the key as it was, or start a new run under another name"
            )
    return config


def require_same_data(run: Run, checkpoint: Checkpoint) -> None:
    """Raise `UsageError` if images or classes are not those of the checkpoint."""
    require_same_fingerprint(run.path, checkpoint.state.data, fingerprint(run.splits()))


def require_same_world_size(run: Run, checkpoint: Checkpoint) -> None:
    """Raise `UsageError` for another number of processes, on which batches and the steps of an epoch depend."""
    began = checkpoint.state.processes
    if began != distributed.world_size():
        how = "alone" if began == 1 else f"in {began} processes"
        raise UsageError(
            f"{run.path}: there are {distributed.world_size()} processes now, but the run was trained {how}, and each "
            f"step is of all of them; start it {how} again, or start a new run"
        )


def warn_of_other_environment(checkpoint: Checkpoint, device: str) -> None:
    """Log a warning for each reason why the run will not be bit for bit as if it had not been stopped."""
    now = run_environment(device)
    for what, value in checkpoint.state.trained_on.items():
        if now.get(what, value) != value:
            logger.warning(
                "warning: the run began with %s %s and resumes with %s: not bit for bit as if it had not been stopped",
                what,
                shown(value),
                now[what],
            )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested groups of keys to dotted keys."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
