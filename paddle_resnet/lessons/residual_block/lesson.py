"""The residual block: its shapes, the identity, negative residuals, and its three forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import paddle
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from paddle import nn

from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.models.blocks import BasicBlock, Bottleneck, PlainBlock, ResidualBlock, projection_shortcut
from paddle_resnet.models.preact import PreActBasicBlock, PreActBottleneck
from paddle_resnet.models.summary import LayerSummary, ModelSummary, summarize
from paddle_resnet.plots.style import BLUE, GREEN, GREY, INK, ORANGE, RED, make_figure, plain_log_labels, without_axes
from paddle_resnet.training.process_setup import ignore_paddle_warnings

INPUT = (4, 3, 6, 6)
STAGE = 56  # side of the maps in ResNet's first stage at 224 x 224
CHANNELS, SIZE, BATCH = 3, 6, 64
STEPS = 600
RATE = 0.01
TARGET = 0.5  # H(x) = TARGET * x: the residual H(x) - x is -x / 2
USUAL, RECTIFIED = "F ends in BatchNorm", "F ends in ReLU"
COLOURS = {USUAL: BLUE, RECTIFIED: RED}

ADDITIONS = {"AddReLU": ("ReLU",), "Add": ()}  # layers after the addition, by the kind of a block's last layer
FILLS = {"conv": BLUE, "BatchNorm": ORANGE, "ReLU": GREEN}
BOX_WIDTH, BOX_HEIGHT, STEP = 2.6, 0.62, 1.0
PLUS_RADIUS = 0.24
ARROW: dict[str, Any] = {"arrowstyle": "-|>", "color": INK, "shrinkA": 0, "shrinkB": 0}


@ignore_paddle_warnings()
def teach(page: Page, effort: Effort) -> None:
    """Show a block's shapes, set its branch to zero, let it learn negative residuals, and compare the forms."""
    _same_shape(page)
    _other_shape(page)
    _identity(page)
    _signs(page, effort)
    _forms(page)


def _same_shape(page: Page) -> None:
    page.section("paths")
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


@dataclass(frozen=True)
class FitResult:
    """A block trained to compute H(x) = x / 2."""

    errors: tuple[float, ...]  # mean squared error of each step's batch
    error: float  # on new images, in evaluation mode
    floor: float  # smallest possible error on them of a branch without negative values
    x: np.ndarray  # values of the new images, flat
    residuals: np.ndarray  # the branch's outputs at the same positions

    @property
    def negative_share(self) -> float:
        return float(np.mean(self.residuals < 0))


def _signs(page: Page, effort: Effort) -> None:
    """Train both blocks, and compare the signs of their residuals."""
    steps = effort.epochs(STEPS)
    page.section("sign_question", channels=CHANNELS)
    page.values(
        "target = 0.5 * x                          # x = |normal|, so x >= 0 as inside a ResNet",
        "block.bn2 = Sequential(block.bn2, ReLU())   # the second block only",
        f"{steps} steps of Adam, learning rate {RATE:g}, {BATCH} new images per step",
    )
    results = {USUAL: _fit_block(steps, rectified=False), RECTIFIED: _fit_block(steps, rectified=True)}
    page.table(
        "sign_fits",
        [
            [name.removeprefix("F ends in "), f"{fit.error:.5f}", f"{fit.floor:.5f}", f"{fit.negative_share:.0%}"]
            for name, fit in results.items()
        ],
    )
    usual, rectified = results[USUAL], results[RECTIFIED]
    page.record(sign_steps=steps, floor=usual.floor)
    for key, fit in (("usual", usual), ("rectified", rectified)):
        numbers = {"error": fit.error, "negative_share": fit.negative_share, "least_residual": fit.residuals.min()}
        page.record(**{f"{name}_{key}": number for name, number in numbers.items()})
    page.figure("residual_sign", partial(_draw_fits, results))
    page.say("sign_outcome", usual=usual, rectified=rectified)


def _fit_block(steps: int, *, rectified: bool) -> FitResult:
    """Train a block to compute H(x) = x / 2, and measure it on new images."""
    paddle.seed(0)
    random = np.random.default_rng(0)
    block = BasicBlock(CHANNELS, CHANNELS, 1, projection_shortcut)
    if rectified:
        block.bn2 = nn.Sequential(block.bn2, nn.ReLU())
    optimizer = paddle.optimizer.Adam(RATE, parameters=block.parameters())
    errors = []
    for _ in range(steps):
        x = _positive_images(random)
        loss = (block(x) - TARGET * x).square().mean()
        errors.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
    block.eval()
    residuals: list[paddle.Tensor] = []
    hook = block.bn2.register_forward_post_hook(lambda _layer, _inputs, output: residuals.append(output))
    x = _positive_images(random)
    with paddle.no_grad():
        error = (block(x) - TARGET * x).square().mean().item()
    hook.remove()
    floor = float(np.mean(((1 - TARGET) * x.numpy().astype(np.float64)) ** 2))
    return FitResult(tuple(errors), error, floor, x.numpy().ravel(), residuals[0].numpy().ravel())


def _positive_images(random: np.random.Generator) -> paddle.Tensor:
    return paddle.to_tensor(np.abs(random.normal(size=(BATCH, CHANNELS, SIZE, SIZE))).astype(np.float32))


