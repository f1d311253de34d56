"""The lessons by name, and running one."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from paddle_resnet.errors import UsageError, did_you_mean
from paddle_resnet.files import write_text
from paddle_resnet.lessons.page import Page, Show, Text


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
    """A lesson: its title, and its module in this package."""

    title: Text
    module: str

    def load(self) -> Module:
        """Import the module."""
        return importlib.import_module(f"{__package__}.{self.module}")


LESSONS = {
    "batch-norm": Entry(Text("Batch normalisation", "批归一化"), "batch_norm"),
    "normalization": Entry(Text("Four normalisations", "四种归一化"), "normalization"),
    "residual-block": Entry(Text("The residual block", "残差块"), "residual_block"),
    "network-shapes": Entry(Text("ResNet-18, layer by layer", "逐层看 ResNet-18"), "network_shapes"),
    "degradation": Entry(Text("Degradation: deeper and worse", "退化：更深却更差"), "degradation"),
    "gradients": Entry(Text("Gradients through the depth", "梯度如何穿过深度"), "gradients"),
    "depth": Entry(Text("What depth buys", "深度换来什么"), "depth"),
    "fashion-mnist": Entry(Text("The book's network on Fashion-MNIST", "书中的网络与 Fashion-MNIST"), "fashion_mnist"),
    "lenet": Entry(Text("LeNet, the small baseline", "小基线 LeNet"), "lenet"),
    "grouped-convolution": Entry(Text("Grouped convolution and ResNeXt", "分组卷积与 ResNeXt"), "grouped_convolution"),
    "transfer": Entry(Text("What a pretrained start is worth", "预训练的价值"), "transfer"),
    "what-it-sees": Entry(Text("What the network sees", "网络看到了什么"), "what_it_sees"),
    "inference": Entry(Text("From the trained network to the exported one", "从训练好的网络到导出的模型"), "inference"),
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
        UsageError: an unknown lesson, or data that the full form needs and cannot get.
    """
    entry = lesson_entry(name)
    page = Page(folder, show)
    entry.load().teach(page, effort)
    write_text(folder / "numbers.json", json.dumps(page.numbers, indent=2, ensure_ascii=False) + "\n")
    return page
