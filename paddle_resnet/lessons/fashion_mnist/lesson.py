"""The ResNet-18 of the book "Dive into Deep Learning", with its recipe: on Fashion-MNIST, or small on the digits."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from paddle_resnet import runtime
from paddle_resnet.config import Config
from paddle_resnet.console import logger
from paddle_resnet.lessons.common.network_costs import describe_machine, format_shape, model_summary
from paddle_resnet.lessons.common.training_loop import LessonData, apply_cpu_backend, train_batches
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import RUNS, Page
from paddle_resnet.models import create_model
from paddle_resnet.plots.curves import draw_learning_curves
from paddle_resnet.results import Evaluation
from paddle_resnet.tracking.training_log import VisualDLLog
from paddle_resnet.training import EpochRecord
from paddle_resnet.training.optim.optimizer import make_optimizer

NETWORK = "resnet18_d2l"
BOOK_SIZE = 96
BOOK_TEST_TOP1 = 0.893
BOOK_TEST_IMAGES = 10_000
FASHION_MNIST_IMAGES = 60_000

RECIPE: dict[str, Any] = {  # the book's training: plain SGD with a constant learning rate
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

SMALL_BATCH = 64


def _standard_error(top1: float, images: int) -> float:
    """Return the binomial standard error of an accuracy."""
    return math.sqrt(top1 * (1 - top1) / images)


def teach(page: Page, effort: Effort) -> None:
    """Build the book's network, show where this project differs, train it and compare."""
    config = _config(effort)
    _show_network(page, config.data.image_size)
    _show_grey_stem(page)
    _show_initializer(page)
    _show_recipe(page, config)
    data = LessonData(config)
    history, test = _train(data, page.folder / RUNS / NETWORK / "vdl")
    _show_curves(page, config, history, test)
    if config.data.source == "fashion_mnist":
        _compare_with_book(page, config, test)
    else:
        _state_limits(page, config, len(data.splits.train), history[-1].images_per_second, test)


