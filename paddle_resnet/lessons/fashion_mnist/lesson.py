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
    page.heading("The recipe, and what differs from the book", "训练方法，以及与书的不同")
    page.say(
        f"""The book trains for {RECIPE["epochs"]} epochs in batches of {RECIPE["batch_size"]} with plain SGD at a
        constant learning rate of {RECIPE["learning_rate"]}, without augmentation, on pixels from 0 to 1. This run:""",
        f"""书中用普通 SGD 训练 {RECIPE["epochs"]} 轮，批大小 {RECIPE["batch_size"]}，学习
        率 {RECIPE["learning_rate"]} 始终不变，不做数据增强，像素取 0 到 1。本次运行：""",
    )
    data, train = config.data, config.train
    page.values(
        f"data   {data.source}, {data.image_size}x{data.image_size}",
        f"train  epochs {train.epochs}, batch {train.batch_size}, {train.optimizer}, learning rate "
        f"{train.learning_rate:g}, momentum {train.momentum:g}, weight decay {train.weight_decay:g}",
    )
    page.say(
        """What differs: a tenth of the training images is held out, and the curves below show their accuracy at each
        epoch. The test split is measured once, after the last epoch. The book plots the test accuracy at each epoch.
        The initialisation differs as shown above, an incomplete last batch is left out, and the seed is fixed.""",
        """不同之处：这里留出十分之一的训练图像，下面的曲线每轮画的是这一部分；测试集只在最后一轮之后测一次。书中则每轮
        都画测试准确率。此外，初始值如上所述不同，丢弃最后不满的一批，随机种子固定。""",
    )


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
    page.heading("The curves", "训练曲线")
    history = outcome.history
    last = history[-1]
    late = [row.validation_top1 for row in history[-5:]]
    data = f"{config.data.source}, {config.data.image_size}x{config.data.image_size}"
    page.figure(
        "curves",
        lambda: draw_learning_curves(history, f"{NETWORK}: {data}"),
        """Loss and top-1 by epoch, on the training images during training and on the held-out images. The ring marks
        the best epoch; it is not used to select the model.""",
        "各轮的损失与 top-1：训练图像取训练过程中的值，另一条是留出的图像。圆圈标出最好的一轮，但并不据此挑选模型。",
    )
    page.say(
        f"""After epoch {last.epoch}: training loss {last.train_loss:.3f}, training top-1 {last.train_top1:.1%},
        held-out top-1 {last.validation_top1:.1%}. On the test split, {outcome.test_images:,} images, the network is
        right on {outcome.test_top1:.2%}. Training ran at {last.images_per_second:,.0f} images/s in the last epoch.
        {describe_machine().en}""",
        f"""第 {last.epoch} 轮之后：训练损失 {last.train_loss:.3f}，训练 top-1 {last.train_top1:.1%}，留出图像
        的 top-1 {last.validation_top1:.1%}。测试集共 {outcome.test_images:,} 张，答对 {outcome.test_top1:.2%}。最后一轮
        的训练速度为每秒 {last.images_per_second:,.0f} 张。{describe_machine().zh}""",
    )
    page.say(
        f"""With a constant learning rate the weights do not settle: over the last {len(late)} epochs the held-out top-1
        was between {min(late):.1%} and {max(late):.1%}. The last epoch of such a run is one sample from that range. The
        schedules of this project's own configs bring the learning rate to zero.""",
        f"""学习率始终不降，就没有什么让权重停下来：最后 {len(late)} 轮里，留出图像
        的 top-1 在 {min(late):.1%} 与 {max(late):.1%} 之间。这种训练的最后一轮只是从这个范围里抽到的一个值；本项目自己
        的配置都让学习率降到零。""",
    )
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
    page.heading("Compared with the book's result", "与书中的数字对照")
    difference = outcome.test_top1 - BOOK_TEST_TOP1
    as_book = config.data.image_size == BOOK_SIZE and config.train.epochs == RECIPE["epochs"]
    error = math.hypot(
        _standard_error(outcome.test_top1, outcome.test_images), _standard_error(BOOK_TEST_TOP1, BOOK_TEST_IMAGES)
    )
    page.say(
        f"""The book's page shows test accuracy {BOOK_TEST_TOP1} (PyTorch edition, one run). This run gave
        {outcome.test_top1:.3f}, a difference of {100 * difference:+.1f} points. The size of the test splits alone gives
        this difference a standard error of {100 * error:.1f} points, and the variation between epochs comes on top.
        {"" if as_book else "It is not the book's recipe: the values above say what was changed."}""",
        f"""书中显示的测试准确率是 {BOOK_TEST_TOP1}（PyTorch 版，一次运行）。本次得到 {outcome.test_top1:.3f}，相
        差 {100 * difference:+.1f} 个百分点；仅测试集大小就带来 {100 * error:.1f} 个百分点的标准误差，轮与轮之间的摆动还
        要另算。{"" if as_book else "注意，这不是书中的训练方法：改了什么见上面列出的值。"}""",
    )
    page.record(difference_from_book=difference)


def _state_limits(page: Page, config: Config, splits: Splits, outcome: TrainingOutcome) -> None:
    page.heading("What this run cannot show", "这次运行说明不了什么")
    error = _standard_error(outcome.test_top1, outcome.test_images)
    rate = outcome.history[-1].images_per_second * model_summary(NETWORK, config.data.image_size).macs
    trained = RECIPE["epochs"] * FASHION_MNIST_IMAGES * (1 - config.data.validation_fraction)
    hours = trained * model_summary(NETWORK, BOOK_SIZE).macs / rate / 3600
    page.say(
        f"""The book's page shows test accuracy {BOOK_TEST_TOP1} on Fashion-MNIST (PyTorch edition, one run). The result
        above is for {config.data.source} with {len(splits.train):,} training images, and cannot be compared with it. It
        shows that the network and the recipe work, on {outcome.test_images} test images with a standard error of
        {100 * error:.1f} points. For the book's own data and size, run""",
        f"""书中给出的是 Fashion-MNIST 上的测试准确率 {BOOK_TEST_TOP1}（PyTorch 版，一次运行）。上面的数字来
        自 {config.data.source}，只有 {len(splits.train):,} 张训练图像，与书中的数字无从比较：它只说明网络与训练方法能工
        作，而且测试图像只有 {outcome.test_images} 张，标准误差为 {100 * error:.1f} 个百分点。要用书中的数据与尺寸，请运
        行""",
    )
    page.values(
        "python tools/lesson.py fashion-mnist --full",
        "python tools/lesson.py fashion-mnist --full -o data.image_size=32    # the small variant, for a CPU",
    )
    page.say(
        f"""Both download 30 MB, or read the four files from `-o data.root=FOLDER`. Estimated from the multiply-adds and
        the speed of this run, {RECIPE["epochs"]} epochs at {BOOK_SIZE}x{BOOK_SIZE} would take about {hours:.1f} hours
        on this machine. This page contains no result of the full form.""",
        f"""两者都会下载 30 MB，或用 `-o data.root=FOLDER` 指明放有那四个文件的文件夹。仅按乘加次数、以本次运行的速度估
        算，在这台机器上以 {BOOK_SIZE}x{BOOK_SIZE} 训练 {RECIPE["epochs"]} 轮约需 {hours:.1f} 小时。本页没有给出完整形式
        的任何结果。""",
    )
