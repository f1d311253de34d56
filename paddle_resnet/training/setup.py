"""What a run and a learning-rate sweep begin with: a config becomes network, loader and model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import paddle
from paddle import nn
from paddle.static import InputSpec

from paddle_resnet import distributed
from paddle_resnet.config import Config
from paddle_resnet.console import download_bar, logger
from paddle_resnet.data import Normalize, Split, Splits, TrainLoader, ValidationLoader, open_splits
from paddle_resnet.download import ProgressFn
from paddle_resnet.errors import UsageError, counted
from paddle_resnet.images.decode import resize_and_crop_batch
from paddle_resnet.models import ImageClassifier, count_parameters, create_configured_model, load_pretrained
from paddle_resnet.models.stems import WhiteningStem
from paddle_resnet.models.sync_batch_norm import synchronize_batch_norm
from paddle_resnet.training.cpu_backend import use_cpu_backend
from paddle_resnet.training.metrics import SampleMeans
from paddle_resnet.training.optim.loss import SmoothedCrossEntropy
from paddle_resnet.training.optim.optimizer import make_optimizer
from paddle_resnet.training.step_models import AccumulatingModel, SynchronousModel, scaled_learning_rate


def open_training(
    config: Config, *, with_weights: bool = True, open_data: Callable[[ProgressFn], Splits] | None = None
) -> tuple[Splits, ImageClassifier]:
    """Open the images and build the network, with the weights it starts from unless they come from a checkpoint.

    Of several processes on a host, one opens them first: it may have to download them. Images that a run was trained on
    are opened by `open_data`; None: as the config says.

    Raises:
        UsageError: data, model or weights are not what the config says, or too few images for several processes.
    """
    with distributed.main_process_first(on_host=True):
        with download_bar("data") as report:
            splits = open_splits(config.data, report) if open_data is None else open_data(report)
        network = create_configured_model(config.model, len(splits.classes))
        logger.info("%s: %s trainable parameters", config.model.name, f"{count_parameters(network):,}")
        if with_weights and config.model.pretrained is not None:
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
    _require_enough_images(config, splits)
    _warn_of_single_images(config, splits, network)
    return splits, network


def _images_a_step(config: Config) -> int:
    """Of all pieces and all processes."""
    return config.train.batch_size * config.train.accumulate * distributed.world_size()


def _require_enough_images(config: Config, splits: Splits) -> None:
    """See that each of several processes has images of every batch; a single one takes fewer as they are.

    Raises:
        UsageError: there are too few.
    """
    step, count = _images_a_step(config), distributed.world_size()
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
    """Say where BatchNorm's statistics are of one image: what is learned by them may be worth nothing in evaluation."""
    train, images = config.train, min(_images_a_step(config), len(splits.train))
    together = distributed.world_size() > 1 and train.sync_batch_norm
    piece = images % train.batch_size or train.batch_size
    if piece == 1 and not together and any(isinstance(each, nn.BatchNorm2D) for each in network.sublayers()):
        logger.warning(
            "warning: train.batch_size %d with %s: BatchNorm then normalises an image by its own statistics alone, and "
            "the network may be at chance when it is evaluated; batches of 8 or more are usual",
            train.batch_size,
            counted(len(splits.train), "training image"),
        )


def make_train_loader(config: Config, splits: Splits, normalize: Normalize) -> TrainLoader:
    """Make the loader of the training images; each batch is one step's, accumulated pieces and all.

    Of several processes, each has its share of each piece: a single process with as large a batch would see the same
    pieces.
    """
    ranks = distributed.joined()
    pieces = np.arange(_images_a_step(config))
    rank_positions = pieces.reshape(config.train.accumulate, ranks.world_size, -1)[:, ranks.rank].ravel()
    return TrainLoader(
        splits.train,
        batch_size=len(pieces),
        image_size=config.data.image_size,
        resize=splits.resize,
        normalize=normalize,
        augment=config.augment,
        seed=config.train.seed,
        balanced=config.data.sampler == "balanced",
        rank_positions=rank_positions if ranks.world_size > 1 else None,
    )


def make_validation_loader(config: Config, splits: Splits, normalize: Normalize) -> ValidationLoader:
    """Make the loader of the validation images; of several processes, each has its part of them."""
    ranks = distributed.joined()
    return ValidationLoader(
        splits.validation,
        batch_size=config.train.batch_size,
        image_size=config.data.image_size,
        resize=splits.resize,
        normalize=normalize,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )


def make_model(
    config: Config, network: ImageClassifier, means: SampleMeans, steps_per_epoch: int, device: str
) -> paddle.Model:
    """Make the network ready to train on `device`, and the `paddle.Model` around it: optimizer, loss and measures."""
    train, together = config.train, distributed.world_size()
    if together > 1:
        rate = scaled_learning_rate(train.learning_rate, train.scale_learning_rate, together)
        logger.info(
            "%d processes: %d images each, %d a step; learning rate %g (%s: train.scale_learning_rate)",
            together,
            train.batch_size * train.accumulate,
            train.batch_size * train.accumulate * together,
            rate,
            train.scale_learning_rate,
        )
        train = train.model_copy(update={"learning_rate": rate})
        if train.sync_batch_norm:
            synchronize_batch_norm(network, device)
    use_cpu_backend(network, train.cpu_backend, device, train.cpu_precision)
    model = (SynchronousModel if together > 1 else AccumulatingModel)(
        network,
        InputSpec([None, 3, None, None], "float32", "images"),
        InputSpec([None, 1], "int64", "labels"),
        piece=train.batch_size,
    )
    model.prepare(
        make_optimizer(network, train, steps_per_epoch),
        SmoothedCrossEntropy(train.label_smoothing),
        means,
        amp_configs="O1" if train.amp and device != "cpu" else None,
    )
    return model


IMAGES = 500
"""So many give 480,000 patches at 32x32, whose second moments no longer depend on which images they are."""


def whiten_stem(network: ImageClassifier, split: Split, resize: int, image_size: int, normalize: Normalize) -> None:
    """Let a new network's whitening stem, if it has one, start from images of `split` as evaluation sees them."""
    stem = getattr(network, "conv1", None)
    if not isinstance(stem, WhiteningStem):
        return
    # Spread, as a folder's images stand class by class.
    chosen = np.linspace(0, len(split) - 1, min(IMAGES, len(split)), dtype=np.int64)
    stem.whiten(normalize(paddle.to_tensor(resize_and_crop_batch(split.batch(chosen), resize, image_size))))