def _draw_fits(results: dict[str, FitResult]) -> Figure:
    figure, (error, residual) = make_figure(9.5, 3.8, 1, 2)
    shown = slice(0, 1500)
    for name, fit in results.items():
        error.plot(range(1, len(fit.errors) + 1), fit.errors, color=COLOURS[name], label=name)
        residual.plot(fit.x[shown], fit.residuals[shown], ".", color=COLOURS[name], markersize=4, alpha=0.5, label=name)
    error.axhline(results[USUAL].floor, color=GREY, linestyle=":", label="least with F >= 0")
    error.set_yscale("log")
    plain_log_labels(error.yaxis, subs=(1.0,))
    error.set(xlabel="training step", ylabel="mean squared error")
    ends = np.array([0.0, max(fit.x[shown].max() for fit in results.values())])
    residual.plot(ends, (TARGET - 1) * ends, color=INK, linestyle="--", linewidth=1.3, label="H(x) - x = -x / 2")
    residual.axhline(0, color=GREY, linewidth=1)
    residual.set(xlabel="x", ylabel="F(x)")
    for axes in (error, residual):
        axes.legend(loc="lower left")
    return figure


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
            [page.text(key), list(summary.output_shape[1:]), summary.parameters, summary.macs]
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


@dataclass(frozen=True)
class Diagram:
    """A block with an identity shortcut: layers of the branch, layers after the addition, lines below the diagram."""

    title: str
    branch: tuple[str, ...]
    after: tuple[str, ...]
    caption: tuple[str, ...]


def diagram_of(title: str, summary: ModelSummary) -> Diagram:
    """Make the diagram of a block from its summary."""
    layers = [row for row in summary.leaves() if row.kind != "Identity"]
    *branch, addition = layers
    channels = summary.output_shape[1]
    return Diagram(
        title=title,
        branch=tuple(map(_label, branch)),
        after=ADDITIONS[addition.kind],
        caption=(
            f"{channels} channels in and out",
            f"{summary.parameters:,} parameters",
            f"{summary.macs / 1e6:.0f} million multiply-adds",
        ),
    )


def _label(row: LayerSummary) -> str:
    if row.kind.startswith("Conv2D"):
        kernel = row.kind.removeprefix("Conv2D ").split(",")[0]
        return f"conv {kernel}, {row.input_shape[1]} -> {row.output_shape[1]}"
    return "BatchNorm" if row.kind.startswith("BatchNorm") else row.kind


def draw_diagrams(diagrams: Sequence[Diagram]) -> Figure:
    """Draw the blocks side by side."""
    rows = max(len(diagram.branch) + len(diagram.after) for diagram in diagrams) + 2
    figure, panels = make_figure(9.5, 0.52 * rows + 1.6, 1, len(diagrams))
    for axes, diagram in zip(panels, diagrams, strict=True):
        _draw(axes, diagram)
        axes.set(xlim=(-2.0, 2.7), ylim=(-STEP * rows - 1.6, 0.7))
        without_axes(axes)
    return figure


def _draw(axes: Axes, diagram: Diagram) -> None:
    """Draw from top to bottom: x, the branch, the addition, the layers after it; the shortcut on the right."""
    axes.set_title(diagram.title, fontsize=12, fontweight="bold")
    axes.text(0, 0.12, "x", ha="center", va="bottom", fontsize=13, style="italic")
    end = _boxes(axes, diagram.branch, -STEP, 0.05)
    plus = -STEP * (len(diagram.branch) + 1)
    _arrow(axes, end, plus + PLUS_RADIUS)
    axes.add_patch(Circle((0, plus), PLUS_RADIUS, facecolor="white", edgecolor=INK, linewidth=1.5, zorder=3))
    axes.text(0, plus - 0.02, "+", ha="center", va="center", fontsize=14, zorder=4)
    style: dict[str, Any] = {**ARROW, "mutation_scale": 13, "linewidth": 2.2}
    axes.add_patch(FancyArrowPatch(path=_shortcut(plus), **style))
    axes.text(1.85, plus / 2, "identity", rotation=270, ha="left", va="center", color=GREY)
    end = _boxes(axes, diagram.after, plus - STEP, plus - PLUS_RADIUS)
    _arrow(axes, end, end - 0.5)
    axes.text(0, end - 0.85, "\n".join(diagram.caption), ha="center", va="top", fontsize=10)


def _boxes(axes: Axes, labels: Sequence[str], y: float, start: float) -> float:
    """Draw boxes from `y` downwards, and an arrow to each, the first from `start`; return the last box's lower edge."""
    for label in labels:
        fill = next((colour for word, colour in FILLS.items() if label.startswith(word)), GREY)
        corner = (-BOX_WIDTH / 2, y - BOX_HEIGHT / 2)
        style: dict[str, Any] = {"facecolor": (*to_rgb(fill), 0.22), "edgecolor": fill, "linewidth": 1.5}
        rounded = "round,pad=0,rounding_size=0.12"
        axes.add_patch(FancyBboxPatch(corner, BOX_WIDTH, BOX_HEIGHT, boxstyle=rounded, **style))
        axes.text(0, y - 0.02, label, ha="center", va="center", fontsize=10)
        _arrow(axes, start, y + BOX_HEIGHT / 2)
        start, y = y - BOX_HEIGHT / 2, y - STEP
    return start


def _arrow(axes: Axes, start: float, end: float) -> None:
    axes.add_patch(FancyArrowPatch((0, start), (0, end), mutation_scale=11, linewidth=1.3, **ARROW))


def _shortcut(plus: float) -> Path:
    """Make the path of the shortcut from x around the branch to the addition."""
    right, top, corner = 1.7, -0.2, 0.45
    start, upper = [(0, top), (right - corner, top)], [(right, top), (right, top - corner)]
    lower, end = [(right, plus + corner), (right, plus), (right - corner, plus)], [(PLUS_RADIUS, plus)]
    codes = [Path.MOVETO, Path.LINETO, Path.CURVE3, Path.CURVE3, Path.LINETO, Path.CURVE3, Path.CURVE3, Path.LINETO]
    return Path(start + upper + lower + end, codes)
