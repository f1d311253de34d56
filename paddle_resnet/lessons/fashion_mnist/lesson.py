"""The ResNet-18 of the book "Dive into Deep Learning", with its recipe: on Fashion-MNIST, or small on the digits."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paddle

from paddle_resnet import runtime
from paddle_resnet.config import Config
from paddle_resnet.console import logger
from paddle_resnet.data import Normalize, Split, Splits, ValidationLoader, open_splits
from paddle_resnet.lessons.common.network_costs import model_summary
from paddle_resnet.lessons.common.timing import describe_machine
from paddle_resnet.lessons.common.training_loop import (
    Batches,
    apply_cpu_backend,
    evaluate_batches,
    make_train_loader,
    train_batches,
)
from paddle_resnet.lessons.fashion_mnist.book_network import (
    BOOK_SIZE,
    NETWORK,
    show_grey_stem,
    show_initializer,
    show_network,
)
from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import RUNS, Page
from paddle_resnet.models import create_model
from paddle_resnet.plots.curves import draw_learning_curves
from paddle_resnet.tracking.training_log import VisualDLLog
from paddle_resnet.training import EpochRecord
from paddle_resnet.training.optim.optimizer import make_optimizer

BOOK_TEST_TOP1 = 0.893
BOOK_TEST_IMAGES = 10_000
FASHION_MNIST_IMAGES = 60_000

RECIPE: dict[str, Any] = {
    "epochs": 10,
    "batch_size": 256,
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "schedule": "step",
    "milestones": [],
    "warmup": 0.0,
}
"""The book's training: plain SGD with a constant learning rate."""

SMALL_BATCH = 64


@dataclass(frozen=True)
class TrainingOutcome:
    """The history of a training, and the test accuracy after its last epoch."""

    history: list[EpochRecord]
    test_top1: float
    test_images: int


def teach(page: Page, effort: Effort) -> None:
    """Build the book's network, show where this project differs, train it and compare."""
    config = _config(effort)
    show_network(page, config.data.image_size)
    show_grey_stem(page)
    show_initializer(page)
    _show_recipe(page, config)
    splits = open_splits(config.data)
    outcome = _train(config, splits, page.folder / RUNS / NETWORK / "vdl")
    _show_curves(page, config, outcome)
    if config.data.source == "fashion_mnist":
        _compare_with_book(page, config, outcome)
    else:
        _state_limits(page, config, splits, outcome)


