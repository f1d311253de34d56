"""The five exercises of the ResNet chapter of "Dive into Deep Learning", answered by code."""

from __future__ import annotations

import numpy as np
import paddle
from matplotlib.figure import Figure
from paddle import nn

from paddle_resnet.lessons.common.network_costs import format_shape
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.models.blocks import BasicBlock, Bottleneck, ResidualBlock, ZeroPadShortcut, projection_shortcut
from paddle_resnet.models.preact import PreActBasicBlock
from paddle_resnet.models.summary import summarize
from paddle_resnet.plots.style import BLUE, GREY, ORANGE, make_figure
from paddle_resnet.zoo.registry import ResNetEntry, model_entry
from paddle_resnet.zoo.shapes import costs

CHANNELS = 192
INCEPTION_3A: tuple[int, tuple[int, int], tuple[int, int], int] = (64, (96, 128), (16, 32), 32)
"""Channels of GoogLeNet's first Inception block, by path (Szegedy et al. 2015, table 1, row "3a")."""
SIDE = 28

VARIANTS = {  # the paper's GFLOPs (table 1, where a multiply-add is one), and torchvision's parameters
    "resnet18": (1.8, 11_689_512),
    "resnet34": (3.6, 21_797_672),
    "resnet50": (3.8, 25_557_032),
    "resnet101": (7.6, 44_549_160),
    "resnet152": (11.3, 60_192_808),
}

STACKED = 8
DEGREES = tuple(range(16))
SAMPLES, NOISE = 20, 0.3


