"""Gradients by layer in plain and residual networks, with and without BatchNorm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import paddle
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from paddle import nn
from paddle.nn import functional

from paddle_resnet.data import TrainLoader
from paddle_resnet.lessons.common.training_loop import LessonData, apply_cpu_backend, take_batches, train_while_finite
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.framework.texts import Text
from paddle_resnet.models import ImageClassifier, create_model
from paddle_resnet.plots.style import BLUE, GREEN, RED, make_figure

KINDS = {"plain": "plain", "resnet": "residual"}  # words for the prefixes of the networks' names
COLOURS = {20: BLUE, 56: GREEN, 110: RED}  # by depth
BATCH_SIZE = 32
IMAGE_SIZE = 32
SEED = 0
VANISHED = 0.1  # share of the last convolution's gradient below which the first one's has vanished
NetworkKey: TypeAlias = tuple[str, bool]  # name of a network, such as ``plain20``, and whether it has BatchNorm
DEPTHS = tuple(COLOURS)
DEEPEST = DEPTHS[-1]

BATCH_NORM_GROWTH = math.sqrt(math.pi / (math.pi - 1))
"""Growth of the gradient per layer of a plain network with BatchNorm and ReLU at initialisation, in theory."""

CHAIN_LENGTH = 20
CHAIN_WEIGHTS = (0.1, 0.5)

TRAINED_DEPTHS = {True: (20, 56, 110), False: (20, 56)}  # with BatchNorm and without
STEPS, FULL_STEPS = 20, 200
LEARNING_RATE = 0.1
MOMENTUM = 0.9


def teach(page: Page, effort: Effort) -> None:
    """Measure gradients with and without BatchNorm, at initialisation and after a few steps."""
    _explain_chain(page)
    data = page.text("cifar10_images" if effort.full else "digits")
    loader = LessonData.open(effort, IMAGE_SIZE).loader(BATCH_SIZE, SEED)
    images, labels = next(iter(loader))
    page.section("measurement", batch_size=BATCH_SIZE, images=data, image_size=images.shape[-1])
    keys = [(f"{kind}{depth}", batch_norm) for batch_norm in (False, True) for kind in KINDS for depth in DEPTHS]
    initial = {key: measure_gradients(make_network(*key), images, labels) for key in keys}
    vanishing = [name for (name, batch_norm), each in initial.items() if batch_norm and each.vanishes]
    _show_initial(page, initial, vanishing)
    _show_training(page, effort, loader, (images, labels), initial)
    page.heading("conclusion_heading")
    page.say("something_vanishes" if vanishing else "nothing_vanishes")


def _explain_chain(page: Page) -> None:
    page.section("chain", chain_length=CHAIN_LENGTH)
    plain, shortcut = ([_derivative(weight, short) for weight in CHAIN_WEIGHTS] for short in (False, True))
    page.table(
        "chain_table",
        [
            [weight, *(f"{x:.3e}" for x in (without, weight**CHAIN_LENGTH, with_, (1 + weight) ** CHAIN_LENGTH))]
            for weight, without, with_ in zip(CHAIN_WEIGHTS, plain, shortcut, strict=True)
        ],
    )
    page.record(chain_plain=plain, chain_shortcut=shortcut)
    page.say("shortcut_keeps_1")


def _derivative(weight: float, shortcut: bool) -> float:
    start = paddle.to_tensor(1.0, dtype="float64", stop_gradient=False)
    x = start
    for _ in range(CHAIN_LENGTH):
        x = x + weight * x if shortcut else weight * x
    x.backward()
    return float(start.grad.item())


def _show_initial(page: Page, initial: dict[NetworkKey, LayerGradients], vanishing: list[str]) -> None:
    page.heading("initial_heading")
    page.figure("initial", partial(draw_initial, initial))
    rows = []
    for (name, batch_norm), gradients in initial.items():
        first, last = gradients.relative[[0, -1]]
        word = page.text("with" if batch_norm else "without")
        ratios = [f"{value:.1e}" for value in (first, last, gradients.first_to_last)]
        rows.append([word, name, f"{gradients.loss:.3g}", *ratios, f"{gradients.growth:.3f}"])
        record_gradients(page, f"{name}_{word.en}_batch_norm", gradients)
    page.table("initial_table", rows)
    page.say("last_column")
    page.say("without_batch_norm", **_deepest(page, initial, False))
    page.record(vanishing_with_batch_norm=vanishing)
    where = page.text("vanishing_in" if vanishing else "vanishing_nowhere", networks=vanishing)
    growth = BATCH_NORM_GROWTH
    page.say("with_batch_norm", where=where, batch_norm_growth=growth, **_deepest(page, initial, True))


def _deepest(page: Page, initial: dict[NetworkKey, LayerGradients], batch_norm: bool) -> dict[str, object]:
    """Return the deepest networks' gradients, and how they change from the last convolution to the first."""
    values: dict[str, object] = {"deepest": DEEPEST}
    for kind, word in KINDS.items():
        gradients = initial[f"{kind}{DEEPEST}", batch_norm]
        ratio = gradients.first_to_last
        values |= {word: gradients, f"{word}_changes": page.text("grows" if ratio >= 1 else "shrinks", ratio=ratio)}
    return values


