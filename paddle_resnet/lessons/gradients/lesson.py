"""Gradients by layer in plain and residual networks, with and without BatchNorm."""

from __future__ import annotations

import math
from functools import partial

import paddle

from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import Page, Text
from paddle_resnet.lessons.gradients.layer_gradients import (
    BATCH_SIZE,
    IMAGE_SIZE,
    KINDS,
    LayerGradients,
    NetworkKey,
    image_loader,
    make_network,
    measure_gradients,
    record_gradients,
)
from paddle_resnet.lessons.gradients.plots import draw_by_layer
from paddle_resnet.lessons.gradients.training import WITH_WITHOUT, show_training

DEPTHS = (20, 56, 110)

BATCH_NORM_GROWTH = math.sqrt(math.pi / (math.pi - 1))
"""Growth of the gradient per layer of a plain network with BatchNorm and ReLU at initialisation, in theory."""

CHAIN_LENGTH = 20
CHAIN_WEIGHTS = (0.1, 0.5)


def teach(page: Page, effort: Effort) -> None:
    """Measure gradients with and without BatchNorm, at initialisation and after a few steps."""
    _explain_chain(page)
    loader = image_loader(effort)
    images, labels = next(iter(loader))
    _explain_measurement(page, effort)
    keys = [(kind, depth) for kind in KINDS for depth in DEPTHS]
    bare = {key: measure_gradients(make_network(key, batch_norm=False), images, labels) for key in keys}
    normalized = {key: measure_gradients(make_network(key), images, labels) for key in keys}
    _show_initial(page, bare, normalized)
    show_training(page, effort, loader, (images, labels), {True: normalized, False: bare})
    _conclude(page, normalized)


def _explain_chain(page: Page) -> None:
    page.heading("chain_heading")
    page.say("chain", chain_length=CHAIN_LENGTH)
    chains = {weight: (_derivative(weight, False), _derivative(weight, True)) for weight in CHAIN_WEIGHTS}
    page.table(
        "chain_table",
        [
            [weight, *(f"{x:.3e}" for x in (plain, weight**CHAIN_LENGTH, short, (1 + weight) ** CHAIN_LENGTH))]
            for weight, (plain, short) in chains.items()
        ],
    )
    page.record(
        chain_plain=[plain for plain, _ in chains.values()], chain_shortcut=[short for _, short in chains.values()]
    )
    page.say("shortcut_keeps_1")


def _derivative(weight: float, shortcut: bool) -> float:
    start = paddle.to_tensor(1.0, dtype="float64", stop_gradient=False)
    x = start
    for _ in range(CHAIN_LENGTH):
        x = x + weight * x if shortcut else weight * x
    x.backward()
    return float(start.grad.item())


def _explain_measurement(page: Page, effort: Effort) -> None:
    images = page.text("cifar10_images" if effort.full else "digits")
    page.heading("measurement_heading")
    page.say("measurement", batch_size=BATCH_SIZE, images=images, image_size=IMAGE_SIZE)


def _show_initial(
    page: Page, bare: dict[NetworkKey, LayerGradients], normalized: dict[NetworkKey, LayerGradients]
) -> None:
    page.heading("initial_heading")
    page.figure("initial", partial(draw_by_layer, bare, normalized))
    measured = {False: bare, True: normalized}
    page.table(
        "initial_table",
        [
            [WITH_WITHOUT[batch_norm], f"{kind}{depth}", f"{gradients.loss:.3g}"]
            + [f"{value:.1e}" for value in (*gradients.relative[[0, -1]], gradients.first_to_last)]
            + [f"{gradients.growth:.3f}"]
            for batch_norm, networks in measured.items()
            for (kind, depth), gradients in networks.items()
        ],
    )
    for batch_norm, networks in measured.items():
        for (kind, depth), gradients in networks.items():
            record_gradients(page, f"{kind}{depth}_{WITH_WITHOUT[batch_norm].en}_batch_norm", gradients)
    page.say("last_column")
    _interpret_bare(page, bare)
    _interpret_normalized(page, normalized)


def _interpret_bare(page: Page, bare: dict[NetworkKey, LayerGradients]) -> None:
    deepest = DEPTHS[-1]
    plain, residual = bare["plain", deepest], bare["resnet", deepest]
    page.say(
        "without_batch_norm",
        plain=plain,
        deepest=deepest,
        residual=residual,
        plain_changes=_changes(page, plain),
        residual_changes=_changes(page, residual),
    )


def _interpret_normalized(page: Page, normalized: dict[NetworkKey, LayerGradients]) -> None:
    vanishing = [f"{kind}{depth}" for (kind, depth), gradients in normalized.items() if gradients.first_to_last < 0.1]
    page.record(vanishing_with_batch_norm=vanishing)
    deepest = DEPTHS[-1]
    plain, residual = normalized["plain", deepest], normalized["resnet", deepest]
    where = page.text("vanishing_in" if vanishing else "vanishing_nowhere", networks=vanishing)
    page.say(
        "with_batch_norm",
        where=where,
        plain_changes=_changes(page, plain),
        deepest=deepest,
        plain=plain,
        residual_changes=_changes(page, residual),
        residual=residual,
        batch_norm_growth=BATCH_NORM_GROWTH,
    )


def _changes(page: Page, gradients: LayerGradients) -> Text:
    """Describe how the gradient changes from the last convolution to the first."""
    ratio = gradients.first_to_last
    return page.text("grows" if ratio >= 1 else "shrinks", ratio=ratio)


def _conclude(page: Page, normalized: dict[NetworkKey, LayerGradients]) -> None:
    page.heading("conclusion_heading")
    vanishing = any(gradients.first_to_last < 0.1 for gradients in normalized.values())
    if not vanishing:
        page.say("nothing_vanishes")
    else:
        page.say("something_vanishes")