def _config(effort: Effort) -> Config:
    """Make the config: the book's recipe on its data, or with smaller batches on the digits."""
    source, size = ("fashion_mnist", BOOK_SIZE) if effort.full else ("digits", 32)
    recipe = {**RECIPE, "epochs": effort.epochs(RECIPE["epochs"])}
    if not effort.full:
        recipe["batch_size"] = SMALL_BATCH
    # The book's only preprocessing is scaling pixels to 0..1.
    data = {"source": source, "image_size": size, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    return Config.from_values({"data": data, "train": recipe, "model": {"name": NETWORK}}, effort.overrides)


def _show_recipe(page: Page, config: Config) -> None:
    page.heading("recipe_heading")
    page.say("recipe", epochs=RECIPE["epochs"], batch_size=RECIPE["batch_size"], learning_rate=RECIPE["learning_rate"])
    data, train = config.data, config.train
    page.values(
        f"data   {data.source}, {data.image_size}x{data.image_size}",
        f"train  epochs {train.epochs}, batch {train.batch_size}, {train.optimizer}, learning rate "
        f"{train.learning_rate:g}, momentum {train.momentum:g}, weight decay {train.weight_decay:g}",
    )
    page.say("differences")


def _train(config: Config, splits: Splits, curves: Path) -> TrainingOutcome:
    """Train as the book does and measure the last epoch. VisualDL's files go to `curves`."""
    runtime.select_device(config.device)
    runtime.seed_everything(config.train.seed)
    network = create_model(NETWORK, len(splits.classes))
    apply_cpu_backend(network, config.train)
    normalize = Normalize(splits.mean, splits.std)
    size, batch_size = config.data.image_size, config.train.batch_size
    loader = make_train_loader(splits, batch_size, size, config.train.seed, augment=config.augment)

    def evaluate(split: Split) -> tuple[float, float]:
        return evaluate_batches(network, _grey(ValidationLoader(split, batch_size, size, splits.resize, normalize)))

    optimizer = make_optimizer(network, config.train, len(loader))
    history = []
    log = VisualDLLog(curves)
    for epoch in range(1, config.train.epochs + 1):
        rate, started = optimizer.get_lr(), time.monotonic()
        train_means = train_batches(network, optimizer, _grey(loader))
        seconds = time.monotonic() - started
        validation_means = evaluate(splits.validation)
        images = len(loader) * batch_size
        history.append(EpochRecord(epoch, *train_means, *validation_means, rate, images / seconds, seconds))
        log.epoch(history[-1])
        logger.info(
            "epoch %d/%d: training loss %.3f, held-out top-1 %.2f%%, %.0f s",
            *(epoch, config.train.epochs, train_means[0], 100 * validation_means[1], seconds),
        )
    log.close()
    _, test_top1 = evaluate(splits.test)
    return TrainingOutcome(history, test_top1, len(splits.test))


def _grey(batches: Batches) -> Iterator[list[paddle.Tensor]]:
    """Keep one of the three equal channels."""
    for images, labels in batches:
        yield [images[:, :1], labels]


def _show_curves(page: Page, config: Config, outcome: TrainingOutcome) -> None:
    page.heading("curves_heading")
    history = outcome.history
    last = history[-1]
    late = [row.validation_top1 for row in history[-5:]]
    data = f"{config.data.source}, {config.data.image_size}x{config.data.image_size}"
    page.figure("curves", lambda: draw_learning_curves(history, f"{NETWORK}: {data}"))
    page.say("last_epoch", last=last, images=outcome.test_images, top1=outcome.test_top1, machine=describe_machine())
    page.say("constant_rate", epochs=len(late), lowest=min(late), highest=max(late))
    page.record(
        epochs=last.epoch,
        train_loss=last.train_loss,
        train_top1=last.train_top1,
        validation_top1=[row.validation_top1 for row in history],
        learning_rates=[row.learning_rate for row in history],
        test_top1=outcome.test_top1,
        test_images=outcome.test_images,
        images_per_second=last.images_per_second,
    )


def _standard_error(top1: float, images: int) -> float:
    """Return the binomial standard error of an accuracy."""
    return math.sqrt(top1 * (1 - top1) / images)


def _compare_with_book(page: Page, config: Config, outcome: TrainingOutcome) -> None:
    page.heading("book_heading")
    difference = outcome.test_top1 - BOOK_TEST_TOP1
    as_book = config.data.image_size == BOOK_SIZE and config.train.epochs == RECIPE["epochs"]
    other_recipe = "" if as_book else page.text("other_recipe")
    error = math.hypot(
        _standard_error(outcome.test_top1, outcome.test_images), _standard_error(BOOK_TEST_TOP1, BOOK_TEST_IMAGES)
    )
    page.say(
        "compared_with_book",
        book_test_top1=BOOK_TEST_TOP1,
        top1=outcome.test_top1,
        difference=100 * difference,
        error=100 * error,
        other_recipe=other_recipe,
    )
    page.record(difference_from_book=difference)


def _state_limits(page: Page, config: Config, splits: Splits, outcome: TrainingOutcome) -> None:
    page.heading("limits_heading")
    error = _standard_error(outcome.test_top1, outcome.test_images)
    rate = outcome.history[-1].images_per_second * model_summary(NETWORK, config.data.image_size).macs
    trained = RECIPE["epochs"] * FASHION_MNIST_IMAGES * (1 - config.data.validation_fraction)
    hours = trained * model_summary(NETWORK, BOOK_SIZE).macs / rate / 3600
    page.say(
        "limits",
        book_test_top1=BOOK_TEST_TOP1,
        source=config.data.source,
        train_images=len(splits.train),
        images=outcome.test_images,
        error=100 * error,
    )
    page.values(
        "python tools/lesson.py fashion-mnist --full",
        "python tools/lesson.py fashion-mnist --full -o data.image_size=32    # the small variant, for a CPU",
    )
    page.say("hours", epochs=RECIPE["epochs"], book_size=BOOK_SIZE, hours=hours)