@dataclass(frozen=True)
class BeforeAfter:
    """One network before and after a few steps; `stopped` is the step whose loss was not finite, if any."""

    before: LayerGradients
    after: LayerGradients
    stopped: int | None

    @property
    def lengthened(self) -> float:
        """Factor by which the norm of the first convolution's weights has grown."""
        return float(self.after.weight_norms[0] / self.before.weight_norms[0])

    @property
    def scale_free(self) -> float:
        """The first convolution's scale-free gradient over the last one's, after training."""
        return float(self.after.scale_free[0] / self.after.scale_free[-1])


def _show_training(
    page: Page,
    effort: Effort,
    loader: TrainLoader,
    first_batch: tuple[paddle.Tensor, paddle.Tensor],
    initial: Mapping[NetworkKey, LayerGradients],
) -> None:
    """Train the networks for a few steps, and show the gradients of `first_batch` before (`initial`) and after."""
    steps = effort.epochs(FULL_STEPS if effort.full else STEPS)
    page.section("steps", steps=steps, batch_size=BATCH_SIZE, momentum=MOMENTUM, learning_rate=LEARNING_RATE)
    batches = list(take_batches(loader, steps))  # a list, so that every network sees the same
    keys = [
        (f"{kind}{depth}", batch_norm)
        for batch_norm, depths in TRAINED_DEPTHS.items()
        for kind in KINDS
        for depth in depths
    ]
    trained = {key: _train(key, initial[key], batches, first_batch) for key in keys}
    rows = []
    for (name, batch_norm), each in trained.items():
        word = page.text("with" if batch_norm else "without")
        rows.append([word, name, *_row(page, each)])
        key = f"{name}_{word.en}_batch_norm_trained"
        record_gradients(page, key, each.after)
        page.record(**{f"{key}_lengthened": each.lengthened, f"{key}_scale_free": each.scale_free})
    after = {key: each.after for key, each in trained.items()}
    page.figure("trained", partial(draw_before_and_after, initial, after), steps=steps)
    page.table("trained_table", rows)
    _interpret_normalized(page, {name: each for (name, batch_norm), each in trained.items() if batch_norm})
    _interpret_bare(page, {name: each for (name, batch_norm), each in trained.items() if not batch_norm})


