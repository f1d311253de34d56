"""Grouped convolution: what it computes, how ResNeXt uses it, and the limits of one channel per group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import paddle
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from paddle import nn
from paddle.nn import functional

from paddle_resnet.lessons.common.network_costs import describe_machine, time_interleaved
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.framework.texts import Text
from paddle_resnet.models import count_parameters, model_entry
from paddle_resnet.models.blocks import BlockOptions, Bottleneck, convolution, projection_shortcut
from paddle_resnet.models.factory import make_network
from paddle_resnet.models.resnet import ResNet
from paddle_resnet.models.summary import summarize
from paddle_resnet.onednn import layers as onednn_layers
from paddle_resnet.onednn.availability import unavailable_reason
from paddle_resnet.plots.style import BLUE, GREEN, INK, ORANGE, RED, make_figure
from paddle_resnet.zoo.registry import ResNetEntry

CARDINALITIES = ((1, 64), (2, 40), (4, 24), (8, 14), (32, 4))  # Xie et al. 2017, table 2
CHANNELS = 16
PADDLE, ONEDNN = "Paddle's own layer", "oneDNN's layer"
PAPER = {"1x64d": ("25.5", "4.1"), "32x4d": ("25.0", "4.2")}  # table 1: million parameters, billion multiply-adds


@dataclass(frozen=True)
class ConvShape:
    """A 3x3 convolution with as many output as input channels, for a varying number of groups."""

    channels: int
    side: int
    batch: int

    def macs(self, groups: int) -> int:
        """Return the multiply-adds for the batch."""
        return self.batch * self.side**2 * self.channels * (self.channels // groups) * 9

    def numbers_moved(self, groups: int) -> int:
        """Return the number of values in input, output and weight, each of which is read or written at least once."""
        return 2 * self.batch * self.channels * self.side**2 + self.channels * (self.channels // groups) * 9


TIMED = ConvShape(channels=128, side=28, batch=8)


def teach(page: Page, effort: Effort) -> None:
    """Show a grouped convolution as slices and as blocks, count ResNeXt's costs, and measure times."""
    paddle.seed(0)
    _slices(page)
    _blocks(page)
    _cardinality(page)
    _networks(page)
    _mixing(page)
    _depthwise(page, repeats=max(3, round(15 * effort.scale)))


def _slices(page: Page) -> None:
    layer = nn.Conv2D(8, 8, 3, padding=1, groups=2, bias_attr=False)
    x = paddle.randn([1, 8, 6, 6])
    with paddle.no_grad():
        grouped, sliced = layer(x).numpy(), conv_by_slices(x, layer.weight, 2).numpy()
        full = paddle.to_tensor(to_dense(layer.weight.numpy(), 2))
        dense = nn.functional.conv2d(x, full, padding=1).numpy()
    page.section("slices")
    difference, block_difference = (float(np.abs(grouped - other).max()) for other in (sliced, dense))
    page.values(
        f"Conv2D(8, 8, 3, groups=1).weight.shape          [8, 8, 3, 3]   {8 * 8 * 9} weights",
        f"Conv2D(8, 8, 3, groups=2).weight.shape          {list(layer.weight.shape)}   {layer.weight.size} weights",
        f"largest output                                  {np.abs(grouped).max():.4f}",
        f"largest |Conv2D(x) - conv_by_slices(x)|         {difference:.1e}",
        f"largest |Conv2D(x) - conv2d(x, to_dense(...))|  {block_difference:.1e}",
    )
    page.say("third_view")
    page.record(
        slices_difference=difference,
        blocks_difference=block_difference,
        largest_output=float(np.abs(grouped).max()),
        grouped_weights=int(layer.weight.size),
    )


def _blocks(page: Page) -> None:
    page.heading("blocks_heading")
    weights = {}
    for groups in (1, 2, 4, CHANNELS):
        layer = nn.Conv2D(CHANNELS, CHANNELS, 3, padding=1, groups=groups, bias_attr=False)
        weights[groups] = to_dense(layer.weight.numpy(), groups)
    page.figure("blocks", lambda: _draw_weights(weights))
    counts = [int(np.count_nonzero(weight)) for weight in weights.values()]
    page.say("block_weights", counts=[f"{count:,}" for count in counts])
    page.record(block_weights=counts)


