"""The ResNet-18 of the book "Dive into Deep Learning": its shapes, its grey input and its initialisation."""

from __future__ import annotations

import math

import numpy as np
import paddle
from paddle import nn

from paddle_resnet.lessons.common.network_costs import format_shape, model_summary
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.models import create_model
from paddle_resnet.models.summary import ModelSummary

NETWORK = "resnet18_d2l"
BOOK_SIZE = 96


def show_network(page: Page, size: int) -> None:
    """Show the network's shapes and multiply-adds at the book's sizes and at `size`."""
    page.heading("The network", "网络")
    page.say(
        """*Dive into Deep Learning* (Zhang et al., d2l.ai, section "Residual Networks (ResNet)") builds its own
        ResNet-18 for grey images. It has one input channel, a bias in every convolution, and 1x1 convolutions without
        BatchNorm where a shortcut changes shape. In this project its name is:""",
        """《动手学深度学习》（Zhang 等，d2l.ai，“残差网络（ResNet）”一节）为灰度图像搭了自己的 ResNet-18：输入只有一个
        通道，每个卷积都带偏置，形状改变处的捷径是不带批归一化的 1x1 卷积。在本项目里它有一个名字：""",
    )
    sizes = sorted({224, BOOK_SIZE, size}, reverse=True)
    summaries = {each: model_summary(NETWORK, each) for each in sizes}
    page.values(
        f'network = create_model("{NETWORK}")',
        f"network.conv1.weight.shape   {list(create_model(NETWORK).conv1.weight.shape)}",
        f"parameters                   {summaries[sizes[0]].parameters:,}",
    )
    page.say(
        f"""The book prints the shape after each part for a 224x224 image, and trains at {BOOK_SIZE}x{BOOK_SIZE} to save
        time. The multiply-adds of the convolutions shrink with the area, as the last row shows.""",
        f"""书中先用 224x224 的图像打印每一部分之后的形状，训练时则为了省时改用 {BOOK_SIZE}x{BOOK_SIZE}：卷积的计算量随
        面积缩小，见最后一行的乘加次数。""",
    )
    page.table(
        " | ".join(["after", *(f"{each}x{each}" for each in sizes)]),
        " | ".join(["位置", *(f"{each}x{each}" for each in sizes)]),
        [
            *[[part, *[_shape_after(summaries[each], part) for each in sizes]] for part in _parts(summaries[sizes[0]])],
            ["GMACs", *[f"{summaries[each].macs / 1e9:.3f}" for each in sizes]],
        ],
    )
    page.record(parameters=summaries[sizes[0]].parameters, gmacs_at_96=summaries[BOOK_SIZE].macs / 1e9, size=size)


def _parts(summary: ModelSummary) -> list[str]:
    """Return the names of the stem, each stage's last block, pooling and the head."""
    return [row.name for row in summary.walk() if row.name in ("maxpool", "avgpool", "fc") or row.name.endswith(".1")]


def _shape_after(summary: ModelSummary, name: str) -> str:
    return next(format_shape(row.output_shape[1:], "x") for row in summary.layers if row.name == name)


def show_grey_stem(page: Page) -> None:
    """Show that an RGB stem on three equal channels equals a one-channel stem."""
    page.heading("One channel or three", "一个通道还是三个")
    paddle.seed(0)
    grey = paddle.to_tensor(np.random.default_rng(0).random((2, 1, 32, 32), dtype=np.float32))
    three = create_model(NETWORK, in_channels=3).conv1
    one = create_model(NETWORK).conv1
    one.weight.set_value(three.weight.sum(axis=1, keepdim=True))
    one.bias.set_value(three.bias)
    with paddle.no_grad():
        difference = float((three(grey.expand([-1, 3, -1, -1])) - one(grey)).abs().max().item())
    more = three.weight.size - one.weight.size
    page.say(
        f"""Runs of this toolkit use RGB input and repeat grey images three times. That costs {more:,} weights in the
        first convolution and has no benefit: on three equal channels, a convolution equals the one-channel convolution
        with the sum of its weights. The largest difference between the two on random pixels was {difference:.1e}, a
        rounding error. To match the book, this lesson trains the one-channel network, in a loop of its own.""",
        f"""本工具箱的训练输入一律是 RGB，灰度图像重复三份。这让第一个卷积多出 {more:,} 个权重，却没有任何好处：三个通道
        相同时，卷积等于把权重沿通道求和之后的单通道卷积。随机像素上两者的最大差别是 {difference:.1e}，只是舍入误差。为
        了与书一致，本课用自己的循环训练单通道网络。""",
    )
    page.record(stem_difference=difference, stem_extra_weights=more)