def _train(
    key: NetworkKey,
    before: LayerGradients,
    batches: Sequence[list[paddle.Tensor]],
    first_batch: tuple[paddle.Tensor, paddle.Tensor],
) -> BeforeAfter:
    """Train on the batches, or until the loss is not finite."""
    _, batch_norm = key
    network = make_network(*key)
    if batch_norm:
        apply_cpu_backend(network)
    optimizer = paddle.optimizer.Momentum(LEARNING_RATE, MOMENTUM, parameters=network.parameters())
    steps = len(train_while_finite(network, optimizer, batches))
    return BeforeAfter(before, measure_gradients(network, *first_batch), steps + 1 if steps < len(batches) else None)


def _row(page: Page, trained: BeforeAfter) -> list[str | Text]:
    loss, ratio = f"{trained.before.loss:.3g}", f"{trained.before.first_to_last:.1e}"
    if trained.stopped is not None:
        return [loss, page.text("not_finite", step=trained.stopped), ratio, "", "", ""]
    after, growth = trained.after, _factor(trained.lengthened)
    return [loss, f"{after.loss:.3g}", ratio, f"{after.first_to_last:.1e}", growth, f"{trained.scale_free:.1e}"]


def _interpret_normalized(page: Page, trained: Mapping[str, BeforeAfter]) -> None:
    small = [name for name, each in trained.items() if each.after.vanishes]
    lost = [name for name, each in trained.items() if each.scale_free < VANISHED]
    page.record(small_after_training=small, small_without_length=lost)
    depth = TRAINED_DEPTHS[True][-1]
    plain, residual = (_factor(trained[f"{kind}{depth}"].lengthened) for kind in KINDS)
    none = page.text("none_of_them")
    page.say("large_weights", small=small or none, plain=plain, depth=depth, residual=residual)
    page.say("without_length", lost=lost or none)


def _interpret_bare(page: Page, trained: Mapping[str, BeforeAfter]) -> None:
    stopped = {name: each for name, each in trained.items() if each.stopped is not None}
    page.record(stopped_without_batch_norm=list(stopped))
    if stopped:
        steps = [_factor(LEARNING_RATE * each.before.relative.max()) for each in stopped.values()]
        page.say("first_steps", stopped=list(stopped), steps=steps)


def _factor(value: float) -> str:
    """Format a factor with three digits, or as a power of ten from 1000 on."""
    return f"{value:.3g}" if value < 1000 else f"{value:.1e}"


@dataclass(frozen=True)
class LayerGradients:
    """The gradient of one batch's loss, by convolution from the input on."""

    names: tuple[str, ...]  # of the convolutions, as in the state dict
    norms: np.ndarray  # ``norm(dL/dW)`` of each, float64
    weight_norms: np.ndarray  # ``norm(W)`` of each, float64
    loss: float  # of the batch, in nats

    @property
    def relative(self) -> np.ndarray:
        """Relative change of each convolution by an SGD step of learning rate 1: ``norm(dL/dW) / norm(W)``."""
        return self.norms / self.weight_norms

    @property
    def scale_free(self) -> np.ndarray:
        """``norm(dL/dW) norm(W)``, which scaling the weights before a BatchNorm does not change."""
        return self.norms * self.weight_norms

    @property
    def first_to_last(self) -> float:
        return float(self.relative[0] / self.relative[-1])

    @property
    def vanishes(self) -> bool:
        """Whether the first convolution has less than a tenth of the last one's gradient."""
        return self.first_to_last < VANISHED

    @property
    def growth(self) -> float:
        """Factor per layer towards the input, from a straight line through the logarithms.

        Below 1 the gradient vanishes on its way back, above 1 it explodes. NaN if a gradient is zero or not finite.
        """
        if not (np.isfinite(self.relative).all() and self.relative.all()):
            return math.nan
        slope, _ = np.polyfit(np.arange(len(self.relative)), np.log(self.relative), 1)
        return float(np.exp(-slope))


