"""Whether a run can resume: from which folder and config, with the same images and number of processes."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paddle_resnet import distributed, environment
from paddle_resnet.config import Config, DataConfig
from paddle_resnet.console import logger
from paddle_resnet.errors import UsageError, shown
from paddle_resnet.files import scratch_folder
from paddle_resnet.training.checkpoints import Checkpoint
from paddle_resnet.training.data_manifest import fingerprint, require_same_fingerprint
from paddle_resnet.training.run_folder import DATA_ACCESS_KEYS, Run, names_a_file
from paddle_resnet.training.run_summary import flat

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
    "evaluation.shift",
    "evaluation.embeddings",
}
"""Config keys that may change: how a run is stored, read, saved, logged and evaluated, and when it ends, but not what
it learns."""

RESUME_FILES = ("config.yaml", "data.json", "metrics.json", "history.csv", "checkpoints/*/*")
"""What of a run's folder a resumed training reads."""


@contextlib.contextmanager
def folder_of_main_process(folder: Path) -> Iterator[Path]:
    """Yield a folder with rank 0's `RESUME_FILES` of a run: `folder` itself, or a temporary copy of them.

    A process whose host has a disk of its own sees no run there, or another one; it stays as it is.
    """
    if distributed.world_size() == 1:
        yield folder
        return
    own = {
        path.relative_to(folder).as_posix(): [path.stat().st_size, path.stat().st_mtime_ns]
        for pattern in RESUME_FILES
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    }
    files = json.loads(distributed.broadcast_bytes(json.dumps(own).encode()))
    others = int(distributed.all_reduce_sum([own != files]).item())
    if others and files:
        logger.info("%s: %d processes do not see this run; they resume from a temporary copy", folder, others)
    with contextlib.nullcontext(folder) if own == files else scratch_folder() as seen:
        for name in files if others else ():
            (seen / name).parent.mkdir(parents=True, exist_ok=True)
            source = folder / name if distributed.is_main_process() else os.devnull
            # Not whole files: what users keep beside their checkpoints may be larger than the memory.
            with open(source, "rb") as given, open(os.devnull if own == files else seen / name, "wb") as copied:  # noqa: PTH123
                while part := distributed.broadcast_bytes(given.read(distributed.MESSAGE_BYTES)):
                    copied.write(part)
        yield seen


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
    config = config.model_copy(update={"train": train, "data": _began_normalization(run.config, config)})
    before, now = (dict(flat(each.model_dump(mode="json"))) for each in (run.config, config))
    for key, value in before.items():
        if key not in mutable and now[key] != value:
            raise UsageError(
                f"{run.path}: {key} is {now[key]} now, but the run began with {value}, and a resumed run goes on as it "
                "began; leave the key as it was, or start a new run under another name"
            )
    return config


def _began_normalization(began: Config, now: Config) -> DataConfig:
    """Return the data of `now`, with the mean and deviation that came with the weights of `began`, unless it sets them.

    The run's own, as those weights may have changed since then, or be gone.
    """
    mean, std, is_set = began.data.mean, began.data.std, (now.data.mean or now.data.std) is not None
    if is_set or mean is None or std is None or not names_a_file(began.model.pretrained):
        return now.data
    logger.info("data.mean and data.std: %s and %s, with which the run began", list(mean), list(std))
    return now.data.model_copy(update={"mean": mean, "std": std})


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
                f"warning: the run began with {what} {shown(value)} and resumes with {now[what]}: not bit for bit as "
                "if it had not been stopped"
            )
