"""ResNet-18 layer by layer: how an image changes shape, where the parameters are, where the work is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import paddle
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from paddle import nn

from paddle_resnet.lessons.common.network_costs import (
    PartCost,
    convolutions,
    costs_by_part,
    format_shape,
    model_summary,
)
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.models import ImageClassifier, create_model
from paddle_resnet.models.summary import ModelSummary, Shape
from paddle_resnet.plots.style import BLUE, GREEN, GREY, INK, ORANGE, RED, make_figure, without_axes
from paddle_resnet.training.process_setup import ignore_paddle_warnings
from paddle_resnet.zoo.registry import Stem

PUBLISHED_PARAMETERS = 11_689_512  # torchvision's resnet18, 1,000 classes
PUBLISHED_GMACS = 1.814  # torchvision's table of weights (there named GFLOPS), 224x224
STAGE_WIDTHS = (64, 128, 256, 512)
BOOK_SIZE = 96

INPUTS: tuple[tuple[int, Stem], ...] = ((224, "imagenet"), (BOOK_SIZE, "imagenet"), (32, "imagenet"), (32, "cifar"))
"""Sides of images, and the stems for them."""

SLANT = 0.3  # of a slab's side, along both axes of the page
FACES = ("#CFE3F1", "#E8F2F9", "#9CC4E0")  # front, top, side
GAP = 0.42  # between two slabs, in the drawing's units
MARKERS = ("o", "s", "^", "D")


def teach(page: Page, effort: Effort) -> None:
    """Count ResNet-18 by its layers and by hand, at several sizes, and the book's variant of it."""
    summary = model_summary("resnet18", 224)
    _walk(page, summary)
    _by_hand(page, summary)
    _costs(page, summary)
    _published(page)
    _eighteen(page, summary)
    _sizes(page)
    _book(page)


def _walk(page: Page, summary: ModelSummary) -> None:
    page.section("route_question")
    page.table(
        "layers",
        [
            (row.name, row.kind, format_shape(row.output_shape[1:]), row.parameters, f"{row.macs / 1e6:,.1f}")
            for row in summary.walk()
            if row.kind not in ("Identity", "ReLU", "Flatten")
        ],
    )
    _, conv1, maxpool, *stages, _, _ = shapes = list(_shapes(summary).values())
    stops = ("image", "7x7\nstride 2", "max-pool\nstride 2", *(f"stage {number}\n2 blocks" for number in range(1, 5)))
    slabs = list(zip((*stops, "mean over\nH and W"), shapes, strict=False))
    page.figure("route", lambda: draw_route(slabs, "ResNet-18, from 224x224 pixels to 512 features"))
    page.record(parameters=summary.parameters, macs=summary.macs, stage_shapes=stages, stem_shapes=[conv1, maxpool])


def _shapes(summary: ModelSummary) -> dict[str, Shape]:
    """Return the shape of the image, after each layer of stem and head, and after each stage, without the batch."""
    outputs = {row.name: row.output_shape[1:] for row in summary.walk()}
    stages = {f"stage {number}": outputs[f"layer{number}.1"] for number in range(1, 5)}
    stem = {"image": summary.input_shape[1:], "conv1": outputs["conv1"], "max-pool": outputs["maxpool"]}
    return {**stem, **stages, "mean": outputs["avgpool"], "scores": outputs["fc"]}


def _by_hand(page: Page, summary: ModelSummary) -> None:
    page.section("by_hand")
    counts = {"stem    7*7*3*64 + 2*64": 7 * 7 * 3 * 64 + 2 * 64}
    for number, (inputs, width) in enumerate(zip((64, *STAGE_WIDTHS), STAGE_WIDTHS, strict=False), start=1):
        formula, parameters = _stage_by_hand(inputs, width)
        counts[f"stage {number} {formula}"] = parameters
    counts["head    512*10 + 10"] = 512 * 10 + 10
    total = sum(counts.values())
    lines = [f"{formula} = {parameters:,}" for formula, parameters in counts.items()]
    page.values(*lines, f"sum     {total:,}", f"summary {summary.parameters:,}")
    page.record(parameters_by_hand=total)


