"""Batch against group normalisation in training, over the batch size."""

from __future__ import annotations

from functools import partial

import numpy as np
from paddle import nn

from paddle_resnet.lessons.common.small_cnn import (
    LessonData,
    NormFactory,
    SmallCnnResult,
    mean_last_epoch_loss,
    train_grid,
)
from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.normalization.plots import draw_trainings

BATCH_SIZES = (2, 8, 64)
SEEDS = (0, 1, 2)
EPOCHS, FULL_EPOCHS = 2, 1
RATE_FOR_64 = 0.2
CHANNELS_A_GROUP = 8


def group_norm(channels: int) -> nn.Layer:
    """Make a group normalisation with 8 channels per group."""
    return nn.GroupNorm(channels // CHANNELS_A_GROUP, channels)


NORMALIZATIONS: dict[str, NormFactory] = {"Batch": nn.BatchNorm2D, "Group": group_norm}


def teach(page: Page, effort: Effort) -> None:
    """Train with batch and with group normalisation at each batch size."""
    data = LessonData.open(effort)
    epochs = effort.epochs(FULL_EPOCHS if effort.full else EPOCHS)
    page.heading("Training with small batches", "小批次训练")
    page.say(
        f"""The same small network (six convolutions) on {data.source}, {epochs} epochs, {len(SEEDS)} seeds, with batch
        and with group normalisation of {CHANNELS_A_GROUP} channels per group. The learning rate is proportional to the
        batch size, {RATE_FOR_64:g} N / 64, as in the paper's section 4.1. So a batch of 2 takes 32 times as many steps
        of a 32nd of the length.""",
        f"""同一个小网络（六个卷积），在 {data.source} 上训练 {epochs} 轮，{len(SEEDS)} 个种子，分别用批归一化和每
        组 {CHANNELS_A_GROUP} 个通道的组归一化。学习率与批大小成正比，为 {RATE_FOR_64:g} N / 64，同论文 4.1 节：批大小
        为 2 时步长是三十二分之一，步数是 32 倍。""",
    )
    settings = [(size, RATE_FOR_64 * size / 64) for size in BATCH_SIZES]
    runs = train_grid(data, NORMALIZATIONS, settings, epochs, SEEDS)
    page.table(
        "batch size | normalisation | training loss, last epoch | test loss | test error | its range",
        "批大小 | 归一化 | 训练损失，最后一轮 | 测试损失 | 测试错误率 | 各种子的范围",
        [
            [
                size,
                name,
                f"{mean_last_epoch_loss(seeds):.3f}",
                f"{np.mean([run.loss for run in seeds]):.3f}",
                f"{_mean_error(seeds):.1%}",
                f"{min(_errors(seeds)):.1%} – {max(_errors(seeds)):.1%}",
            ]
            for index, size in enumerate(BATCH_SIZES)
            for name, seeds in ((name, by_size[index]) for name, by_size in runs.items())
        ],
    )
    page.figure(
        "batch_sizes",
        partial(draw_trainings, BATCH_SIZES, runs),
        """A pale marker is a training, the line connects the means. The training loss is that of the training batches;
        the test split is measured in evaluation mode.""",
        "每个浅色点是一次训练，折线连接均值。训练损失是训练时各批次上的损失；测试集在评估模式下测量。",
    )
    _conclude(page, runs, len(data.splits.test))


def _conclude(page: Page, runs: dict[str, list[list[SmallCnnResult]]], images: int) -> None:
    errors = {name: [_mean_error(seeds) for seeds in by_size] for name, by_size in runs.items()}
    losses = {name: [mean_last_epoch_loss(seeds) for seeds in by_size] for name, by_size in runs.items()}
    page.record(
        training_batch_sizes=BATCH_SIZES,
        test_error_batch=errors["Batch"],
        test_error_group=errors["Group"],
        training_loss_batch=losses["Batch"],
        training_loss_group=losses["Group"],
    )
    small, large = BATCH_SIZES[0], BATCH_SIZES[-1]
    error_change = {name: values[0] - values[-1] for name, values in errors.items()}
    page.say(
        f"""From batches of {large} to batches of {small}, the last epoch's training loss went from
        {losses["Batch"][-1]:.3f} to {losses["Batch"][0]:.3f} with batch normalisation, and from
        {losses["Group"][-1]:.3f} to {losses["Group"][0]:.3f} with group normalisation. The test error changed by
        {100 * error_change["Batch"]:+.1f} and by {100 * error_change["Group"]:+.1f} points. One image is
        {100 / images:.2f} points, and the table shows the seeds' ranges: smaller differences are not reliable.""",
        f"""批大小从 {large} 减到 {small}，最后一轮的训练损失，批归一化从 {losses["Batch"][-1]:.3f} 变
        为 {losses["Batch"][0]:.3f}，组归一化从 {losses["Group"][-1]:.3f} 变为 {losses["Group"][0]:.3f}；测试错误率分别
        变化 {100 * error_change["Batch"]:+.1f} 和 {100 * error_change["Group"]:+.1f} 个百分点。一张图像相当
        于 {100 / images:.2f} 个百分点，各种子的范围见表：比这更小的差别不可信。""",
    )
    small_loss = float(np.mean([run.loss for run in runs["Batch"][0]]))
    page.say(
        f"""For batch normalisation at {small}, note the difference between {losses["Batch"][0]:.3f} in training and
        {small_loss:.3f} on the test split. They are two different functions. In training, two images are normalised by
        their common statistics; in evaluation, each image by the running statistics of many.""",
        f"""批归一化在批大小为 {small} 时，训练中的损失是 {losses["Batch"][0]:.3f}，测试集上是 {small_loss:.3f}，应注意
        两者的区别：它们不是同一个函数。训练时两张图像互相作为统计的依据，评估时每张图像用的是许多图像累积的滑动统计
        量。""",
    )
    page.say(
        """Two things change along the horizontal axis: the noise of the batch statistics, which only batch
        normalisation has, and the number and length of the steps, which both have. So compare the two lines at one
        size, not one line along the axis. On ImageNet, Wu and He (table 2) measured a ResNet-50's error. With 2 images
        per worker it was 34.7% with batch and 24.1% with group normalisation, with 32 images 23.6% and 24.1%. Their
        network is deep and this one is not, and a few epochs on few small images do not decide between the two.""",
        """横轴上有两件事同时在变：批次统计量的噪声，只有批归一化才有；步数和步长，两者都有。所以应当在同一批大小上比较
        两条线，而不是沿着一条线比较。Wu 与 He 在 ImageNet 上（表 2）测得 ResNet-50 的错误率：每卡 2 张图像时，批归一化
        为 34.7%，组归一化为 24.1%；每卡 32 张时分别为 23.6% 和 24.1%。他们的网络很深，这里的不深；少量小图像上的几轮，
        也不足以评判二者优劣。""",
    )


def _errors(seeds: list[SmallCnnResult]) -> list[float]:
    return [1 - run.top1 for run in seeds]


def _mean_error(seeds: list[SmallCnnResult]) -> float:
    return float(np.mean(_errors(seeds)))
