"""ResNet-18 layer by layer: how an image changes shape, where the parameters are, where the work is."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import paddle
from paddle import nn

from paddle_resnet.lessons.common.network_costs import (
    convolutions,
    costs_by_part,
    format_shape,
    model_summary,
)
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.network_shapes.plots import draw_costs, draw_route, draw_sides
from paddle_resnet.models import ImageClassifier, create_model
from paddle_resnet.models.summary import ModelSummary, Shape
from paddle_resnet.training.process_setup import ignore_paddle_warnings
from paddle_resnet.zoo.registry import Stem

PUBLISHED_PARAMETERS = 11_689_512  # torchvision's resnet18, 1,000 classes
PUBLISHED_GMACS = 1.814  # torchvision's table of weights (there named GFLOPS), 224x224
STAGE_WIDTHS = (64, 128, 256, 512)
BOOK_SIZE = 96


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
    page.heading("route_heading")
    page.say("route_question")
    page.table(
        "layers",
        [
            (row.name, row.kind, format_shape(row.output_shape[1:]), f"{row.parameters:,}", f"{row.macs / 1e6:,.1f}")
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
    page.heading("by_hand_heading")
    page.say("by_hand")
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
    page.heading("costs_heading")
    costs = costs_by_part(summary)
    last = [row for row in convolutions(summary) if row.name.endswith(".1.conv2")]  # of each stage
    page.say("halving")
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
    page.heading("published_heading")
    summary = model_summary("resnet18", 224, classes=1000)
    with_statistics = sum(int(np.prod(tensor.shape)) for tensor in create_model("resnet18").parameters())
    page.say("published")
    page.table(
        "counts",
        [
            (page.text("parameters"), f"{summary.parameters:,}", f"{PUBLISHED_PARAMETERS:,}"),
            ("GMACs", f"{summary.macs / 1e9:.3f}", f"{PUBLISHED_GMACS:.3f}"),
        ],
    )
    page.say("traps", with_statistics=with_statistics, untrained=with_statistics - summary.parameters)
    page.record(
        imagenet_parameters=summary.parameters, imagenet_macs=summary.macs, parameters_with_statistics=with_statistics
    )


def _eighteen(page: Page, summary: ModelSummary) -> None:
    page.heading("eighteen_heading")
    path, shortcuts = _convolutions_on_path_and_shortcuts(summary)
    wide_summary = model_summary("wrn_28_10", 32)
    wide_path, wide_shortcuts = _convolutions_on_path_and_shortcuts(wide_summary)
    wide = {"path": wide_path, "shortcuts": wide_shortcuts, "depth": wide_summary.depth}
    page.say("eighteen", convolutions=path, summary=summary, shortcuts=shortcuts)
    page.say("wide_names", wide=wide)
    page.record(depth=summary.depth, convolutions_on_the_way=path, shortcut_convolutions=shortcuts)
    page.record(**{f"wide_{name}": count for name, count in wide.items()})


def _convolutions_on_path_and_shortcuts(summary: ModelSummary) -> tuple[int, int]:
    on_shortcuts = sum("downsample" in row.name for row in convolutions(summary))
    return len(convolutions(summary)) - on_shortcuts, on_shortcuts


INPUTS: tuple[tuple[int, Stem], ...] = ((224, "imagenet"), (BOOK_SIZE, "imagenet"), (32, "imagenet"), (32, "cifar"))
"""Sides of images, and the stems for them."""


def _sizes(page: Page) -> None:
    page.heading("sizes_heading")
    page.say("sizes")
    summaries = {f"{size}x{size}, {stem} stem": model_summary("resnet18", size, stem=stem) for size, stem in INPUTS}
    sides = {label: _sides(summary) for label, summary in summaries.items()}
    page.table(
        "maps",
        [
            (label, f"{sides[label][-1]}x{sides[label][-1]}", f"{summary.parameters:,}", f"{summary.macs / 1e6:,.0f}")
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
    page.heading("book_heading")
    network = create_model("resnet18_d2l")
    book, ours = model_summary("resnet18_d2l", BOOK_SIZE), model_summary("resnet18", BOOK_SIZE, in_channels=1)
    shapes = _shapes(book)
    route = ", ".join(format_shape(shape) for place, shape in shapes.items() if place not in ("conv1", "mean"))
    page.say("book", route=route, book=book, ours=ours)
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
