"""One run: from a config to a folder with checkpoints, curves and figures of its validation."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from paddle.callbacks import Callback, LRScheduler

from paddle_resnet import distributed, environment, paddle_compat
from paddle_resnet.config import Config
from paddle_resnet.console import logger
from paddle_resnet.data import Normalize
from paddle_resnet.data.datasets.folder_report import report_folder
from paddle_resnet.errors import Stopped, UsageError, command
from paddle_resnet.models import ImageClassifier
from paddle_resnet.tracking.training_log import VisualDLLog, image_grid
from paddle_resnet.training import resume as resuming
from paddle_resnet.training.callback_runner import BEGINNING, Course, load_states
from paddle_resnet.training.callbacks.builder import recipe_callbacks, watching_callbacks
from paddle_resnet.training.callbacks.interrupt import StopBetweenSteps
from paddle_resnet.training.callbacks.recording import NoCurves, Progress, Recorder
from paddle_resnet.training.callbacks.step_seeds import StepSeeds
from paddle_resnet.training.checkpoints import Checkpoints
from paddle_resnet.training.data_record import fingerprint
from paddle_resnet.training.metrics import SampleMeans
from paddle_resnet.training.optim.ema import MovingAverage
from paddle_resnet.training.process_setup import LogFile, session, without_paddles_warnings
from paddle_resnet.training.resume import Checkpoint
from paddle_resnet.training.run_folder import FollowedRun, RunFolder, as_seen_here
from paddle_resnet.training.setup import (
    make_model,
    make_train_loader,
    make_validation_loader,
    open_training,
    whiten_stem,
)

GRID_IMAGES = 32


def train(config: Config) -> RunFolder:
    """Train one network as `config` says, and return the run's folder.

    Nothing is written before device, data and weights have been found good. An earlier run of the name is set aside.
    Processes that were launched together (`processes`) train it together.

    Raises:
        UsageError: device, data, model or weights are not what the config says, or it names several seeds
            (`train_seeds` trains those).
        RunFailure: the loss became NaN or infinite, or the folder cannot be written.
        Stopped: Ctrl-C or SIGTERM; what was done is saved.
    """
    if config.train.seeds is not None:
        raise UsageError(
            f"train.seeds {list(config.train.seeds)}: this trains one run, by train.seed; {command('train')} trains all"
        )
    with session(config) as (device, lines):
        distributed.check_equal_across_ranks({"the config": config.to_yaml(), str(config.run_folder): "begins"})
        splits, network = open_training(config)
        if not distributed.is_main_process():
            run: RunFolder = FollowedRun(config.run_folder, config, splits)
            _fit(run, network, device, None)
            return run
        run, kept = RunFolder.create(config, splits)
        with run.alone():
            lines.go_to(LogFile(run))
            if kept is not None:
                logger.info("the earlier run %s was kept as %s", run.path, kept)
            report_folder(splits, run.path)
            _fit(run, network, device, None)
    return run


def resume(path: str | Path, overrides: Iterable[str] = ()) -> RunFolder:
    """Let the run in the folder `path` go on from its ``last`` checkpoint as if it had never been stopped.

    A run without a checkpoint begins again, a finished one is left as it is.

    Args:
        path: the run's folder.
        overrides: changes to keys of its config, ``key=value``: only to `resuming.MAY_CHANGE`.

    Raises:
        UsageError: the folder is no run's, config or data changed, the checkpoint is damaged, or another process is at
            it; otherwise as `train`.
    """
    return _go_on(RunFolder.open(path, overrides))


def train_or_resume(run: RunFolder) -> RunFolder:
    """Let a run go on if it has begun, by its config or with the allowed changes, or train it from the beginning.

    Raises:
        UsageError, RunFailure, Stopped: as `train` and `resume`.
    """
    return _go_on(run) if run.config_path.is_file() else train(run.config)


def _go_on(run: RunFolder) -> RunFolder:
    resuming.require_same_training(RunFolder.open(run.path), run.config)
    with session(run.config) as (device, lines):
        distributed.check_equal_across_ranks({"the config": run.config.to_yaml(), str(run.path): "goes on"})
        run = as_seen_here(run)
        with run.alone():
            with distributed.main_process_first():
                trained = run.is_trained
                checkpoint = None if trained else resuming.read_checkpoint(run)
            distributed.check_equal_across_ranks({str(run.checkpoint_path("last")): (trained, checkpoint)})
            if trained:
                logger.info("%s: finished, nothing is left to train", run.path)
                return run
            if checkpoint is not None:
                resuming.require_same_processes(run, checkpoint)
            if distributed.is_main_process():
                lines.go_to(LogFile(run))
            # What has no checkpoint has learned nothing yet: it begins with the images as they are now.
            splits, network = open_training(
                run.config, with_weights=checkpoint is None, open_data=None if checkpoint is None else run.splits
            )
            run = type(run)(run.path, run.config, splits)
            if checkpoint is None:
                logger.info("%s: no checkpoint yet, it begins again", run.path)
            else:
                resuming.require_same_data(run, checkpoint)
                resuming.warn_of_other_circumstances(checkpoint, device)
                epoch, step = checkpoint.position
                logger.info("%s: goes on after epoch %d and %d steps of the next", run.path, epoch, step)
            if distributed.is_main_process():
                if checkpoint is None:
                    shutil.rmtree(run.vdl_path, ignore_errors=True)
                run.config.save(run.config_path)
                if checkpoint is None or not run.data_path.exists():
                    run.record_data()
            _fit(run, network, device, checkpoint)
    return run


def _fit(run: RunFolder, network: ImageClassifier, device: str, checkpoint: Checkpoint | None) -> None:
    """Train the network through `paddle.Model.fit`, from the beginning or from a checkpoint."""
    distributed.check_equal_across_ranks({"the images": fingerprint(run.splits())})
    if not distributed.is_main_process():
        _train(run, network, None, device, checkpoint)
        return
    with contextlib.closing(VisualDLLog(run.vdl_path)) as visual_dl:
        if checkpoint is None:
            visual_dl.config(run.config.to_yaml())
            visual_dl.images(_augmented_images(run, run.normalize()))
        _train(run, network, visual_dl, device, checkpoint)


def _train(
    run: RunFolder, network: ImageClassifier, visual_dl: VisualDLLog | None, device: str, checkpoint: Checkpoint | None
) -> None:
    config, splits, normalize = run.config, run.splits(), run.normalize()
    train_loader = make_train_loader(config, splits, normalize)
    if checkpoint is not None:
        checkpoint.require_within(len(train_loader))
    validation_loader = make_validation_loader(config, splits, normalize)
    average = _start_network(run, network, checkpoint)
    means = SampleMeans()
    model = make_model(config, network, means, len(train_loader), device)
    if checkpoint is not None:
        checkpoint.put_into_optimizer(model)

    recorder, progress = Recorder(run, visual_dl or NoCurves(), means, train_loader), Progress()
    callbacks: list[Callback] = [progress] if distributed.is_main_process() else []
    callbacks += [StepSeeds(config.train.seed), recorder]
    if average is not None:
        callbacks.append(average)
    callbacks += recipe_callbacks(
        config, network, paddle_compat.optimizer_of(model), train_loader, lambda: recorder.records
    )
    if visual_dl is not None:
        callbacks += watching_callbacks(config.train, network, visual_dl)

    start = checkpoint.position if checkpoint is not None else BEGINNING
    parts = [*callbacks, train_loader, visual_dl]
    about = {
        "processes": distributed.world_size(),
        "trained_on": resuming.circumstances(device),
        "data": fingerprint(splits),
    }
    checkpoints = Checkpoints(run, recorder, parts, average, about, start)
    interrupt = StopBetweenSteps(checkpoints.save)

    def restore() -> None:
        if checkpoint is not None:
            load_states(parts, checkpoint.states)
            train_loader.first_batch = start.step

    if checkpoint is not None and checkpoint.finished:
        restore()
    else:
        course = Course([*callbacks, checkpoints, interrupt], config.train.epochs, len(train_loader), start, restore)
        # `Model` would put its own scheduler's callback behind ours, which save the schedule too.
        hooks = [LRScheduler(), course]
        with contextlib.closing(progress), _saying_how_to_go_on(run), without_paddles_warnings(), interrupt:
            model.fit(
                train_loader, validation_loader, epochs=config.train.epochs - start.epoch, verbose=0, callbacks=hooks
            )
    _write_metrics(run, recorder, device)
    interrupt.stop_if_asked()


def _start_network(run: RunFolder, network: ImageClassifier, checkpoint: Checkpoint | None) -> MovingAverage | None:
    """Give the network the weights that training starts from, the same in all processes; return its average."""
    config, splits = run.config, run.splits()
    if config.model.pretrained is None:
        # Of a resumed run too: it also says which weights are not learned.
        whiten_stem(network, splits.train, splits.resize, config.data.image_size, run.normalize())
    # Other hosts' processors may have rounded otherwise.
    distributed.broadcast(list(network.state_dict().values()))
    average = MovingAverage(network, config.train.ema) if config.train.ema is not None else None
    if checkpoint is not None:
        checkpoint.put_into(network, average)
    return average


@contextlib.contextmanager
def _saying_how_to_go_on(run: RunFolder) -> Iterator[None]:
    """Where training is stopped within the block, say what resumes it."""
    try:
        yield
    except Stopped as stopped:
        logger.info("%s; %s --resume %s goes on from here", stopped, _train_command(), run.path)
        raise


def _train_command() -> str:
    """Return how a run of as many processes is started."""
    ranks = distributed.joined()
    if ranks.world_size == 1:
        return command("train")
    script = command("train").removeprefix("python ").replace("paddle-resnet", "$(which paddle-resnet)")
    return f"python -m paddle.distributed.launch --nproc_per_node {ranks.local_world_size} {script}"


def _write_metrics(run: RunFolder, recorder: Recorder, device: str) -> None:
    """Write what was measured in training, and on what; what was measured of an earlier epoch's weights goes."""
    records, best = recorder.records, recorder.best
    run.write_metrics(
        {
            "validation": {"epoch": best.epoch, "loss": best.validation_loss, "top1": best.validation_top1},
            "environment": environment.describe("paddle", "python", "processes", "processor", "process")
            | {"device": device},
            "train": {
                "epochs": len(records),
                "seconds": round(recorder.seconds, 1),
                "seconds_training_only": round(sum(record.seconds for record in records), 1),
                "loss": records[-1].train_loss,
                "top1": records[-1].train_top1,
            },
        }
    )


def _augmented_images(run: RunFolder, normalize: Normalize) -> np.ndarray:
    """Draw a grid of the first batch, from a loader of its own so that the run's random state is not touched."""
    with contextlib.closing(iter(make_train_loader(run.config, run.splits(), normalize))) as batches:
        images, *_ = next(batches)
    return image_grid(normalize.denormalize(images[:GRID_IMAGES]))