def _stage_by_hand(inputs: int, width: int) -> tuple[str, int]:
    """Return the parameters of a stage of two basic blocks, with a shortcut where the width changes."""
    if inputs == width:
        return f"4*(9*{width}*{width} + 2*{width})", 4 * (9 * width * width + 2 * width)
    formula = f"9*{inputs}*{width} + 3*9*{width}*{width} + 4*2*{width} + ({inputs}*{width} + 2*{width})"
    return formula, 9 * inputs * width + 3 * 9 * width * width + 4 * 2 * width + (inputs * width + 2 * width)


def _costs(page: Page, summary: ModelSummary) -> None:
    costs = costs_by_part(summary)
    last = [row for row in convolutions(summary) if row.name.endswith(".1.conv2")]  # of each stage
    page.section("halving")
    lines = []
    for number, (row, width) in enumerate(zip(last, STAGE_WIDTHS, strict=True), start=1):
        side = row.output_shape[2]
        lines.append(f"stage {number}: {side}*{side} places * 9*{width}*{width} weights = {row.macs:,} MACs")
    page.values(*lines)
    page.figure("costs", lambda: draw_costs(costs, "ResNet-18 at 224x224, one image, ten classes"))
    early = sum(cost.activations for cost in costs[:2]) / sum(cost.activations for cost in costs)
    page.say("three_answers", last_share=costs[4].parameters / summary.parameters, early=early)
    page.record(
        last_convolution_macs=[row.macs for row in last],
        parameter_shares=[cost.parameters / summary.parameters for cost in costs],
        mac_shares=[cost.macs / summary.macs for cost in costs],
        stem_macs=costs[0].macs,
        early_activations=early,
        activations=sum(cost.activations for cost in costs),
    )


def _published(page: Page) -> None:
    summary = model_summary("resnet18", 224, classes=1000)
    with_statistics = sum(int(np.prod(tensor.shape)) for tensor in create_model("resnet18").parameters())
    page.section("published")
    page.table(
        "counts",
        [
            (page.text("parameters"), summary.parameters, PUBLISHED_PARAMETERS),
            ("GMACs", f"{summary.macs / 1e9:.3f}", f"{PUBLISHED_GMACS:.3f}"),
        ],
    )
    page.say("traps", with_statistics=with_statistics, untrained=with_statistics - summary.parameters)
    page.record(
        imagenet_parameters=summary.parameters, imagenet_macs=summary.macs, parameters_with_statistics=with_statistics
    )


def _eighteen(page: Page, summary: ModelSummary) -> None:
    path, shortcuts = _convolutions_on_path_and_shortcuts(summary)
    wide_summary = model_summary("wrn_28_10", 32)
    wide_path, wide_shortcuts = _convolutions_on_path_and_shortcuts(wide_summary)
    wide = {"path": wide_path, "shortcuts": wide_shortcuts, "depth": wide_summary.depth}
    page.section("eighteen", convolutions=path, summary=summary, shortcuts=shortcuts)
    page.say("wide_names", wide=wide)
    page.record(depth=summary.depth, convolutions_on_the_way=path, shortcut_convolutions=shortcuts)
    page.record(**{f"wide_{name}": count for name, count in wide.items()})


def _convolutions_on_path_and_shortcuts(summary: ModelSummary) -> tuple[int, int]:
    on_shortcuts = sum("downsample" in row.name for row in convolutions(summary))
    return len(convolutions(summary)) - on_shortcuts, on_shortcuts


