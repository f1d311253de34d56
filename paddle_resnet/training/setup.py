"""From a config to what a training needs: images, network, loaders, and the model with its optimizer."""

from __future__ import annotations

import numpy as np
import paddle
from paddle import nn
from paddle.static import InputSpec

from paddle_resnet import distributed
from paddle_resnet.config import Config
from paddle_resnet.console import download_bar, logger
from paddle_resnet.data import Normalize, Split, Splits, TrainLoader, ValidationLoader
from paddle_resnet.data.augment.custom import find_transform
from paddle_resnet.data.checks import warn_of_data
from paddle_resnet.data.datasets.found_files import class_name
from paddle_resnet.errors import UsageError, counted, shown
from paddle_resnet.images.decode import resize_and_crop_batch
from paddle_resnet.models import (
    ImageClassifier,
    count_parameters,
    create_configured_model,
    load_weights,
    read_state_dict,
)
from paddle_resnet.models.stems import WhiteningStem
from paddle_resnet.models.sync_batch_norm import synchronize_batch_norm
from paddle_resnet.models.weights.identify import HEAD
from paddle_resnet.onednn import accelerate
from paddle_resnet.training.metrics import TrainMetrics
from paddle_resnet.training.optim.loss import SmoothedCrossEntropy, class_weights
from paddle_resnet.training.optim.optimizer import make_optimizer
from paddle_resnet.training.run_folder import Run, run_of_weights
from paddle_resnet.training.train_step import TrainStepModel, scaled_learning_rate

WHITENING_IMAGES = 500
"""They have 480,000 patches at 32x32, whose second moments hardly depend on which images they are."""


def open_data_and_network(run: Run, *, with_weights: bool = True) -> ImageClassifier:
    """Open the run's images and build its network with its first weights, the same in all ranks, for this device.

    The first rank of each host goes first, because it may have to download the images. Where a checkpoint replaces
    the weights, ``model.pretrained`` need not be loaded (`with_weights`).

    Raises:
        UsageError: data, model, weights, ``augment.custom`` or the processor are not what the config says, or the
            images are too few for the ranks.
    """
    config = run.config
    with distributed.main_process_first(on_host=True):
        with download_bar("data") as report:
            splits = run.splits(report)
        network = create_configured_model(config.model, len(splits.classes))
        logger.info("%s: %s trainable parameters", config.model.name, f"{count_parameters(network):,}")
        if with_weights and config.model.pretrained is not None:
            with download_bar("weights") as report:
                loaded = load_weights(network, _first_weights(run), progress=report, label=config.model.pretrained)
            logger.info("%s", loaded.summary())
    logger.info(
        f"{config.data.source}: {len(splits.train)} training, {len(splits.validation)} validation and "
        f"{len(splits.test)} test images in {len(splits.classes)} classes"
    )
    _require_enough_images(config, splits)
    if config.augment.custom is not None:
        find_transform(config.augment.custom)
    weights = class_weights(config.train, splits.train.labels, splits.classes)
    if weights is not None:
        logger.info("class weights: %s", shown(", ".join(map("{} {:.3g}".format, splits.classes, weights)), 300))
    warn_of_data(splits, _images_per_step(config), run.normalize())
    _warn_of_single_images(config, splits, network)
    stem = getattr(network, "conv1", None)
    if isinstance(stem, WhiteningStem):  # also where a checkpoint follows: whitening filters are not trained
        if config.model.pretrained is None:
            whiten_stem(stem, splits.train, splits.resize, config.data.image_size, run.normalize())
        else:
            stem.fix_filters()
    # Processors of other hosts may have rounded differently.
    distributed.broadcast(list(network.state_dict().values()))
    device, train = paddle.get_device(), config.train
    if train.sync_batch_norm and distributed.world_size() > 1:
        synchronize_batch_norm(network, device)
    return accelerate(network, train.cpu_backend, device, train.cpu_precision)


def _first_weights(run: Run) -> str | dict[str, np.ndarray]:
    """Return ``model.pretrained``; of a run with other classes, be they as many, its weights without the head."""
    source = run.config.model.pretrained
    assert source is not None
    earlier, classes = run_of_weights(source), run.splits().classes
    # Runs of early versions have the names of folders from macOS in decomposed form.
    if earlier is None or [*map(class_name, earlier.classes())] == [*map(class_name, classes)]:
        return source
    others = shown(", ".join(earlier.classes()), 200)
    logger.info(f"{source}: its classes are {others}: the {len(classes)} classes here get a new head")
    return {name: array for name, array in read_state_dict(source).items() if name not in HEAD}


