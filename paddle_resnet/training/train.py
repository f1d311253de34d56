"""One run: from a config to a folder with checkpoints, curves and figures of its validation."""

from __future__ import annotations

import contextlib
import logging
import platform
import time
import warnings
from collections.abc import Iterator
from logging.handlers import MemoryHandler

import numpy as np
import paddle
from paddle.callbacks import Callback
from paddle.static import InputSpec

from paddle_resnet import runtime
from paddle_resnet.config import Config
from paddle_resnet.console import download_bar, logger
from paddle_resnet.data import Normalize, TrainLoader, ValidationLoader, open_splits
from paddle_resnet.models import ImageClassifier, count_parameters, create_configured_model, load_pretrained
from paddle_resnet.training.callbacks import Progress, Recorder
from paddle_resnet.training.checkpoints import Checkpoints
from paddle_resnet.training.cpu_backend import use_cpu_backend
from paddle_resnet.training.ema import MovingAverage
from paddle_resnet.training.interrupt import StopBetweenSteps
from paddle_resnet.training.loss import SmoothedCrossEntropy
from paddle_resnet.training.measures import SampleMeans
from paddle_resnet.training.optimizer import make_optimizer
from paddle_resnet.training.progressive import GrowingCrops, crop_sizes
from paddle_resnet.training.run_folder import EpochRecord, RunFolder
from paddle_resnet.training.visual_dl import VisualDLLog, image_grid
from paddle_resnet.training.whitening import whiten_stem

GRID_IMAGES = 32


def train(config: Config) -> RunFolder:
    """Train one network as `config` says, and return the run's folder.

    Nothing is written before device, data and weights have been found good. An earlier run of the name is set aside.

    Raises:
        UsageError: device, data, model or weights are not what the config says.
        RunFailure: the loss became NaN or infinite, or the folder cannot be written.
    """
    # Paddle keys an optimizer's state by names it numbers through the whole process: each run counts from 0.
    with paddle.utils.unique_name.guard(), _logging_to_memory() as lines:
        device = runtime.select_device(config.device)
        logger.info("paddle %s on %s; %s", paddle.__version__, device, runtime.prepare_process())
        runtime.seed_everything(config.train.seed)
        with download_bar("data") as report:
            splits = open_splits(config.data, report)
        network = create_configured_model(config.model, len(splits.classes))
        logger.info("%s: %s trainable parameters", config.model.name, f"{count_parameters(network):,}")
        if config.model.pretrained is not None:
            with download_bar("weights") as report:
                loaded = load_pretrained(network, config.model.name, config.model.pretrained, report=report)
            logger.info("%s", loaded.summary())
        logger.info(
            "%s: %d training, %d validation and %d test images in %d classes",
            config.data.source,
            len(splits.train),
            len(splits.validation),
            len(splits.test),
            len(splits.classes),
        )
        run, kept = RunFolder.create(config, splits)
        if kept is not None:
            logger.info("the earlier run %s was kept as %s", run.path, kept)
        lines.setTarget(_file_handler(run))
        with contextlib.closing(VisualDLLog(run.vdl_path)) as visual_dl:
            _fit(run, network, visual_dl, device)
    return run