def _sizes(page: Page) -> None:
    page.section("sizes")
    summaries = {f"{size}x{size}, {stem} stem": model_summary("resnet18", size, stem=stem) for size, stem in INPUTS}
    sides = {label: _sides(summary) for label, summary in summaries.items()}
    page.table(
        "maps",
        [
            (label, f"{sides[label][-1]}x{sides[label][-1]}", summary.parameters, f"{summary.macs / 1e6:,.0f}")
            for label, summary in summaries.items()
        ],
    )
    *_, small, cifar_stem = summaries.values()
    page.figure("sides", lambda: draw_sides(sides, list(_shapes(small))[:-2], "Side of the maps"))
    single = [row for row in convolutions(small) if "3x3" in row.kind and row.input_shape[2:] == (1, 1)]
    unused = sum(row.parameters * 8 // 9 for row in single)
    share, ratio = unused / small.parameters, cifar_stem.macs / small.macs
    page.say("single_pixels", single=len(single), unused=unused, unused_share=share, macs_ratio=ratio)
    page.record(
        sides=list(sides.values()),
        setting_parameters=[summary.parameters for summary in summaries.values()],
        setting_macs=[summary.macs for summary in summaries.values()],
        one_pixel_convolutions=[row.name for row in single],
        unused_parameters=unused,
    )


def _sides(summary: ModelSummary) -> list[int]:
    return [side for _, side, *_ in list(_shapes(summary).values())[:-2]]


def _book(page: Page) -> None:
    network = create_model("resnet18_d2l")
    book, ours = model_summary("resnet18_d2l", BOOK_SIZE), model_summary("resnet18", BOOK_SIZE, in_channels=1)
    shapes = _shapes(book)
    route = ", ".join(format_shape(shape) for place, shape in shapes.items() if place not in ("conv1", "mean"))
    page.section("book", route=route, book=book, ours=ours)
    biases = {
        f"{name}.bias": layer.bias.size
        for name, layer in network.named_sublayers()
        if isinstance(layer, nn.Conv2D) and layer.bias is not None
    }
    page.values(
        f"resnet18, one channel:                      {ours.parameters:>12,}",
        f"+ a bias for each convolution's channel:    {sum(biases.values()):>12,}",
        f"- no BatchNorm on the three shortcuts:      {-2 * sum(STAGE_WIDTHS[1:]):>12,}",
        f"resnet18_d2l:                               {book.parameters:>12,}",
    )
    shortcuts = [name for name in biases if "downsample" in name]
    others = [name for name in biases if name not in shortcuts]
    effect, shortcut_effect = bias_effects(network, BOOK_SIZE, [others, shortcuts])
    before_norm = sum(biases[name] for name in others)
    page.say("biases", before_norm=before_norm, effect=effect, shortcut_effect=shortcut_effect)
    page.record(
        book_parameters=book.parameters,
        book_macs=book.macs,
        book_sides=_sides(book),
        book_biases=sum(biases.values()),
        biases_before_norm=before_norm,
        bias_effect_before_norm=effect,
        bias_effect_on_shortcuts=shortcut_effect,
    )


@paddle.no_grad()
@ignore_paddle_warnings()
def bias_effects(network: ImageClassifier, size: int, groups: Iterable[Iterable[str]]) -> list[float]:
    """Measure the effect of random parameters of deviation 1, in training mode on random images of `size` pixels.

    Each group of parameters, by their names in the state dict, is set in turn, and stays so. The effect is the root
    mean square change of the scores, relative to their standard deviation before.
    """
    generator = np.random.default_rng(0)
    network.train()
    images = generator.normal(size=(8, network.in_channels, size, size)).astype(np.float32)
    effects = []
    for names in groups:
        before = network(paddle.to_tensor(images)).numpy()
        state = network.state_dict()
        for name in names:
            state[name].set_value(generator.normal(size=state[name].shape).astype(np.float32))
        change = network(paddle.to_tensor(images)).numpy() - before
        effects.append(float(np.sqrt(np.mean(change**2)) / before.std()))
    return effects


def draw_route(stops: Sequence[tuple[str, Shape]], title: str) -> Figure:
    """Draw each stop ``(name, [channels, height, width])`` as a slab: the thicker, the more channels.

    Sides and thickness are drawn as square roots, or the last stages would be threads.
    """
    figure, axes = make_figure(9.6, 3.5)
    without_axes(axes)
    axes.set_aspect("equal")
    largest_side = max(shape[1] for _, shape in stops)
    most_channels = max(shape[0] for _, shape in stops)
    left = 0.0
    for name, (channels, side, _) in stops:
        height = 1.5 * math.sqrt(side / largest_side)
        thickness = 0.85 * math.sqrt(channels / most_channels)
        _slab(axes, left, height, thickness)
        middle = left + (thickness + SLANT * height) / 2
        above = height * (1 + SLANT) / 2
        axes.text(middle, above + 0.06, f"{channels}", ha="center", va="bottom", fontsize=11, fontweight="bold")
        axes.text(middle, above + 0.27, f"{side}x{side}", ha="center", va="bottom", fontsize=10, color=BLUE)
        for line, words in enumerate(name.splitlines()):
            axes.text(middle, -1.22 - 0.19 * line, words, ha="center", va="baseline", fontsize=10)
        left += thickness + SLANT * height + GAP
    axes.set(xlim=(-0.2, left - GAP + 0.2), ylim=(-1.5, 1.55))
    axes.set_title(title, loc="left", fontweight="bold")
    return figure


def _slab(axes: Axes, left: float, height: float, thickness: float) -> None:
    """Draw one box in oblique projection, centred on the line y = 0."""
    bottom = -height * (1 + SLANT) / 2
    origin, right, up = np.array([left, bottom]), np.array([thickness, 0.0]), np.array([0.0, height])
    back = np.array([SLANT * height, SLANT * height])
    front = [origin, origin + right, origin + right + up, origin + up]
    lid = [origin + up, origin + right + up, origin + right + up + back, origin + up + back]
    side = [origin + right, origin + right + back, origin + right + up + back, origin + right + up]
    for corners, colour in zip((front, lid, side), FACES, strict=True):
        axes.add_patch(Polygon(corners, closed=True, facecolor=colour, edgecolor=BLUE, linewidth=0.9))


def draw_costs(costs: Sequence[PartCost], title: str) -> Figure:
    """Draw each part's share of the parameters, the multiply-adds and the activations, side by side."""
    figure, panels = make_figure(9.6, 3.7, 1, 3, title=title, sharey=True)
    measures = (
        ("parameters", [cost.parameters for cost in costs], BLUE),
        ("multiply-adds", [cost.macs for cost in costs], ORANGE),
        ("numbers in the outputs", [cost.activations for cost in costs], GREEN),
    )
    for axes, (name, amounts, colour) in zip(panels, measures, strict=True):
        shares = [100 * amount / sum(amounts) for amount in amounts]
        axes.bar([cost.label for cost in costs], shares, color=colour, width=0.7)
        for place, (share, amount) in enumerate(zip(shares, amounts, strict=True)):
            axes.text(place, share + 1.0, format_count(amount), ha="center", fontsize=9, color=INK)
        axes.set_title(f"{name}: {format_count(sum(amounts))}", loc="left", fontsize=11)
        axes.tick_params(axis="x", labelrotation=40, labelsize=10)
    panels[0].set_ylabel("share of the network (%)")
    return figure


def draw_sides(sides: Mapping[str, Sequence[int]], places: Sequence[str], title: str) -> Figure:
    """Draw the side of the maps in pixels after each place of the network, a line for each label of `sides`."""
    figure, axes = make_figure(9.2, 4.2)
    beside: dict[str, Any] = {"xytext": (9, 0), "textcoords": "offset points", "va": "center", "fontweight": "bold"}
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    for (label, values), colour, marker in zip(sides.items(), (BLUE, GREEN, ORANGE, RED), MARKERS, strict=False):
        axes.plot(range(len(values)), values, color=colour, marker=marker, label=label)
        end = (len(values) - 1, values[-1])
        axes.annotate(f"{values[-1]}", end, color=colour, bbox=box, zorder=3, **beside)
    axes.set_yscale("log", base=2)
    ticks = [1, 2, 4, 8, 16, 32, 64, 128, 256]
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.axhline(3, color=GREY, linewidth=1, linestyle="--")
    axes.text(0.0, 2.75, "below: a 3x3 window is larger than the map", fontsize=9, color=GREY, va="top")
    axes.set_xticks(range(len(places)), places)
    axes.set(xlabel="after", ylabel="side (pixels, log scale)")
    axes.legend(loc="upper right")
    axes.set_title(title, loc="left", fontweight="bold")
    return figure


def format_count(number: int) -> str:
    """A count in three digits: ``11.2M``."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
