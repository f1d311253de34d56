"""Which pixels an output sees: the receptive field by formula, by gradient, and how much of it counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import paddle
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from paddle import nn

from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.models import ImageClassifier, create_model
from paddle_resnet.paddle_compat import convolution_settings
from paddle_resnet.plots.style import BLUE, GREEN, GREY, INK, ORANGE, RED, make_figure, without_axes

WALKED = "resnet18"
COMPARED = {"resnet18": 224, "resnet34": 224, "resnet50": 224, "resnet20": 32, "resnet56": 32}
"""Networks and the side of the images they are designed for."""
COLOURS = dict(zip(COMPARED, (BLUE, GREEN, RED, ORANGE, INK), strict=True))

MEASURED = "resnet20"
SIDE = 97
"""Of the measured inputs: larger than the receptive field, and the middle of the last map lies over their middle."""
IMAGES = 16
DEPTHS = (2, 4, 8, 16)
SHARE = 0.95


@dataclass(frozen=True)
class Reach:
    """The receptive field behind one layer."""

    layer: str  # name in the network
    kernel: int  # side of its window
    stride: int  # of its window
    jump: int  # distance in input pixels between two neighbours of its output
    field: int  # side of the receptive field of one of its outputs, in input pixels


def receptive_fields(network: nn.Layer) -> list[Reach]:
    """Follow the longest path of a network, without its shortcuts: ``field += (kernel - 1) * jump; jump *= stride``.

    Araujo, Norris and Sim 2019 (https://distill.pub/2019/computing-receptive-fields/), equations 1 and 2.
    """
    reaches, jump, field = [], 1, 1
    for name, layer in network.named_sublayers():
        if "downsample" in name or not isinstance(layer, nn.Conv2D | nn.MaxPool2D):
            continue
        kernel, stride = _window(layer)
        field += (kernel - 1) * jump
        jump *= stride
        reaches.append(Reach(name, kernel, stride, jump, field))
    return reaches


def _window(layer: nn.Conv2D | nn.MaxPool2D) -> tuple[int, int]:
    if isinstance(layer, nn.MaxPool2D):
        return int(layer.ksize), int(layer.stride)
    return int(layer.weight.shape[-1]), int(np.ravel(convolution_settings(layer).stride)[0])


def input_influence(network: ImageClassifier, images: np.ndarray) -> np.ndarray:
    """Return how much each pixel affects the middle of the last map, ``[H, W]``, its sum 1.

    It is the root mean square, over images and colours, of the gradient of the middle position by the pixels
    (Luo et al. 2016, section 3). The gradient starts at all channels with random signs, so that they do not cancel.
    """
    network.eval()
    x = paddle.to_tensor(images, stop_gradient=False)
    features = network.forward_stages(x)[-1]
    middle = features[:, :, features.shape[2] // 2, features.shape[3] // 2]
    signs = np.random.default_rng(1).choice([-1.0, 1.0], middle.shape).astype(np.float32)
    (middle * paddle.to_tensor(signs)).sum().backward()
    influence = np.sqrt((x.grad.numpy().astype(np.float64) ** 2).mean((0, 1)))
    return influence / influence.sum()


def extent(influence: np.ndarray) -> int:
    """Return the side of the smallest square around the middle that has all pixels with any influence."""
    middle = len(influence) // 2
    return 2 * int(np.abs(np.argwhere(influence > 0) - middle).max()) + 1


def effective_side(influence: np.ndarray) -> int:
    """Return the side of the smallest square around the middle with `SHARE` of the influence."""
    middle = len(influence) // 2
    rows = range(middle + 1)
    sums = [influence[middle - half : middle + half + 1, middle - half : middle + half + 1].sum() for half in rows]
    return 2 * int(np.searchsorted(sums, SHARE)) + 1


def teach(page: Page, effort: Effort) -> None:
    """Follow the formula through ResNet-18, check it by gradients, and measure how much of the field counts."""
    _by_formula(page)
    _compare(page)
    influences = _by_gradient(page)
    _effective(page, influences)
    _square_root(page)


def _by_formula(page: Page) -> None:
    page.section("formula")
    page.values("field += (kernel - 1) * jump", "jump  *= stride")
    reaches = receptive_fields(create_model(WALKED))
    # The stem, and the last convolution of each stage.
    shown = [each for each in reaches if not each.layer.startswith("layer") or each.layer.endswith(".1.conv2")]
    page.table(
        "fields", [(each.layer, f"{each.kernel}x{each.kernel}", each.stride, each.jump, each.field) for each in shown]
    )
    page.say("resnet18", first=reaches[0], last=reaches[-1])
    page.record(resnet18_fields=[each.field for each in shown], resnet18_jumps=[each.jump for each in shown])


def _compare(page: Page) -> None:
    page.heading("networks_heading")
    fields = {name: receptive_fields(create_model(name)) for name in COMPARED}
    page.table(
        "networks",
        [(name, len(each), each[-1].field, f"{COMPARED[name]}x{COMPARED[name]}") for name, each in fields.items()],
    )
    page.figure("growth", lambda: draw_growth(fields))
    page.say("larger_than_the_image")
    page.record(**{f"{name}_field": each[-1].field for name, each in fields.items()})


def _by_gradient(page: Page) -> dict[str, np.ndarray]:
    """Measure three networks: new weights with and without shortcuts, and trained weights."""
    images = np.random.default_rng(0).normal(size=(IMAGES, 3, SIDE, SIDE)).astype(np.float32)
    networks = {
        "plain20": create_model("plain20"),
        "resnet20": create_model(MEASURED),
        "trained": create_model(MEASURED, pretrained="cifar10"),
    }
    influences = {name: input_influence(network, images) for name, network in networks.items()}
    formula = receptive_fields(networks["resnet20"])[-1].field
    page.section("gradient", side=SIDE, images=IMAGES, network=MEASURED)
    page.values(
        f"by the formula                     {formula} x {formula}",
        *(f"{name + ', nonzero gradient':<34} {extent(each)} x {extent(each)}" for name, each in influences.items()),
    )
    page.say("same_square")
    page.record(formula=formula, **{f"{name}_extent": extent(each) for name, each in influences.items()})
    return influences


def _effective(page: Page, influences: Mapping[str, np.ndarray]) -> None:
    page.heading("effective_heading")
    sides = {name: effective_side(each) for name, each in influences.items()}
    field = receptive_fields(create_model(MEASURED))[-1].field
    page.figure("influence", lambda: draw_influence(influences, field), share=SHARE)
    shares = {name: (side / field) ** 2 for name, side in sides.items()}
    page.table("effective", [(page.text(name), side, f"{shares[name]:.0%}") for name, side in sides.items()])
    page.say("effective_field", share=SHARE, sides=sides, field=field)
    page.record(**{f"{name}_effective_side": side for name, side in sides.items()})


def box_spread(depth: int) -> float:
    """Return the influence's standard deviation behind `depth` 3x3 convolutions with equal weights, in pixels.

    The gradient is the box of side 3 convolved with itself, so its variance is ``depth * 2 / 3`` along each axis.
    """
    side = 2 * depth + 5
    convolution = nn.Conv2D(1, 1, 3, padding=1, bias_attr=False, weight_attr=nn.initializer.Constant(1 / 9))
    x = paddle.zeros([1, 1, side, side])
    x.stop_gradient = False
    y = x
    for _ in range(depth):
        y = convolution(y)
    y[0, 0, side // 2, side // 2].backward()
    along = x.grad.numpy()[0, 0].sum(0).astype(np.float64)
    places = np.arange(side) - side // 2
    return float(np.sqrt((along * places**2).sum() / along.sum()))


def _square_root(page: Page) -> None:
    page.section("square_root")
    spreads = {depth: box_spread(depth) for depth in DEPTHS}
    page.table(
        "spreads",
        [(depth, 2 * depth + 1, f"{spread:.3f}", f"{(2 * depth / 3) ** 0.5:.3f}") for depth, spread in spreads.items()],
    )
    page.say("in_practice")
    page.record(depths=DEPTHS, box_spreads=list(spreads.values()))


def draw_growth(fields: Mapping[str, list[Reach]]) -> Figure:
    """Draw the receptive field's side over the layers of each network, on a logarithmic axis."""
    figure, axes = make_figure(9.5, 4.0)
    for name, reaches in fields.items():
        sides = [each.field for each in reaches]
        axes.plot(range(1, len(sides) + 1), sides, color=COLOURS[name], label=name)
        axes.annotate(str(sides[-1]), (len(sides), sides[-1]), xytext=(4, 0), textcoords="offset points", va="center")
    for side in sorted(set(COMPARED.values())):
        axes.axhline(side, color=GREY, linestyle=":", linewidth=1.5)
        axes.annotate(f"{side} pixels", (1, side), xytext=(0, 3), textcoords="offset points", color=GREY, fontsize=10)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="convolutions and pooling along the longest path", ylabel="receptive field, side (pixels)")
    axes.legend(loc="lower right")
    return figure


def draw_influence(influences: Mapping[str, np.ndarray], field: int) -> Figure:
    """Draw each map of influence in powers of ten below its largest value, with both squares."""
    figure, panels = make_figure(10, 3.9, 1, len(influences))
    for axes, (name, influence) in zip(panels, influences.items(), strict=True):
        orders = np.log10(np.maximum(influence / influence.max(), 1e-6))
        image = axes.imshow(orders, cmap="viridis", vmin=-6, vmax=0)
        for side, colour in ((field, "white"), (effective_side(influence), ORANGE)):
            corner = (len(influence) - side) / 2 - 0.5
            axes.add_patch(Rectangle((corner, corner), side, side, fill=False, edgecolor=colour, linewidth=1.8))
        axes.set_title(name)
        without_axes(axes)
    bar = figure.colorbar(image, ax=list(panels), shrink=0.85, label="influence, of the largest")
    bar.set_ticks([-6, -4, -2, 0], labels=["1e-6", "1e-4", "1e-2", "1"])
    return figure