def _fit(run: RunFolder, network: ImageClassifier, visual_dl: VisualDLLog, device: str) -> None:
    """Train the network through `paddle.Model.fit`."""
    config, splits, normalize = run.config, run.splits(), run.normalize()
    train_loader = _train_loader(run, normalize)
    validation_loader = ValidationLoader(
        splits.validation,
        batch_size=config.train.batch_size,
        image_size=config.data.image_size,
        resize=splits.resize,
        normalize=normalize,
    )
    if config.model.pretrained is None:
        whiten_stem(network, splits.train, splits.resize, config.data.image_size, normalize)
    visual_dl.config(config.to_yaml())
    visual_dl.images(_augmented_images(run, normalize))

    use_cpu_backend(network, config.train.cpu_backend, device, config.train.cpu_precision)
    model = paddle.Model(
        network, InputSpec([None, 3, None, None], "float32", "images"), InputSpec([None, 1], "int64", "labels")
    )
    model.prepare(
        make_optimizer(network, config.train, len(train_loader)),
        SmoothedCrossEntropy(config.train.label_smoothing),
        SampleMeans(),
        amp_configs="O1" if config.train.amp and device != "cpu" else None,
    )
    average = MovingAverage(network, config.train.ema) if config.train.ema is not None else None
    checkpoints = Checkpoints(run, average)
    recorder, progress = Recorder(run, visual_dl, checkpoints), Progress()
    # The recorder stands before the average, which leaves the network once the validated weights are saved.
    callbacks: list[Callback] = [progress, recorder, *([average] if average is not None else [])]
    if config.train.first_size is not None:
        sizes = crop_sizes(config.train.first_size, config.data.image_size, config.train.epochs)
        callbacks.append(GrowingCrops(train_loader, sizes))
    started = time.monotonic()
    try:
        with _without_paddles_warnings(), StopBetweenSteps() as interrupt:
            model.fit(
                train_loader,
                validation_loader,
                epochs=config.train.epochs,
                verbose=0,
                callbacks=[*callbacks, interrupt],
            )
    except KeyboardInterrupt:
        logger.info("interrupted; what the finished epochs gave is kept in %s", run.path)
        raise
    finally:
        progress.stop()
    assert checkpoints.best is not None, "fit ends with at least one validated epoch"
    _write_metrics(run, recorder.records, checkpoints.best, time.monotonic() - started, device)


def _write_metrics(run: RunFolder, records: list[EpochRecord], best: EpochRecord, seconds: float, device: str) -> None:
    """Write what was measured in training, and on what."""
    run.update_metrics(
        "train",
        {
            "epochs": len(records),
            "seconds": round(seconds, 1),
            "seconds_training_only": round(sum(record.seconds for record in records), 1),
            "loss": records[-1].train_loss,
            "top1": records[-1].train_top1,
        },
    )
    run.update_metrics("validation", {"epoch": best.epoch, "loss": best.validation_loss, "top1": best.validation_top1})
    run.update_metrics(
        "environment",
        {
            "paddle": paddle.__version__,
            "python": platform.python_version(),
            "device": device,
            "process": str(runtime.prepare_process()),
        },
    )


def _train_loader(run: RunFolder, normalize: Normalize) -> TrainLoader:
    config, splits = run.config, run.splits()
    return TrainLoader(
        splits.train,
        batch_size=config.train.batch_size,
        image_size=config.data.image_size,
        resize=splits.resize,
        normalize=normalize,
        augment=config.augment,
        seed=config.train.seed,
    )


def _augmented_images(run: RunFolder, normalize: Normalize) -> np.ndarray:
    """Draw a grid of the first batch, from a loader of its own so that the run's random state is not touched."""
    with contextlib.closing(iter(_train_loader(run, normalize))) as batches:
        images, _ = next(batches)
    return image_grid(normalize.denormalize(images[:GRID_IMAGES]))


@contextlib.contextmanager
def _logging_to_memory() -> Iterator[MemoryHandler]:
    """Hold log lines back until the run has a folder to write them to."""
    lines = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL)
    logger.addHandler(lines)
    try:
        yield lines
    finally:
        logger.removeHandler(lines)
        lines.close()
        if lines.target is not None:
            lines.target.close()


@contextlib.contextmanager
def _without_paddles_warnings() -> Iterator[None]:
    """Hide what `paddle.Model` warns of in itself: it copies each batch, and switches BatchNorm to training."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "To copy construct from a tensor", UserWarning)
        warnings.filterwarnings("ignore", "When training, we now always track", UserWarning)
        yield


def _file_handler(run: RunFolder) -> logging.Handler:
    handler = logging.FileHandler(run.log_path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s"))
    return handler
