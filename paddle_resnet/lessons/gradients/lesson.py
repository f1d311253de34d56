"""Gradients by layer in plain and residual networks, with and without BatchNorm."""

from __future__ import annotations

import math
from functools import partial

import paddle

from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.gradients.layer_gradients import (
    BATCH_SIZE,
    COLOURS,
    IMAGE_SIZE,
    KINDS,
    LayerGradients,
    NetworkKey,
    draw_initial,
    image_loader,
    make_network,
    measure_gradients,
    record_gradients,
)
from paddle_resnet.lessons.gradients.training import show_training

DEPTHS = tuple(COLOURS)
DEEPEST = DEPTHS[-1]

BATCH_NORM_GROWTH = math.sqrt(math.pi / (math.pi - 1))
"""Growth of the gradient per layer of a plain network with BatchNorm and ReLU at initialisation, in theory."""

CHAIN_LENGTH = 20
CHAIN_WEIGHTS = (0.1, 0.5)


def teach(page: Page, effort: Effort) -> None:
    """Measure gradients with and without BatchNorm, at initialisation and after a few steps."""
    _explain_chain(page)
    page.heading("measurement_heading")
    data = page.text("cifar10_images" if effort.full else "digits")
    page.say("measurement", batch_size=BATCH_SIZE, images=data, image_size=IMAGE_SIZE)
    loader = image_loader(effort)
    images, labels = next(iter(loader))
    keys = [(f"{kind}{depth}", batch_norm) for batch_norm in (False, True) for kind in KINDS for depth in DEPTHS]
    initial = {key: measure_gradients(make_network(*key), images, labels) for key in keys}
    vanishing = [name for (name, batch_norm), each in initial.items() if batch_norm and each.vanishes]
    _show_initial(page, initial, vanishing)
    show_training(page, effort, loader, (images, labels), initial)
    page.heading("conclusion_heading")
    page.say("something_vanishes" if vanishing else "nothing_vanishes")


def _explain_chain(page: Page) -> None:
    page.heading("chain_heading")
    page.say("chain", chain_length=CHAIN_LENGTH)
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