def _cardinality(page: Page) -> None:
    blocks = [BlockCost.of(groups, width) for groups, width in CARDINALITIES]
    depthwise = BlockCost.of(round(blocks[0].weights / (256 + 9 + 256)), 1)  # equation 4 with d = 1, solved for C
    page.section("equation")
    rows = []
    for block in [*blocks, depthwise]:
        share, macs = f"{block.grouped_share:.1%}", f"{block.weights * 56 * 56 / 1e6:.0f}"
        rows.append((block.groups, block.group_width, block.width, block.weights, share, macs))
    page.table("block_costs", rows)
    page.figure("cardinality", lambda: _draw_cardinality([*blocks, depthwise]), depthwise=depthwise)
    page.say("accuracy", widest=blocks[-1], depthwise=depthwise)
    page.record(
        block_labels=[block.label for block in blocks],
        block_widths=[block.width for block in blocks],
        block_costs=[block.weights for block in blocks],
        grouped_shares=[block.grouped_share for block in blocks],
        depthwise_width=depthwise.width,
        depthwise_cost=depthwise.weights,
    )


def _networks(page: Page) -> None:
    page.section("networks")
    rows, parameters, macs = [], [], []
    for groups, width in CARDINALITIES:
        network = resnext50(groups, width)
        parameters.append(count_parameters(network))
        macs.append(summarize(network, (1, 3, 224, 224)).macs)
        label = f"{groups}x{width}d"
        paper = "{} M, {} G".format(*PAPER[label]) if label in PAPER else ""
        rows.append((label, parameters[-1], f"{macs[-1] / 1e9:.2f}", paper))
    page.table("network_costs", rows)
    page.say("names")
    page.record(network_parameters=parameters, network_macs=macs)


def _mixing(page: Page) -> None:
    groups = 4
    grouped = partial(convolution, CHANNELS, CHANNELS, 3, groups=groups)
    chains = {
        "one grouped 3x3": nn.Conv2D(CHANNELS, CHANNELS, 3, padding=1, groups=groups),
        "three grouped 3x3": nn.Sequential(grouped(), grouped(), grouped()),
        "grouped, 1x1, grouped": nn.Sequential(grouped(), convolution(CHANNELS, CHANNELS, 1), grouped()),
    }
    matrices = {name: channel_dependencies(chain, CHANNELS) for name, chain in chains.items()}
    page.section("mixing_depth", channels=CHANNELS, groups=groups)
    title = f"{CHANNELS} channels, {groups} groups: which output depends on which input"
    labelled = {f"{name}\n{matrix.mean():.0%} of the pairs": matrix for name, matrix in matrices.items()}
    colours = ListedColormap(["#F1F1F1", BLUE])
    page.figure("mixing", lambda: _draw_matrices(labelled, 9.2, 4.1, title, cmap=colours, vmax=1)[0])
    page.record(connected=[float(matrix.mean()) for matrix in matrices.values()])


def _depthwise(page: Page, repeats: int) -> None:
    groups = [2**power for power in range(8)]
    work = [TIMED.macs(number) for number in groups]
    intensity = [macs / TIMED.numbers_moved(number) for macs, number in zip(work, groups, strict=True)]
    times = forward_times(TIMED, groups, repeats)
    pair = 1 / TIMED.channels + 1 / 9
    page.section("depthwise", timed=TIMED, pair=pair, repeats=repeats, machine=describe_machine())
    page.table(
        "times_by_groups",
        [
            [number, f"{macs / 1e6:.1f}", f"{ratio:.1f}", *(f"{1000 * value:.2f}" for value in seconds)]
            for number, macs, ratio, *seconds in zip(groups, work, intensity, *times.values(), strict=True)
        ],
        columns=[page.text("milliseconds", backend=backend) for backend in map(page.text, times)],
    )
    page.figure("times", lambda: _draw_times(groups, work, times))
    outcomes = [_outcome(page, backend, seconds) for backend, seconds in times.items()]
    page.say("times_outcome", most=groups[-1], saved=work[0] / work[-1], outcomes=outcomes)
    page.record(
        timed_groups=groups,
        timed_macs=work,
        macs_per_number=intensity,
        separable_share=pair,
        times=list(times.values()),
        backends=list(times),
    )


def _outcome(page: Page, backend: str, seconds: Sequence[float]) -> Text:
    """Compare the times of one channel per group and of one group."""
    ratio, slower = seconds[0] / seconds[-1], TIMED.channels * seconds[-1] / seconds[0]
    change = page.text("fell", ratio=ratio) if ratio > 1 else page.text("did_not_fall", ratio=1 / ratio)
    return page.text("time_of_backend", backend=page.text(backend), change=change, slower=slower)


