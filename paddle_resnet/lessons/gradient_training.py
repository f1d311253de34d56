"""The lesson on gradients, continued: what the first steps of training make of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import numpy as np
import paddle

from paddle_resnet.data import TrainLoader
from paddle_resnet.lessons.catalogue import Effort
from paddle_resnet.lessons.gradient_figures import draw_before_and_after
from paddle_resnet.lessons.gradient_norms import LayerGradients, measure_gradients
from paddle_resnet.lessons.gradient_subjects import BATCH_SIZE, KINDS, Key, make_network, record_gradients
from paddle_resnet.lessons.page import Page
from paddle_resnet.lessons.training_loop import train_on, use_fast_layers

TRAINED_DEPTHS = (20, 56)
STEPS = 20
LEARNING_RATE = 0.1
MOMENTUM = 0.9


def show_training(
    page: Page, effort: Effort, loader: TrainLoader, images: paddle.Tensor, labels: paddle.Tensor
) -> None:
    """Train some of the networks with BatchNorm a little, and show the gradients before and after."""
    steps = effort.epochs(STEPS)
    page.heading(f"After {steps} step{'s' * (steps > 1)}", f"训练 {steps} 步之后")
    page.say(
        f"""The networks with BatchNorm now train for {steps} step{"s" * (steps > 1)} (batches of {BATCH_SIZE}, SGD with
        momentum {MOMENTUM}, learning rate {LEARNING_RATE}); then the gradient of the same first batch is taken
        again.""",
        f"""现在让带批归一化的网络训练 {steps} 步（批大小 {BATCH_SIZE}，动量 {MOMENTUM} 的 SGD，
        学习率 {LEARNING_RATE}），然后用同样的第一批图像再求一次梯度。""",
    )
    before: dict[Key, LayerGradients] = {}
    after: dict[Key, LayerGradients] = {}
    for kind in KINDS:
        for depth in TRAINED_DEPTHS:
            key = (kind, depth)
            network = make_network(key)
            use_fast_layers(network)
            before[key] = measure_gradients(network, images, labels)
            optimizer = paddle.optimizer.Momentum(LEARNING_RATE, MOMENTUM, parameters=network.parameters())
            train_on(network, optimizer, _steps(loader, steps))
            after[key] = measure_gradients(network, images, labels)
            record_gradients(page, f"{kind}{depth}_trained", after[key])
    page.figure(
        "trained",
        partial(draw_before_and_after, before, after),
        f"With BatchNorm, at initialisation (dashed) and after {steps} steps (solid).",
        f"带批归一化的网络：初始化时（虚线）与训练 {steps} 步后（实线）。",
    )
    page.table(
        [
            ("network", "网络"),
            ("loss before", "训练前损失"),
            ("loss after", "训练后损失"),
            ("factor a layer before", "训练前每层倍数"),
            ("factor a layer after", "训练后每层倍数"),
        ],
        [
            [
                f"{kind}{depth}",
                f"{before[kind, depth].loss:.3f}",
                f"{gradients.loss:.3f}",
                f"{before[kind, depth].growth:.3f}",
                f"{gradients.growth:.3f}",
            ]
            for (kind, depth), gradients in after.items()
        ],
    )
    _interpret_training(page, before, after)


def _steps(loader: TrainLoader, steps: int) -> Iterator[list[paddle.Tensor]]:
    """So many batches, from as many epochs as it takes."""
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    return itertools.islice(batches, steps)


def _interpret_training(page: Page, before: dict[Key, LayerGradients], after: dict[Key, LayerGradients]) -> None:
    key = ("plain", TRAINED_DEPTHS[-1])
    flatter = abs(np.log(after[key].growth)) < abs(np.log(before[key].growth))
    name = f"{key[0]}{key[1]}"
    page.record(training_flattens_plain=bool(flatter))
    if flatter:
        page.say(
            f"""The slope of {name} has become less steep. BatchNorm does it: a convolution before it may be scaled
            without changing the answer, so its gradient is at right angles to its weights, every step lengthens them,
            and the longer they are the smaller the relative gradient. Where it explodes, the first steps are
            enormous, and end the explosion; what the weights had to say is lost in them.""",
            f"""{name} 的斜率变缓了。这是批归一化的作用：它前面的卷积整体缩放不影响输出，所以梯度与权重垂直，
            每一步都会使权重变长，而权重越长，相对梯度越小。在梯度爆炸之处，最初几步极大，爆炸也随之结束；
            但权重原来的内容也丢失了。""",
        )
    else:
        page.say(
            f"The slope of {name} has not become less steep in these few steps.",
            f"这几步训练并没有使 {name} 的斜率变缓。",
        )