def _config(effort: Effort) -> Config:
    """Make the config: the book's recipe on its data, or with smaller batches on the digits."""
    source, size = ("fashion_mnist", BOOK_SIZE) if effort.full else ("digits", 32)
    recipe = {**RECIPE, "epochs": effort.epochs(RECIPE["epochs"])}
    if not effort.full:
        recipe["batch_size"] = SMALL_BATCH
    # The book's only preprocessing is scaling pixels to 0..1.
    data = {"source": source, "image_size": size, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    return Config.from_values({"data": data, "train": recipe, "model": {"name": NETWORK}}, effort.overrides)


def _show_network(page: Page, size: int) -> None:
    """Show the network's shapes and multiply-adds at the book's sizes and at `size`."""
    page.section("network")
    sizes = sorted({224, BOOK_SIZE, size}, reverse=True)
    summaries = [model_summary(NETWORK, each) for each in sizes]
    parameters = summaries[0].parameters
    page.values(
        f'network = create_model("{NETWORK}")',
        f"network.conv1.weight.shape   {list(create_model(NETWORK).conv1.weight.shape)}",
        f"parameters                   {parameters:,}",
    )
    page.say("sizes", book_size=BOOK_SIZE)
    shapes = [{row.name: format_shape(row.output_shape[1:], "x") for row in summary.walk()} for summary in summaries]
    # The stem, each stage's last block, pooling and the head.
    parts = [name for name in shapes[0] if name in ("maxpool", "avgpool", "fc") or name.endswith(".1")]
    rows = [[part, *(shape[part] for shape in shapes)] for part in parts]
    macs = [summary.macs / 1e9 for summary in summaries]
    page.table(
        "shapes", [*rows, ["GMACs", *(f"{each:.3f}" for each in macs)]], sizes=[f"{each}x{each}" for each in sizes]
    )
    page.record(parameters=parameters, gmacs_at_96=macs[sizes.index(BOOK_SIZE)], size=size)


def _show_grey_stem(page: Page) -> None:
    """Show that an RGB stem on three equal channels equals a one-channel stem."""
    paddle.seed(0)
    grey = paddle.to_tensor(np.random.default_rng(0).random((2, 1, 32, 32), dtype=np.float32))
    three = create_model(NETWORK, in_channels=3).conv1
    one = create_model(NETWORK).conv1
    one.weight.set_value(three.weight.sum(axis=1, keepdim=True))
    one.bias.set_value(three.bias)
    with paddle.no_grad():
        difference = float((three(grey.expand([-1, 3, -1, -1])) - one(grey)).abs().max().item())
    more = three.weight.size - one.weight.size
    page.section("grey_stem", more=more, difference=difference)
    page.record(stem_difference=difference, stem_extra_weights=more)


def _show_initializer(page: Page) -> None:
    """Run the initialiser line of the book's Paddle edition, which has no effect, and the correct one."""
    paddle.seed(0)
    layer = nn.Conv2D(1, 64, 7, stride=2, padding=3)
    as_made = layer.weight.numpy().copy()
    nn.initializer.XavierUniform(layer.weight)
    after_book = layer.weight.numpy().copy()
    nn.initializer.XavierUniform()(layer.weight)
    after_call = layer.weight.numpy().copy()
    moved = float(np.abs(after_book - as_made).max())
    here_weight = create_model(NETWORK).conv1.weight.numpy()
    default, xavier, here = (float(weight.std()) for weight in (as_made, after_call, here_weight))
    page.section("initializer")
    fan_in, fan_out = 49, 64 * 49
    page.values(
        f"{'as Conv2D makes it':31}std {default:.4f}   sqrt(2 / fan_in) = {math.sqrt(2 / fan_in):.4f}",
        f"{'XavierUniform(layer.weight)':31}std {after_book.std():.4f}   largest change {moved:.4f}",
        f"{'XavierUniform()(layer.weight)':31}std {xavier:.4f}   "
        f"sqrt(2 / (fan_in + fan_out)) = {math.sqrt(2 / (fan_in + fan_out)):.4f}",
        f"{'here':31}std {here:.4f}   sqrt(2 / fan_out) = {math.sqrt(2 / fan_out):.4f}",
    )
    page.say("initializer_without_effect")
    page.record(initializer_moved=moved, default_std=default, xavier_std=xavier, here_std=here)


def _show_recipe(page: Page, config: Config) -> None:
    page.section("recipe", recipe=RECIPE)
    data, train = config.data, config.train
    page.values(
        f"data   {data.source}, {data.image_size}x{data.image_size}",
        f"train  epochs {train.epochs}, batch {train.batch_size}, {train.optimizer}, learning rate "
        f"{train.learning_rate:g}, momentum {train.momentum:g}, weight decay {train.weight_decay:g}",
    )
    page.say("differences")


class _FirstChannel(nn.Layer):
    """Keeps one of the three equal channels."""

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        return images[:, :1]


def _train(data: LessonData, curves: Path) -> tuple[list[EpochRecord], Evaluation]:
    """Train as the book does and measure the last epoch on the test split. VisualDL's files go to `curves`."""
    config, splits = data.config, data.splits
    runtime.seed_everything(config.train.seed)
    book = create_model(NETWORK, len(splits.classes))
    apply_cpu_backend(book, config.train)
    network = nn.Sequential(_FirstChannel(), book)
    loader = data.loader(config.train.batch_size, config.train.seed, augment=config.augment)
    optimizer = make_optimizer(book, config.train, len(loader))
    history = []
    log = VisualDLLog(curves)
    for epoch in range(1, config.train.epochs + 1):
        rate, started = optimizer.get_lr(), time.monotonic()
        train_loss, train_top1 = train_batches(network, optimizer, loader)
        seconds = time.monotonic() - started
        held_out = data.measure(network, splits.validation)
        speed = len(loader) * config.train.batch_size / seconds
        means = train_loss, train_top1, held_out.loss, held_out.top1
        history.append(EpochRecord(epoch, *means, rate, speed, seconds))
        log.epoch(history[-1])
        logger.info(
            "epoch %d/%d: training loss %.3f, held-out top-1 %.2f%%, %.0f s",
            *(epoch, config.train.epochs, train_loss, 100 * held_out.top1, seconds),
        )
    log.close()
    return history, data.measure(network, splits.test)


def _show_curves(page: Page, config: Config, history: list[EpochRecord], test: Evaluation) -> None:
    page.heading("curves_heading")
    last = history[-1]
    late = [row.validation_top1 for row in history[-5:]]
    data = f"{config.data.source}, {config.data.image_size}x{config.data.image_size}"
    page.figure("curves", lambda: draw_learning_curves(history, f"{NETWORK}: {data}"))
    page.say("last_epoch", last=last, images=test.images, top1=test.top1, machine=describe_machine())
    page.say("constant_rate", epochs=len(late), lowest=min(late), highest=max(late))
    page.record(
        epochs=last.epoch,
        train_loss=last.train_loss,
        train_top1=last.train_top1,
        validation_top1=[row.validation_top1 for row in history],
        learning_rates=[row.learning_rate for row in history],
        test_top1=test.top1,
        test_images=test.images,
        images_per_second=last.images_per_second,
    )


def _compare_with_book(page: Page, config: Config, test: Evaluation) -> None:
    difference = test.top1 - BOOK_TEST_TOP1
    as_book = config.data.image_size == BOOK_SIZE and config.train.epochs == RECIPE["epochs"]
    errors = _standard_error(test.top1, test.images), _standard_error(BOOK_TEST_TOP1, BOOK_TEST_IMAGES)
    page.section(
        "compared_with_book",
        book_test_top1=BOOK_TEST_TOP1,
        top1=test.top1,
        difference=100 * difference,
        error=100 * math.hypot(*errors),
        other_recipe="" if as_book else page.text("other_recipe"),
    )
    page.record(difference_from_book=difference)


def _state_limits(page: Page, config: Config, train_images: int, speed: float, test: Evaluation) -> None:
    """Say how little the digits show, and how long the full form takes at the same multiply-adds per second.

    `speed` is the images per second of the last epoch.
    """
    rate = speed * model_summary(NETWORK, config.data.image_size).macs
    trained = RECIPE["epochs"] * FASHION_MNIST_IMAGES * (1 - config.data.validation_fraction)
    hours = trained * model_summary(NETWORK, BOOK_SIZE).macs / rate / 3600
    page.section(
        "limits",
        book_test_top1=BOOK_TEST_TOP1,
        source=config.data.source,
        train_images=train_images,
        images=test.images,
        error=100 * _standard_error(test.top1, test.images),
    )
    page.values(
        "python tools/lesson.py fashion-mnist --full",
        "python tools/lesson.py fashion-mnist --full -o data.image_size=32    # the small variant, for a CPU",
    )
    page.say("hours", epochs=RECIPE["epochs"], book_size=BOOK_SIZE, hours=hours)