def measure_gradients(network: nn.Layer, images: paddle.Tensor, labels: paddle.Tensor) -> LayerGradients:
    """Compute the gradient of one batch in training mode. It updates running statistics and clears the gradients.

    Args:
        network: its convolutions form one sequence, as in networks of `PlainBlock`, or of `BasicBlock` with shortcuts
            of option A.
        images: float32 ``[N, 3, S, S]``.
        labels: int64 ``[N, 1]``.
    """
    network.train()
    network.clear_gradients()
    loss = functional.cross_entropy(network(images), labels)
    loss.backward()
    weights = {name: layer.weight for name, layer in network.named_sublayers() if isinstance(layer, nn.Conv2D)}
    norms = np.array([_norm(weight.grad) for weight in weights.values()])
    weight_norms = np.array([_norm(weight) for weight in weights.values()])
    network.clear_gradients()
    return LayerGradients(tuple(weights), norms, weight_norms, float(loss.item()))


def _norm(tensor: paddle.Tensor) -> float:
    # In float64, because the square of an exploding gradient overflows float32.
    return float(np.linalg.norm(tensor.numpy().astype(np.float64)))


def make_network(name: str, batch_norm: bool = True) -> ImageClassifier:
    """Make a network with the initial weights of a fixed seed; without `batch_norm`, each BatchNorm is an identity."""
    paddle.seed(SEED)
    network = create_model(name)
    for layer in network.sublayers(include_self=True):
        for child_name, child in list(layer.named_children()):
            if isinstance(child, nn.BatchNorm2D) and not batch_norm:
                setattr(layer, child_name, nn.Identity())
    return network


def record_gradients(page: Page, name: str, gradients: LayerGradients) -> None:
    """Record the gradients of one network under names that begin with `name`."""
    attributes = ("norms", "relative", "first_to_last", "growth", "loss")
    page.record(**{f"{name}_{attribute}": getattr(gradients, attribute) for attribute in attributes})


def draw_initial(measured: Mapping[NetworkKey, LayerGradients]) -> Figure:
    """Draw the relative gradients of plain (left) and residual networks, without BatchNorm (above) and with it."""
    figure, panels = make_figure(10, 7.2, 2, 2, sharex=True, sharey="row")
    for row, batch_norm, words in zip(panels, (False, True), ("without BatchNorm", "with BatchNorm"), strict=True):
        for axes, (kind, title) in zip(row, KINDS.items(), strict=True):
            for depth in COLOURS:
                _draw_curve(axes, measured[f"{kind}{depth}", batch_norm], depth, "-", "")
            _frame(axes, f"{title}, {words}")
        row[0].set_ylabel("norm(dL/dW) / norm(W)")
    for axes in panels[1]:
        axes.set_xlabel("convolution, from the input to the output")
    panels[0, 0].legend(loc="best")
    return figure


def draw_before_and_after(
    before: Mapping[NetworkKey, LayerGradients], after: Mapping[NetworkKey, LayerGradients]
) -> Figure:
    """Draw the relative gradients of plain (left) and residual networks before (dashed) and after some training."""
    figure, panels = make_figure(10, 4.4, 1, 2, sharex=True, sharey=True)
    for axes, (kind, title) in zip(panels, KINDS.items(), strict=True):
        for depth in COLOURS:
            key = f"{kind}{depth}", True
            if key in after:
                _draw_curve(axes, before[key], depth, "--", ", before")
                _draw_curve(axes, after[key], depth, "-", ", after")
        _frame(axes, title)
        axes.set_xlabel("convolution, from the input to the output")
    panels[0].set_ylabel("norm(dL/dW) / norm(W)")
    panels[1].legend(loc="best")
    return figure


def _draw_curve(axes: Axes, gradients: LayerGradients, depth: int, style: str, when: str) -> None:
    convolutions = np.arange(1, len(gradients.relative) + 1)
    label = f"{depth} layers{when}"
    axes.plot(convolutions, gradients.relative, style, color=COLOURS[depth], linewidth=1.6, label=label)


def _frame(axes: Axes, title: str) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"1e{round(np.log10(value))}"))
    axes.set_title(title, loc="left")
