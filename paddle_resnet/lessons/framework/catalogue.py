"""The lessons by name, and running one. A lesson `NAME` is the module ``lessons/NAME/lesson.py``."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from paddle_resnet.config import Config
from paddle_resnet.errors import UsageError, did_you_mean
from paddle_resnet.files import write_text
from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import Page, Show
from paddle_resnet.lessons.framework.texts import LessonTexts, Text

CIFAR_10, FASHION_MNIST, NO_DATA = "CIFAR-10", "Fashion-MNIST", ""


class LessonModule(Protocol):
    """A module ``lesson.py``."""

    def teach(self, page: Page, effort: Effort) -> None:
        """Run the lesson and write its page."""


@dataclass(frozen=True)
class LessonEntry:
    """A lesson: its page's title, a line on its contents, and the data set of its full form ("" if it has none)."""

    title: Text
    about: Text
    full_data: str = CIFAR_10


LESSONS = {
    "batch-norm": LessonEntry(
        Text("Batch normalisation", "批归一化"),
        Text(
            "What it computes, its running statistics, and its effect on training",
            "它计算什么、记住什么，又对训练做了什么",
        ),
    ),
    "normalization": LessonEntry(
        Text("Four normalisations", "四种归一化"),
        Text(
            "Batch, layer, instance and group norm: the axes of their averages, and small batches",
            "批、层、实例、组归一化各自在哪些轴上求平均，以及小批次下的表现",
        ),
    ),
    "residual-block": LessonEntry(
        Text("The residual block", "残差块"),
        Text(
            "Shapes, the identity at initialisation, and negative residuals",
            "形状、作为起点的恒等映射，以及残差的正负",
        ),
        NO_DATA,
    ),
    "network-shapes": LessonEntry(
        Text("ResNet-18, layer by layer", "逐层看 ResNet-18"),
        Text(
            "From 224x224 pixels to 10 classes, with parameters and multiply-adds",
            "从 224x224 像素到 10 个类别，附参数量与乘加次数",
        ),
        NO_DATA,
    ),
    "degradation": LessonEntry(
        Text("Degradation: deeper and worse", "退化：更深却更差"),
        Text(
            "Plain and residual networks at 20 and 56 layers, on their training images",
            "20 层与 56 层的普通网络和残差网络，比较训练集上的错误率",
        ),
    ),
    "gradients": LessonEntry(
        Text("Gradients through the depth", "深层网络中的梯度"),
        Text(
            "Gradient norms by layer, with and without shortcuts and BatchNorm",
            "有无捷径连接、有无批归一化时各层的梯度范数",
        ),
    ),
    "depth": LessonEntry(
        Text("What depth gains", "加深网络换来了什么"),
        Text(
            "Accuracy, time and parameters of resnet20 and deeper networks of its family",
            "resnet20 与同族更深的网络：准确率、时间与参数量",
        ),
    ),
    "fashion-mnist": LessonEntry(
        Text("The book's network on Fashion-MNIST", "书中的网络与 Fashion-MNIST"),
        Text(
            "The one-channel ResNet of the book, and a small one for a CPU",
            "书中的单通道 ResNet，以及适合 CPU 的小网络",
        ),
        FASHION_MNIST,
    ),
    "lenet": LessonEntry(
        Text("LeNet, the small baseline", "LeNet：小型基线"),
        Text(
            "Compared with a ResNet of as many parameters on the same images",
            "在同样的图像上与参数量相当的 ResNet 比较",
        ),
        FASHION_MNIST,
    ),
    "grouped-convolution": LessonEntry(
        Text("Grouped convolution and ResNeXt", "分组卷积与 ResNeXt"),
        Text(
            "Parameters and multiply-adds against groups, and why not one group per channel",
            "参数量、乘加次数与组数的关系，以及为什么不是每个通道一组",
        ),
        NO_DATA,
    ),
    "transfer": LessonEntry(
        Text("What a pretrained start is worth", "预训练的价值"),
        Text("By the number of training images per class", "每类图像从一张到多张，预训练各值多少"),
    ),
    "what-it-sees": LessonEntry(
        Text("What the network sees", "网络看到了什么"),
        Text(
            "Grad-CAM, filters, feature maps, an embedding, and confident mistakes",
            "Grad-CAM、卷积核、特征图、特征嵌入与置信度最高的错误",
        ),
    ),
    "inference": LessonEntry(
        Text("From the trained network to the exported one", "从训练好的网络到导出的模型"),
        Text(
            "Are the predictions the same? How fast is the model? How is that measured?",
            "答案一样吗？有多快？又该怎样测量",
        ),
    ),
}


def lesson_entry(name: str) -> LessonEntry:
    """Look up a lesson.

    Raises:
        UsageError: no lesson has this name.
    """
    if name not in LESSONS:
        raise UsageError(f'no lesson "{name}"{did_you_mean(name, list(LESSONS))}; there are {", ".join(LESSONS)}')
    return LESSONS[name]


def run_lesson(name: str, folder: Path, effort: Effort, show: Show = lambda block: None) -> Page:
    """Run a lesson: write its figures and ``numbers.json`` to `folder`, and pass each block to `show` when it is ready.

    Raises:
        UsageError: an unknown lesson or config key, or a data set that is missing and cannot be downloaded.
        RunFailure: the folder cannot be written.
    """
    lesson_entry(name)
    # Report a wrong request before minutes of work.
    Config.from_values({}, effort.overrides)
    probe = folder / ".trial"
    write_text(probe, "")
    probe.unlink()
    module = name.replace("-", "_")
    lesson: LessonModule = importlib.import_module(f"paddle_resnet.lessons.{module}.lesson")
    page = Page(folder, LessonTexts(module), show)
    lesson.teach(page, effort)
    write_text(folder / "numbers.json", json.dumps(page.numbers, indent=2, ensure_ascii=False) + "\n")
    return page