def _draw_weights(dense: Mapping[int, np.ndarray]) -> Figure:
    """Draw weights ``[out, in, k, k]`` by their number of groups: one square per kernel, coloured by its norm."""
    matrices = {}
    for groups, weight in dense.items():
        norms = np.sqrt((weight**2).sum(axis=(2, 3)))
        label = f"{groups} group{'s' * (groups > 1)}\n{np.count_nonzero(weight):,} weights"
        matrices[label] = np.where(norms > 0, norms, np.nan)
    largest = max(map(np.nanmax, matrices.values()))
    title = f"A 3x3 convolution of {CHANNELS} channels, written as an ordinary one"
    figure, panels = _draw_matrices(matrices, 9.6, 3.1, title, cmap="viridis", vmax=largest)
    figure.colorbar(panels[-1].images[0], ax=list(panels), shrink=0.85, label="norm of the 3x3 kernel", pad=0.01)
    return figure


def _draw_matrices(
    matrices: Mapping[str, np.ndarray], width: float, height: float, title: str, **style: Any
) -> tuple[Figure, Sequence[Axes]]:
    """Draw matrices ``[out, in]`` side by side, a column for each input channel."""
    figure, panels = make_figure(width, height, 1, len(matrices), title=title, sharey=True)
    for axes, (label, matrix) in zip(panels, matrices.items(), strict=True):
        axes.imshow(matrix, vmin=0, **style)
        axes.grid(False)
        axes.spines[["top", "right"]].set_visible(True)
        channels = [0, len(matrix) // 2, len(matrix) - 1]
        axes.set(xticks=channels, yticks=channels, xlabel="input channel")
        axes.set_title(label, fontsize=11)
    panels[0].set_ylabel("output channel")
    return figure, panels


def _draw_cardinality(blocks: Sequence[BlockCost]) -> Figure:
    """Draw each block's weights by convolution, and the channels of its 3x3 convolution."""
    title = "Table 2 of ResNeXt, and one step beyond it"
    figure, (weights, widths) = make_figure(9.6, 4.0, 1, 2, title=title, width_ratios=[5, 4])
    labels = [block.label for block in blocks]
    layers = (("1x1, 256 to width", BLUE), ("3x3, grouped", ORANGE), ("1x1, width to 256", GREEN))
    bottom = np.zeros(len(blocks))
    for (name, colour), thousands in zip(layers, np.array([block.by_layer for block in blocks]).T / 1000, strict=True):
        weights.bar(labels, thousands, bottom=bottom, color=colour, width=0.7, label=name)
        bottom += thousands
    weights.set(ylabel="weights of the block (thousands)", ylim=(0, 1.42 * bottom.max()))
    weights.legend(loc="upper left", fontsize=10)
    weights.set_title("the cost stays ...", loc="left")
    channels = [block.width for block in blocks]
    widths.plot(labels, channels, color=RED, marker="o")
    above: dict[str, Any] = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center", "fontsize": 10}
    for place, number in enumerate(channels):
        widths.annotate(f"{number}", (place, number), **above)
    widths.set(ylim=(0, 1.2 * max(channels)), ylabel="channels of the 3x3 convolution")
    widths.set_title("... and the 3x3 convolution gets wider", loc="left")
    for axes in (weights, widths):
        axes.set_xlabel("groups x channels of each")
        axes.tick_params(axis="x", labelrotation=25)
    return figure


def _draw_times(groups: Sequence[int], work: Sequence[int], times: Mapping[str, Sequence[float]]) -> Figure:
    """Draw multiply-adds and measured times by number of groups, relative to one group."""
    figure, axes = make_figure(9.2, 4.4)
    axes.plot(groups, [amount / work[0] for amount in work], color=INK, linestyle="--", label="multiply-adds (counted)")
    for (backend, seconds), colour, marker in zip(times.items(), (BLUE, ORANGE), ("o", "s"), strict=False):
        relative = [value / seconds[0] for value in seconds]
        axes.plot(groups, relative, color=colour, marker=marker, label=f"time, {backend} (measured)")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(list(groups), [str(number) for number in groups])
    low = int(np.floor(np.log2(work[-1] / work[0])))
    high = int(np.ceil(np.log2(max(1.0, *(max(seconds) / seconds[0] for seconds in times.values())))))
    powers = range(low, high + 1)
    labels = [f"{2**power}" if power >= 0 else f"1/{2**-power}" for power in powers]
    axes.set_yticks([2.0**power for power in powers], labels)
    axes.minorticks_off()
    axes.set(xlabel="groups (log scale); the last is one for each channel", ylabel="relative to one group (log scale)")
    axes.grid(True)
    axes.legend(loc="lower left")
    axes.set_title(f"3x3 convolution, {TIMED.channels} channels: work and time", loc="left", fontweight="bold")
    return figure


def conv_by_slices(x: paddle.Tensor, weight: paddle.Tensor, groups: int) -> paddle.Tensor:
    """Convolve each group of channels separately and concatenate the results.

    Args:
        x: ``[N, in, H, W]``.
        weight: of the grouped convolution, ``[out, in / groups, k, k]``, k odd.
        groups: number of groups.
    """
    pairs = zip(x.chunk(groups, axis=1), weight.chunk(groups, axis=0), strict=True)
    padding = weight.shape[-1] // 2
    return paddle.concat([functional.conv2d(part, kernel, padding=padding) for part, kernel in pairs], axis=1)


def to_dense(weight: np.ndarray, groups: int) -> np.ndarray:
    """Convert a grouped weight ``[out, in / groups, k, k]`` to a block-diagonal dense one ``[out, in, k, k]``."""
    out_channels, group_in, *kernel = weight.shape
    group_out = out_channels // groups
    dense = np.zeros((groups, group_out, groups, group_in, *kernel), weight.dtype)
    for group, block in enumerate(weight.reshape(groups, group_out, group_in, *kernel)):
        dense[group, :, group] = block
    return dense.reshape(out_channels, groups * group_in, *kernel)


@dataclass(frozen=True)
class BlockCost:
    """A bottleneck on 256 channels: groups (cardinality), channels per group, and weights of its three convolutions."""

    groups: int
    group_width: int
    by_layer: tuple[int, int, int]

    @classmethod
    def of(cls, groups: int, group_width: int) -> BlockCost:
        """Count the weights of the bottleneck in a ResNeXt's first stage, equation 4 of the paper."""
        block = Bottleneck(256, 64, 1, projection_shortcut, BlockOptions(groups=groups, group_width=group_width))
        return cls(groups, group_width, (block.conv1.weight.size, block.conv2.weight.size, block.conv3.weight.size))

    @property
    def width(self) -> int:
        return self.groups * self.group_width

    @property
    def weights(self) -> int:
        return sum(self.by_layer)

    @property
    def grouped_share(self) -> float:
        return self.by_layer[1] / self.weights

    @property
    def label(self) -> str:
        """As the paper writes it, ``32x4d``."""
        return f"{self.groups}x{self.group_width}d"


def resnext50(groups: int, group_width: int) -> ResNet:
    """Make a network of 50 layers with these groups, without creating its weights."""
    entry = model_entry("resnet50")
    assert isinstance(entry, ResNetEntry)
    grouped = replace(entry, groups=groups, group_width=group_width)
    with paddle.utils.unique_name.guard(), paddle.LazyGuard():
        return make_network(grouped, num_classes=entry.num_classes, in_channels=entry.in_channels)


@paddle.no_grad()
def channel_dependencies(layer: nn.Layer, channels: int, seed: int = 0) -> np.ndarray:
    """Find which output channels change with which input channel: bool ``[out, in]``."""
    generator = np.random.default_rng(seed)
    image = generator.normal(size=(1, channels, 9, 9))
    changes = np.zeros((channels, channels, 9, 9))
    changes[range(channels), range(channels)] = generator.normal(size=(channels, 9, 9))
    outputs = layer(paddle.to_tensor(np.concatenate([image, image + changes]).astype(np.float32))).numpy()
    moved = np.abs(outputs[1:] - outputs[:1]).max(axis=(2, 3)).transpose()  # [out, in]
    rounding = 1e-4 * moved.max()
    return moved > rounding


def forward_times(layer: ConvShape, groups: Sequence[int], repeats: int) -> dict[str, list[float]]:
    """Return the median seconds of a forward pass for each number of groups, by backend."""
    image = np.random.default_rng(0).normal(size=(layer.batch, layer.channels, layer.side, layer.side))
    inputs = {PADDLE: paddle.to_tensor(image.astype(np.float32))}
    kinds: dict[str, type[nn.Layer]] = {PADDLE: nn.Conv2D}
    if unavailable_reason() is None:
        inputs[ONEDNN] = inputs[PADDLE].transpose([0, 2, 3, 1])
        kinds[ONEDNN] = onednn_layers.Convolution
    settings = {"kernel_size": 3, "padding": 1, "bias_attr": False}
    passes: dict[tuple[str, int], Callable[[], object]] = {
        (backend, number): partial(kind(layer.channels, layer.channels, groups=number, **settings), inputs[backend])
        for number in groups
        for backend, kind in kinds.items()
    }
    with paddle.no_grad():
        seconds = time_interleaved(passes, 1 + repeats)  # the first call of each is a warm-up
    return {backend: [float(np.median(seconds[backend, number][1:])) for number in groups] for backend in kinds}
