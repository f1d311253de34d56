"""Trains one run: set up, loop over the epochs with `paddle.Model.fit`, write the metrics."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator

import numpy as np
from paddle.callbacks import Callback, LRScheduler
from paddle.optimizer.lr import LRScheduler as LearningRate

from paddle_resnet import distributed, environment
from paddle_resnet.config import Config, TrainConfig
from paddle_resnet.console import IN_FILES, logger
from paddle_resnet.data.datasets.file_report import report_files, update_findings
from paddle_resnet.data.datasets.file_split import LostImageError
from paddle_resnet.errors import RunFailure, Stopped, UsageError, command, quoted, shown
from paddle_resnet.images.image_file import REPLACE_IT
from paddle_resnet.models import ImageClassifier
from paddle_resnet.paddle_compat import learning_rate_of, optimizer_of
from paddle_resnet.tracking.training_log import LOGS, VisualDLLog, image_grid
from paddle_resnet.training import process_setup, resume_checks
from paddle_resnet.training.callback_runner import BEGINNING, CallbackRunner, load_states
from paddle_resnet.training.callbacks.recipe import recipe_callbacks
from paddle_resnet.training.callbacks.recorder import Recorder
from paddle_resnet.training.callbacks.steps import Progress, StepSeeds, StopBetweenSteps
from paddle_resnet.training.callbacks.threads import thread_callbacks
from paddle_resnet.training.callbacks.visual_dl import visual_dl_callbacks
from paddle_resnet.training.checkpoints import Checkpoint, CheckpointSaver, read_checkpoint
from paddle_resnet.training.data_manifest import fingerprint
from paddle_resnet.training.metrics import TrainMetrics
from paddle_resnet.training.optim.ema import MovingAverage
from paddle_resnet.training.run_folder import Run
from paddle_resnet.training.setup import make_model, make_train_loader, make_validation_loader, open_data_and_network
from paddle_resnet.training.trials.time_budget import fit_to_minutes

GRID_IMAGES = 32


def train(config: Config) -> Run:
    """Train one network as `config` says, and return the run's folder.

    Nothing is written before device, data and weights are checked. An earlier run of the same name is renamed. Launched
    in several processes, these train it together.

        >>> import paddle_resnet
        >>> config = paddle_resnet.Config.load("configs/quickstart.yaml", ["train.epochs=1", "model.name=resnet8"])
        >>> paddle_resnet.train(config).path.as_posix()
        'output/quickstart'

    Raises:
        UsageError: device, data, model or weights are not what the config says, or it has several seeds
            (`train_seeds` trains those).
        RunFailure: the loss became NaN or infinite, or the folder cannot be written.
        Stopped: Ctrl-C or SIGTERM; the run is saved.
    """
    if not isinstance(config, Config):
        raise UsageError(f"expected a Config, as paddle_resnet.Config.load(FILE), got {shown(config)}")
    if config.train.seeds is not None:
        raise UsageError(
            f"train.seeds {list(config.train.seeds)}: this trains one run, by train.seed; {command('train')} trains all"
        )
    with process_setup.setup_process(config) as (device, lines):
        distributed.check_equal_across_ranks({"the config": config.to_yaml(), "--resume": False})
        return _train(config, device, lines)


def _train(config: Config, device: str, lines: process_setup.DeferredLogHandler) -> Run:
    run = Run.new(config)
    network = open_data_and_network(run)
    if run.config.train.minutes is not None:
        run.config = fit_to_minutes(run, network, device)
    with run.create():
        if distributed.is_main_process():
            lines.flush_to(run.log_path)
            report_files(run.splits(), run.path)
        Trainer(run, network, device).run()
    return run


def resume(path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> Run:
    """Resume the run in the folder `path` from its ``last`` checkpoint, as if it had never been stopped.

    A run without a checkpoint begins again. A finished run is not trained, unless it is extended; its
    config may change.

        >>> import paddle_resnet
        >>> paddle_resnet.resume("output/quickstart").is_trained
        True

    Args:
        path: the run's folder, or the run.
        overrides: changes to its config, ``key=value``, of `RESUME_MUTABLE_KEYS`; a larger ``train.epochs`` extends it.

    Raises:
        UsageError: the folder holds no run, its config or its data changed, the checkpoint is damaged, or another
            process trains the run.
        RunFailure, Stopped: as `train`.
    """
    return train_or_resume(Run.open(path, overrides))


def train_or_resume(run: Run) -> Run:
    """Resume a run if it has begun, with its config, which may have changed as `resume` allows; otherwise train it.

    Whether it has begun, and how far it is, says the folder that rank 0 sees.

    Raises:
        UsageError, RunFailure, Stopped: as `train` and `resume`.
    """
    with process_setup.setup_process(run.config) as (device, lines):
        distributed.check_equal_across_ranks({"the config": run.config.to_yaml(), "--resume": True})
        with resume_checks.folder_of_main_process(run.path) as folder:
            run = Run(folder, run.config)
            return _resume(run, device, lines) if run.config_path.is_file() else _train(run.config, device, lines)


def _resume(run: Run, device: str, lines: process_setup.DeferredLogHandler) -> Run:
    with run.lock():
        began = Run.open(run.path)
        run = Run(run.path, resume_checks.resumed_config(began, run.config))
        with distributed.main_process_first():
            trained, checkpoint = _progress(run, began.config.train)
        if trained:
            run.save_config(began.config)
            logger.info("%s: finished, nothing is left to train", run.path)
            return run
        if checkpoint is None:
            run = Run(run.path, run.config, begins=True)
        else:
            resume_checks.require_same_world_size(run, checkpoint)
        if distributed.is_main_process():
            lines.flush_to(run.log_path)
        network = open_data_and_network(run, with_weights=checkpoint is None)
        _check_and_prepare_folder(run, checkpoint, device)
        Trainer(run, network, device, checkpoint).run()
    return run


def _progress(run: Run, began: TrainConfig) -> tuple[bool, Checkpoint | None]:
    """Return whether nothing is left to train, and otherwise the checkpoint from which the run goes on, if any.

    Raises:
        UsageError: the checkpoint is damaged, or more epochs than the run `began` with are asked for in vain.
    """
    train = run.config.train
    if not run.is_trained:
        return False, read_checkpoint(run)
    if (train.plan, train.patience) == (began.plan, began.patience):
        return True, None
    checkpoint = read_checkpoint(run)
    if checkpoint is None:
        raise UsageError(f"{run.path}: has no checkpoints/last, without which a finished run cannot be extended")
    if not checkpoint.is_complete(train):
        return False, checkpoint
    if train.epochs > began.epochs:
        raise UsageError(
            f"{run.path}: stopped early after epoch {checkpoint.position.epoch}, as nothing improved in train.patience "
            f"{train.patience} epochs; to go on, give train.patience=null or a larger one too"
        )
    return True, None


def _check_and_prepare_folder(run: Run, checkpoint: Checkpoint | None, device: str) -> None:
    """Check that the run resumes with its own data, and save what may have changed of its config."""
    if checkpoint is None:
        logger.info("%s: no checkpoint yet, it begins again", run.path)
    else:
        resume_checks.require_same_data(run, checkpoint)
        resume_checks.warn_of_other_environment(checkpoint, device)
        logger.info("%s: resumes after epoch %d and %d steps of the next", run.path, *checkpoint.position)
    if distributed.is_main_process():
        if checkpoint is not None and run.is_trained:
            kept = run.metrics_path.with_name(f"metrics_{checkpoint.position.epoch}_epochs.json")
            with run.metrics_lock():
                run.metrics_path.rename(kept)
            logger.info("extended to %d epochs; the metrics so far are kept in %s", run.config.train.epochs, kept.name)
        for folder in run.curves_paths.values() if checkpoint is None else ():
            shutil.rmtree(folder, ignore_errors=True)
        run.config.save(run.config_path)
        if checkpoint is None or not run.data_path.exists():
            run.write_manifest()


class Trainer:
    """The training of one run in this process: the constructor sets it up, and `run` does it."""

    def __init__(self, run: Run, network: ImageClassifier, device: str, checkpoint: Checkpoint | None = None) -> None:
        """Make loaders, model and callbacks, with the weights and the optimizer of `checkpoint` if there is one."""
        distributed.check_equal_across_ranks({"the images": fingerprint(run.splits())})
        self._run = run
        self._device = device
        self._checkpoint = checkpoint
        self._start = checkpoint.position if checkpoint is not None else BEGINNING
        self._train_loader = make_train_loader(run)
        self._validation_loader = make_validation_loader(run)
        train, steps = run.config.train, len(self._train_loader)
        average = MovingAverage(network, train.ema) if train.ema is not None else None
        metrics = TrainMetrics(len(run.classes()) if train.monitor == "macro_f1" else None)
        if checkpoint is not None:
            checkpoint.require_within(steps)
            checkpoint.restore_network(network, average)
        self._model = make_model(run, network, metrics, steps, device)
        if checkpoint is not None:
            checkpoint.restore_optimizer(self._model)
            schedule = learning_rate_of(optimizer_of(self._model))
            assert isinstance(schedule, LearningRate)
            schedule.step(schedule.last_epoch)  # of a run that is extended here, the next step has another rate
        if distributed.is_main_process():
            process_setup.check_resources(run.path, network)
        self._progress = Progress()
        self._recorder = Recorder(run, metrics, self._train_loader)
        self._resources = contextlib.ExitStack()
        self._make_callbacks(network, average)

    def _make_callbacks(self, network: ImageClassifier, average: MovingAverage | None) -> None:
        """Make the callbacks, in the order in which they are called, and list the parts whose states are saved."""
        config, optimizer, recorder = self._run.config, optimizer_of(self._model), self._recorder
        seeds = StepSeeds(config.train.seed)
        callbacks: list[Callback] = [seeds, *thread_callbacks(config, network, self._device), recorder]
        logs: list[VisualDLLog] = []
        if distributed.is_main_process():
            logs += self._open_logs()
            callbacks = [self._progress, *callbacks]
            callbacks += [each for log in logs for each in visual_dl_callbacks(log, config, network, recorder)]
        if average is not None:
            callbacks.append(average)
        callbacks += recipe_callbacks(config, network, optimizer, self._train_loader, lambda: recorder.records)
        self._parts = [*callbacks, self._train_loader, *logs]
        about = {
            "processes": distributed.world_size(),
            "trained_on": resume_checks.run_environment(self._device),
            "data": fingerprint(self._run.splits()),
        }
        self._saver = CheckpointSaver(self._run, recorder, self._parts, average, about, self._start)
        self._interrupt = StopBetweenSteps(self._saver.save)
        self._callbacks = [*callbacks, self._saver, self._interrupt]

    def _open_logs(self) -> list[VisualDLLog]:
        paths = self._run.curves_paths
        logs = [LOGS[name](paths[name]) for name in dict.fromkeys(self._run.config.tracking)]
        for log in logs:
            self._resources.enter_context(contextlib.closing(log))
            if self._checkpoint is None:
                log.config(self._run.config.to_yaml())
                log.images(_augmented_images(self._run))
        return logs

    def _restore_states(self) -> None:
        if self._checkpoint is not None:
            load_states(self._parts, self._checkpoint.states)
            self._train_loader.first_batch = self._start.step

    def run(self) -> None:
        """Train, and write the metrics; in the end, and after an error too, what the curves' files still miss."""
        with self._resources:
            self._fit()
            self._write_metrics()
            self._interrupt.stop_if_asked()

    def _fit(self) -> None:
        """Train and validate epoch by epoch, from the beginning or from the checkpoint."""
        if self._checkpoint is not None and self._checkpoint.is_complete(self._run.config.train):
            self._restore_states()
            return
        epochs, steps = self._run.config.train.epochs, len(self._train_loader)
        runner = CallbackRunner(self._callbacks, epochs, steps, self._start, self._restore_states)
        with (
            contextlib.closing(self._progress),
            self._saved_if_images_vanish(),
            _log_how_to_resume(self._run),
            process_setup.ignore_paddle_warnings(),
            self._interrupt,
        ):
            self._model.fit(
                self._train_loader,
                self._validation_loader,
                epochs=epochs - self._start.epoch,
                verbose=0,
                # `paddle.Model` would call its own scheduler callback after ours, which save the schedule.
                callbacks=[LRScheduler(), runner],
            )

    @contextlib.contextmanager
    def _saved_if_images_vanish(self) -> Iterator[None]:
        """Save the run, as after its latest step, if an image cannot be read any more; list unreadable images."""
        try:
            yield
        except LostImageError as error:
            if distributed.world_size() == 1:  # the other ranks do not know of it and wait in a step
                self._saver.save()
            what = str(error).replace(REPLACE_IT, "")
            raise RunFailure(f"{what}; put it back, and resume the run: {_resume_command(self._run)}") from error
        finally:
            if distributed.is_main_process():
                update_findings(self._run.splits(), self._run.path)

    def _write_metrics(self) -> None:
        """Write ``metrics.json`` anew: sections that it had are of other weights."""
        records, best = self._recorder.records, self._recorder.best
        self._run.write_metrics(
            {
                "validation": {"epoch": best.epoch, "loss": best.validation_loss, "top1": best.validation_top1}
                | ({} if best.validation_macro_f1 is None else {"macro_f1": best.validation_macro_f1}),
                "environment": environment.describe("paddle", "python", "processes", "processor", "process")
                | {"device": self._device},
                "train": {
                    "epochs": len(records),
                    "seconds": round(self._recorder.seconds, 1),
                    "seconds_training_only": round(sum(record.seconds for record in records), 1),
                    "loss": records[-1].train_loss,
                    "top1": records[-1].train_top1,
                },
            }
        )


def _augmented_images(run: Run) -> np.ndarray:
    """Return a grid of the first batch, from a loader of its own, so that the run's random state stays as it is."""
    with contextlib.closing(iter(make_train_loader(run))) as batches:
        images, *_ = next(batches)
    return image_grid(run.normalize().denormalize(images[:GRID_IMAGES]))


@contextlib.contextmanager
def _log_how_to_resume(run: Run) -> Iterator[None]:
    """If the block is stopped, add the command that resumes the run to the message."""
    try:
        yield
    except Stopped as stopped:
        stopped.remedy = f"{_resume_command(run)} resumes the run"
        logger.info("%s", stopped, extra=IN_FILES)
        raise


def _resume_command(run: Run) -> str:
    """Return the command that resumes the run in as many processes as now."""
    ranks = distributed.joined()
    if ranks.local_world_size < ranks.world_size:
        return "the same command with --resume auto on each host"
    script = command("train")
    if ranks.world_size > 1:
        script = script.removeprefix("python ").replace("paddle-resnet", "$(which paddle-resnet)")
        script = f"python -m paddle.distributed.launch --nproc_per_node {ranks.world_size} {script}"
    return f"{script} --resume {quoted(str(run.path))}"
