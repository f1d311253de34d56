"""Degradation: a deeper plain network is worse on the images it was trained on; a deeper residual one is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import paddle
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from paddle import nn

from paddle_resnet import paddle_compat
from paddle_resnet.lessons.common.runs import SeedResults, train_as_paper
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.models import count_parameters, create_model
from paddle_resnet.models.blocks import PlainBlock
from paddle_resnet.models.resnet import ResNet
from paddle_resnet.plots.curves import draw_mean_and_range
from paddle_resnet.plots.style import BLUE, RED, make_figure
from paddle_resnet.training import SeedStatistics

DEPTHS = SHALLOW, DEEP = 20, 56
COLOURS = {SHALLOW: BLUE, DEEP: RED}
KINDS = {"plain": "plain", "resnet": "residual"}  # words for the prefixes of the networks' names
SHORTCUTS = {"plain": "-", "resnet": "A"}  # option of section 3.3
SEEDS = (0, 1, 2)


def teach(page: Page, effort: Effort) -> None:
    """Construct a deep network that equals a shallow one, then train both kinds at both depths."""
    page.section("never_worse")
    _construct(page)
    page.heading("recipe_heading")
    results = train_as_paper(
        page,
        effort,
        [f"{kind}{depth}" for kind in KINDS for depth in DEPTHS],
        SEEDS,
        epochs=(10, 4),
        recipe="recipe",
        shallow=SHALLOW,
        deep=DEEP,
        shallow_parameters=count_parameters(create_model(f"plain{SHALLOW}")),
        deep_parameters=count_parameters(create_model(f"plain{DEEP}")),
    )
    _show_errors(page, effort, results)
    _conclude(page, effort, results)


def _construct(page: Page) -> None:
    page.section("construction", deep=DEEP, shallow=SHALLOW)
    page.array("identity_kernel(2)", identity_kernel(2))
    differences = {kind: _difference_of_deepened(kind) for kind in KINDS}
    page.values(*(f"|{kind}{DEEP} - {kind}{SHALLOW}| = {value:.1e}" for kind, value in differences.items()))
    page.record(**{f"{kind}_identity_difference": value for kind, value in differences.items()})
    page.say("two_solutions", added=DEEP - SHALLOW)


def _difference_of_deepened(kind: str) -> float:
    paddle.seed(0)
    shallow = create_model(f"{kind}{SHALLOW}")
    shallow.eval()
    images = paddle.randn([4, 3, 16, 16])
    with paddle.no_grad():
        difference = deepen(shallow, f"{kind}{DEEP}")(images) - shallow(images)
    return float(difference.abs().max().item())


def _show_errors(page: Page, effort: Effort, results: dict[str, SeedResults]) -> None:
    page.section("errors")
    page.table(
        "errors_by_network",
        [
            [
                f"{kind}{depth}",
                depth,
                SHORTCUTS[kind],
                SeedStatistics.of(each.training_errors).percent(),
                SeedStatistics.of(each.test_errors).percent(),
                ", ".join(map(str, each.seeds)),
            ]
            for kind in KINDS
            for depth, each in ((depth, results[f"{kind}{depth}"]) for depth in DEPTHS)
        ],
    )
    page.say("command", minutes=sum(sum(each.seconds) for each in results.values()) / 60)
    page.values(effort.command("degradation"))
    page.figure("final_errors", partial(draw_final_errors, results))
    page.section("running_means", augmented=page.text("augmented") if effort.full else "")
    page.figure("curves", partial(draw_curves, results))


def _conclude(page: Page, effort: Effort, results: dict[str, SeedResults]) -> None:
    page.heading("conclusion_heading")
    errors = {name: np.array(each.training_errors) for name, each in results.items()}
    rises = {kind: errors[f"{kind}{DEEP}"] - errors[f"{kind}{SHALLOW}"] for kind in KINDS}
    degrades = bool((rises["plain"] > 0).all())
    page.record(**{f"{kind}_training_error_rise": values for kind, values in rises.items()})
    page.record(plain_degrades_with_every_seed=degrades)
    for kind, values in rises.items():
        page.say(
            "change",
            kind=page.text(kind),
            shallow=SHALLOW,
            deep=DEEP,
            mean=100 * values.mean(),
            by_seed=", ".join(f"{100 * rise:+.2f}" for rise in values),
            higher=(values > 0).sum(),
            lower=(values < 0).sum(),
            seeds=len(values),
        )
    if degrades and rises["resnet"].mean() < rises["plain"].mean():
        page.say("not_overfitting")
    if effort.full:
        plain = page.text("plain_degrades" if degrades else "plain_does_not_degrade")
        gains = (rises["resnet"] < 0).all()
        page.say("figure6", plain=plain, residual=page.text("residual_gains" if gains else "residual_does_not_gain"))
    page.say("full_form" if effort.full else "quick_form", steps=results[f"plain{DEEP}"].steps[0])


def deepen(shallow: ResNet, name: str) -> ResNet:
    """Make the deeper network `name` with the same outputs as `shallow` in evaluation mode.

    The first blocks of each stage are copies. The others are the identity; their ReLU changes nothing, because the
    output of the block before them is not negative.
    """
    deep = create_model(name, shallow.num_classes)
    state = deep.state_dict()
    for key, value in shallow.state_dict().items():
        state[key].set_value(value)
    for stage in deep.stage_names:
        blocks = list(getattr(deep, stage))
        for block in blocks[len(getattr(shallow, stage)) :]:
            if isinstance(block, PlainBlock):
                _make_identity(block.conv1, block.bn1)
                _make_identity(block.conv2, block.bn2)
            else:
                block.zero_init_last()
    deep.eval()
    return deep


def identity_kernel(channels: int) -> np.ndarray:
    """Return the weight ``[C, C, 3, 3]`` of a 3x3 convolution that is the identity."""
    kernel = np.zeros((channels, channels, 3, 3), np.float32)
    kernel[np.arange(channels), np.arange(channels), 1, 1] = 1.0
    return kernel


def _make_identity(convolution: nn.Conv2D, norm: nn.BatchNorm2D) -> None:
    convolution.weight.set_value(identity_kernel(convolution.weight.shape[0]))
    # BatchNorm divides by sqrt(variance + epsilon).
    epsilon = paddle_compat.batch_norm_settings(norm).epsilon
    norm._variance.set_value(paddle.full_like(norm._variance, 1.0 - epsilon))


def draw_curves(results: Mapping[str, SeedResults]) -> Figure:
    """Draw error by epoch, plain and residual side by side, both depths in each panel."""
    figure, panels = make_figure(10, 4.4, 1, 2, sharey=True)
    for axes, (kind, title) in zip(panels, KINDS.items(), strict=True):
        for depth, colour in COLOURS.items():
            training = 100 * np.stack(results[f"{kind}{depth}"].training_curves)
            validation = 100 * np.stack(results[f"{kind}{depth}"].validation_curves)
            epochs = np.arange(1, training.shape[1] + 1)
            draw_mean_and_range(axes, epochs, training, f"{depth} layers, training", colour, marker="o", markersize=4)
            draw_mean_and_range(axes, epochs, validation, f"{depth} layers, validation", colour, linestyle="--")
        axes.set_title(title, loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panels[0].set(ylabel="error (%)", ylim=(0, None))
    panels[1].legend(loc="upper right")
    return figure


def draw_final_errors(results: Mapping[str, SeedResults]) -> Figure:
    """Draw every seed's training and test error after training, network by network."""
    figure, axes = make_figure(9, 4.2)
    networks = [(kind, depth) for kind in KINDS for depth in DEPTHS]
    for position, (kind, depth) in enumerate(networks):
        each, colour = results[f"{kind}{depth}"], COLOURS[depth]
        _points(axes, position - 0.13, each.training_errors, color=colour)
        _points(axes, position + 0.13, each.test_errors, color=colour, markerfacecolor="none")
    axes.plot([], [], "o", color="black", label="training images")
    axes.plot([], [], "o", color="black", markerfacecolor="none", label="test images")
    axes.legend(loc="upper right")
    axes.set_xticks(range(len(networks)), [f"{KINDS[kind]}, {depth} layers" for kind, depth in networks])
    axes.set(xlim=(-0.6, len(networks) - 0.4), ylim=(0, None), ylabel="error after training (%)")
    return figure


def _points(axes: Axes, position: float, fractions: Sequence[float], color: str, **style: Any) -> None:
    percents = 100 * np.array(fractions)
    places = position + np.linspace(-0.05, 0.05, len(percents)) if len(percents) > 1 else np.array([position])
    axes.plot(places, percents, "o", color=color, markersize=7, clip_on=False, **style)
    axes.hlines(percents.mean(), position - 0.1, position + 0.1, color=color, linewidth=1.5)