def whiten_stem(stem: WhiteningStem, split: Split, resize: int, image_size: int, normalize: Normalize) -> None:
    """Compute the filters of a new network's whitening stem from images of `split`."""
    # Spread over the split, because a folder's images are sorted by class.
    chosen = np.linspace(0, len(split) - 1, min(WHITENING_IMAGES, len(split)), dtype=np.int64)
    stem.whiten(normalize(paddle.to_tensor(resize_and_crop_batch(split.batch(chosen), resize, image_size))))


def _images_per_step(config: Config) -> int:
    """Return the images of one optimizer step, over all micro-batches and ranks."""
    return config.train.batch_size * config.train.accumulate * distributed.world_size()


def _require_enough_images(config: Config, splits: Splits) -> None:
    """Check that each of several ranks has images of every batch; a single process takes a smaller batch."""
    step, count = _images_per_step(config), distributed.world_size()
    if count > 1 and step > len(splits.train):
        raise UsageError(
            f"train.batch_size {config.train.batch_size} x train.accumulate {config.train.accumulate} x {count} "
            f"processes are {step} images a step, but there are {len(splits.train)}; lower train.batch_size"
        )
    if count > len(splits.validation):
        raise UsageError(
            f"{len(splits.validation)} validation images are too few for {count} processes: hold out a larger share "
            "(data.validation_fraction), or start fewer"
        )


def _warn_of_single_images(config: Config, splits: Splits, network: ImageClassifier) -> None:
    """Warn if BatchNorm would compute statistics of a single image: the network may then fail in evaluation."""
    train, images = config.train, min(_images_per_step(config), len(splits.train))
    synchronized = distributed.world_size() > 1 and train.sync_batch_norm
    last_micro_batch = images % train.batch_size or train.batch_size
    has_batch_norm = any(isinstance(each, nn.BatchNorm2D) for each in network.sublayers())
    if last_micro_batch == 1 and not synchronized and has_batch_norm:
        logger.warning(
            f"warning: train.batch_size {train.batch_size} with {counted(len(splits.train), 'training image')}: "
            "BatchNorm then normalises an image by its own statistics only, and the network may be at chance when it "
            "is evaluated; batches of 8 or more are usual"
        )


def make_train_loader(run: Run) -> TrainLoader:
    """Make the loader of the training images. A batch of it is one optimizer step, all micro-batches included.

    Each rank loads its share of each micro-batch, so that all together see the same micro-batches as a single process
    with a larger `train.batch_size`.
    """
    config, splits, ranks = run.config, run.splits(), distributed.joined()
    images = np.arange(_images_per_step(config))
    rank_positions = images.reshape(config.train.accumulate, ranks.world_size, -1)[:, ranks.rank].ravel()
    return TrainLoader(
        splits.train,
        batch_size=len(images),
        image_size=config.data.image_size,
        resize=splits.resize,
        normalize=run.normalize(),
        augment=config.augment,
        seed=config.train.seed,
        balanced=config.data.sampler == "balanced",
        rank_positions=rank_positions if ranks.world_size > 1 else None,
        prefetch=config.data.prefetch,
    )


def make_validation_loader(run: Run) -> ValidationLoader:
    """Make the loader of this rank's share of the validation images."""
    config, splits, ranks = run.config, run.splits(), distributed.joined()
    return ValidationLoader(
        splits.validation,
        batch_size=config.train.batch_size,
        image_size=config.data.image_size,
        resize=splits.resize,
        normalize=run.normalize(),
        rank=ranks.rank,
        world_size=ranks.world_size,
        prefetch=config.data.prefetch,
    )


def make_model(
    run: Run, network: ImageClassifier, metrics: TrainMetrics, steps_per_epoch: int, device: str
) -> TrainStepModel:
    """Prepare the network for training on `device`; return the model with its optimizer, loss and metrics."""
    train, splits, world_size = run.config.train, run.splits(), distributed.world_size()
    if world_size > 1:
        rate = scaled_learning_rate(train.learning_rate, train.scale_learning_rate, world_size)
        logger.info(
            f"{world_size} processes: {train.batch_size * train.accumulate} images each, "
            f"{_images_per_step(run.config)} a step; learning rate {rate:g} "
            f"({train.scale_learning_rate}: train.scale_learning_rate)"
        )
        train = train.model_copy(update={"learning_rate": rate})
    model = TrainStepModel(
        network,
        InputSpec([None, 3, None, None], "float32", "images"),
        InputSpec([None, 1], "int64", "labels"),
        micro_batch=train.batch_size,
    )
    model.prepare(
        make_optimizer(network, train, steps_per_epoch),
        SmoothedCrossEntropy(train.label_smoothing, class_weights(train, splits.train.labels, splits.classes)),
        metrics,
        amp_configs="O1" if train.amp and device != "cpu" else None,
    )
    return model
