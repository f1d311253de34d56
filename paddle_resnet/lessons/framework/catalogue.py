"""The lessons by name, and running one."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from paddle_resnet.config import Config
from paddle_resnet.errors import UsageError, did_you_mean
from paddle_resnet.files import write_text
from paddle_resnet.lessons.framework.page import Page, Show, Text

CIFAR_10, FASHION_MNIST, NOTHING = "CIFAR-10", "Fashion-MNIST", ""


@dataclass(frozen=True)
class Effort:
    """How much a lesson computes.

    Attributes:
        full: train on the real data set (CIFAR-10, Fashion-MNIST) instead of the embedded one.
        overrides: ``key=value`` for the configs of the lesson's training runs, such as ``data.root=...``.
        scale: share of the usual training; below 1 for a quick look and for tests.
    """

    full: bool = False
    overrides: Sequence[str] = ()
    scale: float = 1.0

    def epochs(self, usual: int) -> int:
        """How many epochs to train instead of the usual number."""
        return max(1, round(self.scale * usual))


class Module(Protocol):
    """A lesson's module."""

    def teach(self, page: Page, effort: Effort) -> None:
        """Run the lesson, and write what it shows on the page."""


@dataclass(frozen=True)
class Entry:
    """A lesson.

    Attributes:
        title: of its page.
        about: what it shows, in a line.
        module: its folder in `lessons`, which holds `lesson.py`.
        full_data: the data set of its full form; empty where it trains nothing, so that both forms are one.
    """

    title: Text
    about: Text
    module: str
    full_data: str = CIFAR_10

    def load(self) -> Module:
        """Import the module."""
        return importlib.import_module(f"paddle_resnet.lessons.{self.module}.lesson")


LESSONS = {
    "batch-norm": Entry(
        Text("Batch normalisation", "批归一化"),
        Text(
            "What it computes, what it remembers, and what it does to training",
            "它计算什么、记住什么，又对训练做了什么",
        ),
        "batch_norm",
    ),
    "normalization": Entry(
        Text("Four normalisations", "四种归一化"),
        Text(
            "Batch, layer, instance and group norm: which axes each averages over, and small batches",
            "批、层、实例、组归一化各自在哪些轴上求平均，以及小批次下的表现",
        ),
        "normalization",
    ),
    "residual-block": Entry(
        Text("The residual block", "残差块"),
        Text(
            "Shapes, the identity it starts from, and the sign of what it adds",
            "形状、作为起点的恒等映射，以及残差的正负",
        ),
        "residual_block",
        NOTHING,
    ),
    "network-shapes": Entry(
        Text("ResNet-18, layer by layer", "逐层看 ResNet-18"),
        Text(
            "From 224x224 pixels to 10 classes, with parameters and multiply-adds",
            "从 224x224 像素到 10 个类别，附参数量与乘加次数",
        ),
        "network_shapes",
        NOTHING,
    ),
    "degradation": Entry(
        Text("Degradation: deeper and worse", "退化：更深却更差"),
        Text(
            "Plain and residual networks at 20 and 56 layers, on their training images",
            "20 层与 56 层的普通网络和残差网络，比较训练集上的错误率",
        ),
        "degradation",
    ),
    "gradients": Entry(
        Text("Gradients through the depth", "深层网络中的梯度"),
        Text(
            "Gradient norms by layer, with and without shortcuts and BatchNorm",
            "有无捷径连接、有无批归一化时各层的梯度范数",
        ),
        "gradients",
    ),
    "depth": Entry(
        Text("What depth buys", "加深网络换来了什么"),
        Text(
            "Accuracy, time and parameters of resnet20 and its deeper sisters",
            "resnet20 与同族更深的网络：准确率、时间与参数量",
        ),
        "depth",
    ),
    "fashion-mnist": Entry(
        Text("The book's network on Fashion-MNIST", "书中的网络与 Fashion-MNIST"),
        Text(
            "The one-channel ResNet of the book, and a small one for a CPU",
            "书中的单通道 ResNet，以及适合 CPU 的小网络",
        ),
        "fashion_mnist",
        FASHION_MNIST,
    ),
    "lenet": Entry(
        Text("LeNet, the small baseline", "LeNet：小型基线"),
        Text("Beside a ResNet of as many parameters, on the same images", "在同样的图像上与参数量相当的 ResNet 比较"),
        "lenet",
        FASHION_MNIST,
    ),
    "grouped-convolution": Entry(
        Text("Grouped convolution and ResNeXt", "分组卷积与 ResNeXt"),
        Text(
            "Parameters and multiply-adds against groups, and why not one group a channel",
            "参数量、乘加次数与组数的关系，以及为什么不是每个通道一组",
        ),
        "grouped_convolution",
        NOTHING,
    ),
    "transfer": Entry(
        Text("What a pretrained start is worth", "预训练的价值"),
        Text("By the number of images a class that there are to learn from", "每类图像从一张到多张，预训练各值多少"),
        "transfer",
    ),
    "what-it-sees": Entry(
        Text("What the network sees", "网络看到了什么"),
        Text(
            "Grad-CAM, filters, feature maps, an embedding, and confident mistakes",
            "Grad-CAM、卷积核、特征图、特征嵌入与置信度最高的错误",
        ),
        "what_it_sees",
    ),
    "inference": Entry(
        Text("From the trained network to the exported one", "从训练好的网络到导出的模型"),
        Text("The same answers? How fast? And how to measure that", "答案一样吗？有多快？又该怎样测量"),
        "inference",
    ),
}


def lesson_entry(name: str) -> Entry:
    """Look a lesson up.

    Raises:
        UsageError: there is none of this name.
    """
    if name not in LESSONS:
        raise UsageError(f'no lesson "{name}"{did_you_mean(name, list(LESSONS))}; there are {", ".join(LESSONS)}')
    return LESSONS[name]


def run_lesson(name: str, folder: Path, effort: Effort, show: Show = lambda block: None) -> Page:
    """Run a lesson: its figures and ``numbers.json`` go to `folder`, its blocks to `show` as they come.

    Raises:
        UsageError: an unknown lesson or config key, or data that the full form needs and cannot get.
        RunFailure: the folder cannot be written.
    """
    entry = lesson_entry(name)
    # What is wrong with the request is said before minutes of work, not after.
    Config.from_values({}, effort.overrides)
    _try_writing(folder)
    page = Page(folder, show)
    entry.load().teach(page, effort)
    write_text(folder / "numbers.json", json.dumps(page.numbers, indent=2, ensure_ascii=False) + "\n")
    return page


def _try_writing(folder: Path) -> None:
    trial = folder / ".trial"
    write_text(trial, "")
    trial.unlink()
