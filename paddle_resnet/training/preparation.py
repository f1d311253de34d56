"""What a run and a learning-rate sweep begin with: a config becomes network, loader and model."""

from __future__ import annotations

import paddle
from paddle.static import InputSpec

from paddle_resnet.config import Config
from paddle_resnet.console import download_bar, logger
from paddle_resnet.data import Normalize, Splits, TrainLoader, open_splits
from paddle_resnet.models import ImageClassifier, count_parameters, create_configured_model, load_pretrained
from paddle_resnet.training.accumulation import AccumulatingModel
from paddle_resnet.training.cpu_backend import use_cpu_backend
from paddle_resnet.training.loss import SmoothedCrossEntropy
from paddle_resnet.training.measures import SampleMeans
from paddle_resnet.training.optimizer import make_optimizer


def open_training(config: Config, *, with_weights: bool = True) -> tuple[Splits, ImageClassifier]:
    """Open the images and build the network, with the weights it starts from unless they come from a checkpoint."""
    with download_bar("data") as report:
        splits = open_splits(config.data, report)
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
    return splits, network


def make_train_loader(config: Config, splits: Splits, normalize: Normalize) -> TrainLoader:
    """Make the loader of the training images; each batch is one step's, accumulated pieces and all."""
    return TrainLoader(
        splits.train,
        batch_size=config.train.batch_size * config.train.accumulate,
        image_size=config.data.image_size,
        resize=splits.resize,
        normalize=normalize,
        augment=config.augment,
        seed=config.train.seed,
        balanced=config.data.sampler == "balanced",
    )


def make_model(
    config: Config, network: ImageClassifier, means: SampleMeans, steps_per_epoch: int, device: str
) -> paddle.Model:
    """Make the network ready to train on `device`, and the `paddle.Model` around it: optimizer, loss and measures."""
    use_cpu_backend(network, config.train.cpu_backend, device, config.train.cpu_precision)
    model = AccumulatingModel(
        network,
        InputSpec([None, 3, None, None], "float32", "images"),
        InputSpec([None, 1], "int64", "labels"),
        piece=config.train.batch_size,
    )
    model.prepare(
        make_optimizer(network, config.train, steps_per_epoch),
        SmoothedCrossEntropy(config.train.label_smoothing),
        means,
        amp_configs="O1" if config.train.amp and device != "cpu" else None,
    )
    return model
