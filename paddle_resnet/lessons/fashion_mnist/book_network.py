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
    page.heading("network_heading")
    page.say("network")
    sizes = sorted({224, BOOK_SIZE, size}, reverse=True)
    summaries = {each: model_summary(NETWORK, each) for each in sizes}
    page.values(
        f'network = create_model("{NETWORK}")',
        f"network.conv1.weight.shape   {list(create_model(NETWORK).conv1.weight.shape)}",
        f"parameters                   {summaries[sizes[0]].parameters:,}",
    )
    page.say("sizes", book_size=BOOK_SIZE)
    page.table(
        "shapes",
        [
            *[[part, *[_shape_after(summaries[each], part) for each in sizes]] for part in _parts(summaries[sizes[0]])],
            ["GMACs", *[f"{summaries[each].macs / 1e9:.3f}" for each in sizes]],
        ],
        sizes=" | ".join(f"{each}x{each}" for each in sizes),
    )
    page.record(parameters=summaries[sizes[0]].parameters, gmacs_at_96=summaries[BOOK_SIZE].macs / 1e9, size=size)


def _parts(summary: ModelSummary) -> list[str]:
    """Return the names of the stem, each stage's last block, pooling and the head."""
    return [row.name for row in summary.walk() if row.name in ("maxpool", "avgpool", "fc") or row.name.endswith(".1")]


def _shape_after(summary: ModelSummary, name: str) -> str:
    return next(format_shape(row.output_shape[1:], "x") for row in summary.layers if row.name == name)


def show_grey_stem(page: Page) -> None:
    """Show that an RGB stem on three equal channels equals a one-channel stem."""
    page.heading("grey_stem_heading")
    paddle.seed(0)
    grey = paddle.to_tensor(np.random.default_rng(0).random((2, 1, 32, 32), dtype=np.float32))
    three = create_model(NETWORK, in_channels=3).conv1
    one = create_model(NETWORK).conv1
    one.weight.set_value(three.weight.sum(axis=1, keepdim=True))
    one.bias.set_value(three.bias)
    with paddle.no_grad():
        difference = float((three(grey.expand([-1, 3, -1, -1])) - one(grey)).abs().max().item())
    more = three.weight.size - one.weight.size
    page.say("grey_stem", more=more, difference=difference)
    page.record(stem_difference=difference, stem_extra_weights=more)


def show_initializer(page: Page) -> None:
    """Run the initialiser line of the book's Paddle edition, which has no effect, and the correct one."""
    page.heading("initializer_heading")
    paddle.seed(0)
    layer = nn.Conv2D(1, 64, 7, stride=2, padding=3)
    as_made = layer.weight.numpy().copy()
    nn.initializer.XavierUniform(layer.weight)
    after_book = layer.weight.numpy().copy()
    nn.initializer.XavierUniform()(layer.weight)
    after_call = layer.weight.numpy().copy()
    network = create_model(NETWORK)
    moved = float(np.abs(after_book - as_made).max())
    page.say("initializer")
    page.values(
        f"{'as Conv2D makes it':31}std {as_made.std():.4f}   sqrt(2 / fan_in) = {_std(2, 49):.4f}",
        f"{'XavierUniform(layer.weight)':31}std {after_book.std():.4f}   largest change {moved:.4f}",
        f"{'XavierUniform()(layer.weight)':31}std {after_call.std():.4f}   "
        f"sqrt(2 / (fan_in + fan_out)) = {_std(2, 49 + 64 * 49):.4f}",
        f"{'here':31}std {network.conv1.weight.numpy().std():.4f}   sqrt(2 / fan_out) = {_std(2, 64 * 49):.4f}",
    )
    page.say("initializer_without_effect")
    page.record(
        initializer_moved=moved,
        default_std=float(as_made.std()),
        xavier_std=float(after_call.std()),
        here_std=float(network.conv1.weight.numpy().std()),
    )


def _std(numerator: float, denominator: float) -> float:
    return math.sqrt(numerator / denominator)