class Inception(nn.Layer):
    """Four paths, concatenated (Szegedy et al. 2015, figure 2b): ``[N, in, H, W]`` to ``[N, out, H, W]``."""

    def __init__(self, channels: int, one: int, three: tuple[int, int], five: tuple[int, int], pool: int) -> None:
        super().__init__()

        def unit(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2D(inputs, outputs, kernel, padding=kernel // 2), nn.ReLU())

        self.paths = nn.LayerList(
            [
                unit(channels, one, 1),
                nn.Sequential(unit(channels, three[0], 1), unit(*three, 3)),
                nn.Sequential(unit(channels, five[0], 1), unit(*five, 5)),
                nn.Sequential(nn.MaxPool2D(3, 1, padding=1), unit(channels, pool, 1)),
            ]
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return paddle.concat([path(x) for path in self.paths], axis=1)


def teach(page: Page, effort: Effort) -> None:
    """Answer the five exercises in turn."""
    _inception(page)
    _variants(page)
    _bottleneck(page)
    _pre_activation(page)
    _nested_classes(page)


def _inception(page: Page) -> None:
    page.section("inception_question")
    blocks = {
        "Inception 3a": Inception(CHANNELS, *INCEPTION_3A),
        "BasicBlock": BasicBlock(CHANNELS, 256, 1, projection_shortcut),
    }
    rows = []
    for name, block in blocks.items():
        summary = summarize(block, (1, CHANNELS, SIDE, SIDE))
        shape = format_shape(summary.output_shape[1:])
        rows.append((name, shape, summary.parameters, f"{summary.macs / 1e6:,.1f}"))
        page.record(**{f"{type(block).__name__}_parameters": summary.parameters})
    page.table("blocks", rows)
    page.say("inception_answer")
    difference = concatenation_minus_sum()
    page.values(
        "y = paddle.concat([x, F(x)], axis=1)",
        "sum_of_both = 1x1 convolution of y with the weights [I, I]",
        f"sum_of_both - (x + F(x))      at most {difference:.1e}",
    )
    page.say("inception_relation")
    page.record(concatenation_minus_sum=difference)


@paddle.no_grad()
def concatenation_minus_sum(channels: int = 16) -> float:
    """Concatenate two paths and add them by a 1x1 convolution; return the difference from a shortcut's addition."""
    x = paddle.randn([2, channels, 8, 8])
    path = nn.Sequential(nn.Conv2D(channels, channels, 3, padding=1), nn.ReLU())
    add = nn.Conv2D(2 * channels, channels, 1, bias_attr=False)
    identity = paddle.eye(channels)
    add.weight.set_value(paddle.concat([identity, identity], axis=1).reshape([channels, 2 * channels, 1, 1]))
    both = add(paddle.concat([x, path(x)], axis=1))
    return float((both - (x + path(x))).abs().max().item())


def _variants(page: Page) -> None:
    page.section("variants_question")
    rows = []
    for name, (published, parameters) in VARIANTS.items():
        entry = model_entry(name)
        assert isinstance(entry, ResNetEntry)
        counted = costs(entry)
        depths, gmacs = ", ".join(map(str, entry.depths)), (f"{counted.macs / 1e9:.2f}", f"{published:g}")
        rows.append((name, entry.block, depths, counted.depth, counted.parameters, parameters, *gmacs))
        page.record(**{f"{name}_parameters": counted.parameters, f"{name}_macs": counted.macs})
    page.table("variants", rows)
    page.say("variants_answer")


def _bottleneck(page: Page) -> None:
    page.section("bottleneck_question")
    wide, narrow = 256, 64
    blocks: dict[str, ResidualBlock] = {
        "BasicBlock": BasicBlock(wide, wide, 1, ZeroPadShortcut),
        "Bottleneck": Bottleneck(wide, narrow, 1, ZeroPadShortcut),
    }
    summaries = {name: summarize(block, (1, wide, 56, 56)) for name, block in blocks.items()}
    rows = [(name, each.parameters, f"{each.macs / 1e6:,.0f}") for name, each in summaries.items()]
    page.table("bottlenecks", rows)
    basic, bottleneck = (summaries[name].parameters for name in blocks)
    page.values(
        f"BasicBlock   2 * 9*{wide}*{wide} + 2 * 2*{wide} = {2 * 9 * wide**2 + 4 * wide:,}",
        f"Bottleneck   {wide}*{narrow} + 9*{narrow}*{narrow} + {narrow}*{wide} + 2*(2*{narrow} + {wide})"
        f" = {2 * wide * narrow + 9 * narrow**2 + 2 * (2 * narrow + wide):,}",
    )
    page.say("bottleneck_answer", ratio=basic / bottleneck)
    page.record(basic_parameters=basic, bottleneck_parameters=bottleneck)


@paddle.no_grad()
def change_by_zero_branches(block: type[ResidualBlock], channels: int = 8) -> float:
    """Stack blocks whose residual branch adds zero; return the largest change of an input with negative values."""
    blocks = [block(channels, channels, 1, ZeroPadShortcut) for _ in range(STACKED)]
    for each in blocks:
        each.zero_init_last()
    x = paddle.randn([2, channels, 8, 8])
    stack = nn.Sequential(*blocks)
    stack.eval()
    return float((stack(x) - x).abs().max().item())


def _pre_activation(page: Page) -> None:
    page.section("pre_activation_question")
    page.values(
        "conv, BN, ReLU   (2015)   x = relu(x + BN(conv(relu(BN(conv(x))))))",
        "BN, ReLU, conv   (2016)   x = x + conv(relu(BN(conv(relu(BN(x))))))",
    )
    after, before = change_by_zero_branches(BasicBlock), change_by_zero_branches(PreActBasicBlock)
    page.say("pre_activation_answer", blocks=STACKED, after=after, before=before)
    page.record(change_post_activation=after, change_pre_activation=before)


def polynomial_errors() -> tuple[np.ndarray, np.ndarray]:
    """Fit polynomials of `DEGREES` to noisy samples of a sine; return the mean square errors on them and on new ones.

    Legendre polynomials keep the least squares well conditioned.
    """
    random = np.random.default_rng(0)

    def sample(number: int) -> tuple[np.ndarray, np.ndarray]:
        x = random.uniform(-1, 1, number)
        return x, np.sin(np.pi * x) + NOISE * random.normal(size=number)

    (x, y), (new_x, new_y) = sample(SAMPLES), sample(10_000)
    fits = [np.polynomial.Legendre.fit(x, y, degree, domain=[-1, 1]) for degree in DEGREES]
    training = np.array([np.mean((fit(x) - y) ** 2) for fit in fits])
    return training, np.array([np.mean((fit(new_x) - new_y) ** 2) for fit in fits])


def _nested_classes(page: Page) -> None:
    page.section("nested_question")
    training, test = polynomial_errors()
    best = int(test.argmin())
    page.figure("nested", lambda: draw_errors(training, test), samples=SAMPLES)
    shown = sorted({0, 1, best, 8, DEGREES[-1]})
    page.table("degrees", [(degree, f"{training[degree]:.3f}", f"{test[degree]:.3g}") for degree in shown])
    page.say("nested_answer", best=best, last=DEGREES[-1], noise=NOISE**2, best_error=test[best], last_error=test[-1])
    page.say("nested_networks")
    page.record(training_errors=training, test_errors=test, best_degree=best)


def draw_errors(training: np.ndarray, test: np.ndarray) -> Figure:
    """Draw both errors over the degree, with the noise's variance."""
    figure, axes = make_figure(9.5, 3.6)
    axes.plot(DEGREES, training, color=BLUE, marker="o", label="training samples")
    axes.plot(DEGREES, test, color=ORANGE, marker="s", label="new samples")
    axes.axhline(NOISE**2, color=GREY, linestyle=":", label="the noise alone")
    axes.set(yscale="log", xlabel="degree of the polynomial", ylabel="mean square error")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend(loc="upper left")
    return figure
