"""The residual block: its shapes, the identity, negative residuals, and its three forms."""

from __future__ import annotations

from functools import partial

import numpy as np
import paddle
from paddle import nn

from paddle_resnet.lessons.common.small_cnn import ignore_batch_norm_warning
from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.residual_block import negative_residuals
from paddle_resnet.lessons.residual_block.diagrams import diagram_of, draw_diagrams
from paddle_resnet.models.blocks import BasicBlock, Bottleneck, PlainBlock, ResidualBlock, projection_shortcut
from paddle_resnet.models.preact import PreActBasicBlock, PreActBottleneck
from paddle_resnet.models.summary import ModelSummary, summarize

INPUT = (4, 3, 6, 6)
STAGE = 56
"""Side of the maps in ResNet's first stage at 224 x 224."""


@ignore_batch_norm_warning()
def teach(page: Page, effort: Effort) -> None:
    """Show a block's shapes, set its branch to zero, let it learn negative residuals, and compare the forms."""
    _same_shape(page)
    _other_shape(page)
    _identity(page)
    negative_residuals.teach(page, effort)
    _forms(page)


def _same_shape(page: Page) -> None:
    page.heading("paths_heading")
    page.say("paths")
    page.values("out = relu(F(x) + x)            # F = bn2(conv2(relu(bn1(conv1(x)))))")
    summary = summarize(BasicBlock(3, 3, 1, projection_shortcut), INPUT)
    _show_layers(page, summary)
    page.record(same_shape_input=INPUT, same_shape_output=summary.output_shape)
    page.say("same_shape")


def _other_shape(page: Page) -> None:
    page.heading("projection_heading")
    block = BasicBlock(3, 6, 2, projection_shortcut)
    summary = summarize(block, INPUT)
    _show_layers(page, summary)
    shape = list(block.downsample[0].weight.shape)
    shortcut, branch = _used_share(block.downsample), _used_share(block.conv1)
    page.record(
        projected_output=summary.output_shape,
        projection_weight=shape,
        projection_parameters=next(row.parameters for row in summary.layers if row.name == "downsample"),
        projected_parameters=summary.parameters,
        seen_by_shortcut=shortcut,
        seen_by_branch=branch,
    )
    page.say("projection", shape=str(shape), seen_by_shortcut=shortcut, seen_by_branch=branch)


def _used_share(layer: nn.Layer) -> float:
    """Return the share of the input's values that the layer's output depends on."""
    random = np.random.default_rng(0)
    x = paddle.to_tensor(random.normal(size=INPUT).astype(np.float32), stop_gradient=False)
    output = layer(x)
    (output * paddle.to_tensor(random.normal(size=output.shape).astype(np.float32))).sum().backward()
    return float(np.mean(x.grad.numpy() != 0))


def _show_layers(page: Page, summary: ModelSummary) -> None:
    """List the shape after each layer, in order of execution."""
    page.values(
        f"{'input':<14}{'':<24}{list(summary.input_shape)}",
        *(
            f"{row.name:<14}{row.kind:<24}{list(row.output_shape)!s:<16}{row.parameters:>6} parameters".rstrip()
            for row in summary.leaves()
            if row.name != "stochastic_depth"
        ),
    )


def _identity(page: Page) -> None:
    page.heading("identity_heading")
    random = np.random.default_rng(0)
    signed = paddle.to_tensor(random.normal(size=INPUT).astype(np.float32))
    rectified = nn.functional.relu(signed)
    paddle.seed(0)
    cases: dict[str, tuple[type[ResidualBlock], paddle.Tensor]] = {
        "identity_basic": (BasicBlock, rectified),
        "identity_basic_signed": (BasicBlock, signed),
        "identity_pre_activation": (PreActBasicBlock, signed),
        "silenced_plain": (PlainBlock, rectified),
    }
    rows = []
    for key, (kind, x) in cases.items():
        block = kind(3, 3, 1, projection_shortcut)
        new = _distance(block(x), x)
        if kind is PlainBlock:  # no part of a ResNet, so it has no method for it
            block.bn2.weight.set_value(paddle.zeros_like(block.bn2.weight))
        else:
            block.zero_init_last()
        zero = _distance(block(x), x)
        source = "relu(N(0, 1))" if x is rectified else "N(0, 1)"
        rows.append([kind.__name__, source, f"{new:.4f}", f"{zero:.4f}"])
        page.record(**{key: zero})
    page.record(largest_input=float(rectified.max().item()))
    page.values("block.zero_init_last()      # zero_init_residual=True does it to every block: gamma of bn2 = 0")
    page.table("identity_rows", rows)
    page.say("identity")


def _distance(output: paddle.Tensor, x: paddle.Tensor) -> float:
    return float((output - x).abs().max().item())


def _forms(page: Page) -> None:
    page.heading("forms_heading")
    blocks: dict[str, tuple[ResidualBlock, int]] = {
        "basic": (BasicBlock(64, 64, 1, projection_shortcut), 64),
        "bottleneck": (Bottleneck(256, 64, 1, projection_shortcut), 256),
        "pre_activation": (PreActBasicBlock(64, 64, 1, projection_shortcut), 64),
        "pre_activation_bottleneck": (PreActBottleneck(256, 64, 1, projection_shortcut), 256),
        "basic_256_channels": (BasicBlock(256, 256, 1, projection_shortcut), 256),
    }
    summaries = {key: summarize(block, (1, channels, STAGE, STAGE)) for key, (block, channels) in blocks.items()}
    drawn = ("basic", "bottleneck", "pre_activation")
    diagrams = {key: diagram_of(page.text(key).en, summaries[key]) for key in drawn}
    page.figure("forms", partial(draw_diagrams, list(diagrams.values())), stage=STAGE)
    page.table(
        "form_costs",
        [
            [page.text(key), list(summary.output_shape[1:]), f"{summary.parameters:,}", f"{summary.macs:,}"]
            for key, summary in summaries.items()
        ],
    )
    basic, bottleneck, *_, wide = summaries.values()
    page.values(
        f"basic:      2 * 64*64*9               + 2 * (64 + 64)        = {basic.parameters:,}",
        f"bottleneck: 256*64 + 64*64*9 + 64*256 + 2 * (64 + 64 + 256)  = {bottleneck.parameters:,}",
    )
    page.say(
        "bottleneck_costs",
        parameter_ratio=bottleneck.parameters / basic.parameters,
        mac_ratio=bottleneck.macs / basic.macs,
        wide_ratio=wide.parameters / bottleneck.parameters,
    )
    page.say("pre_activation_order")
    for key, summary in summaries.items():
        page.record(**{f"{key}_parameters": summary.parameters, f"{key}_macs": summary.macs})
    for key, diagram in diagrams.items():
        page.record(**{f"{key}_branch": diagram.branch, f"{key}_after_addition": diagram.after})