def show_initializer(page: Page) -> None:
    """Run the initialiser line of the book's Paddle edition, which has no effect, and the correct one."""
    page.heading("A line without effect", "一行不起作用的代码")
    paddle.seed(0)
    layer = nn.Conv2D(1, 64, 7, stride=2, padding=3)
    as_made = layer.weight.numpy().copy()
    nn.initializer.XavierUniform(layer.weight)
    after_book = layer.weight.numpy().copy()
    nn.initializer.XavierUniform()(layer.weight)
    after_call = layer.weight.numpy().copy()
    network = create_model(NETWORK)
    moved = float(np.abs(after_book - as_made).max())
    page.say(
        """The book's `train_ch6` first initialises the weights by Xavier's rule (Glorot and Bengio 2010, equation 16).
        In its Paddle edition that is `nn.initializer.XavierUniform(m.weight)`. In Paddle an initializer is an object
        that is *called* with a tensor. This line only creates one, with a weight as its argument `fan_in`. Here it runs
        on a first convolution, 7x7, 1 to 64 channels:""",
        """书中的 `train_ch6` 先按 Xavier 规则（Glorot 与 Bengio 2010，公式 16）初始化权重。Paddle 版写的
        是 `nn.initializer.XavierUniform(m.weight)`。但在 Paddle 里，初始化器是一个要以张量为参数去“调用”的对象；这一行
        只是造出一个初始化器，权重被当成了参数 `fan_in`。用第一个卷积（7x7，1 到 64 通道）试一试：""",
    )
    page.values(
        f"{'as Conv2D makes it':31}std {as_made.std():.4f}   sqrt(2 / fan_in) = {_std(2, 49):.4f}",
        f"{'XavierUniform(layer.weight)':31}std {after_book.std():.4f}   largest change {moved:.4f}",
        f"{'XavierUniform()(layer.weight)':31}std {after_call.std():.4f}   "
        f"sqrt(2 / (fan_in + fan_out)) = {_std(2, 49 + 64 * 49):.4f}",
        f"{'here':31}std {network.conv1.weight.numpy().std():.4f}   sqrt(2 / fan_out) = {_std(2, 64 * 49):.4f}",
    )
    page.say(
        """So the Paddle edition starts from Paddle's default initialisation, and the PyTorch edition from Xavier's. No
        error is raised: the BatchNorm after the 3x3 convolutions removes their scale from the forward pass. This
        project initialises convolutions by He's rule for the backward pass (He et al. 2015b,
        https://arxiv.org/abs/1502.01852, equation 14).""",
        """所以 Paddle 版实际从 Paddle 的默认初始值开始训练，PyTorch 版才是 Xavier。没有任何报错：3x3 卷积之后的批归一化
        消去了它们在前向中的尺度。本项目的卷积按何恺明等人针对反向传播的规则初始化（何恺明等人 2015b，
        https://arxiv.org/abs/1502.01852 ，公式 14）。""",
    )
    page.record(
        initializer_moved=moved,
        default_std=float(as_made.std()),
        xavier_std=float(after_call.std()),
        here_std=float(network.conv1.weight.numpy().std()),
    )


def _std(numerator: float, denominator: float) -> float:
    return math.sqrt(numerator / denominator)
