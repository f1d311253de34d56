"""The parts of a recipe that act between epochs, as a config asks for them."""

from __future__ import annotations

import paddle
from paddle.callbacks import Callback

from paddle_resnet import paddle_compat
from paddle_resnet.config import Config, TrainConfig
from paddle_resnet.data import TrainLoader
from paddle_resnet.models import ImageClassifier
from paddle_resnet.tracking.training_log import VisualDLLog
from paddle_resnet.training.callbacks.early_stopping import EarlyStopping, Records, ReduceOnPlateau
from paddle_resnet.training.callbacks.fine_tuning import FrozenBody
from paddle_resnet.training.callbacks.histograms import Histograms
from paddle_resnet.training.callbacks.part_rates import PartRates, parts_of_a_rate
from paddle_resnet.training.callbacks.progressive import GrowingCrops, crop_sizes


def recipe_callbacks(
    config: Config,
    network: ImageClassifier,
    optimizer: paddle.optimizer.Optimizer,
    loader: TrainLoader,
    records: Records,
) -> list[Callback]:
    """Make them; they stand after what records the epochs."""
    train = config.train
    callbacks: list[Callback] = []
    if train.first_size is not None:
        callbacks.append(GrowingCrops(loader, crop_sizes(train.first_size, config.data.image_size, train.epochs)))
    if train.freeze_epochs > 0:
        callbacks.append(FrozenBody(network, train.freeze_epochs, optimizer))
    if train.schedule == "plateau":
        callbacks.append(ReduceOnPlateau(paddle_compat.learning_rate_of(optimizer), train.plateau_patience, records))
    if train.patience is not None:
        callbacks.append(EarlyStopping(train.patience, records))
    return callbacks


def watching_callbacks(train: TrainConfig, network: ImageClassifier, visual_dl: VisualDLLog) -> list[Callback]:
    """Make them; they stand behind what freezes parts of the network."""
    callbacks: list[Callback] = []
    parts = parts_of_a_rate(network, train)
    if len(parts) > 1:
        callbacks.append(PartRates(parts, visual_dl))
    if train.histogram_steps is not None:
        callbacks.append(Histograms(network, train.histogram_steps, visual_dl))
    return callbacks
