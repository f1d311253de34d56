"""How the first training steps change the gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import paddle

from paddle_resnet.data import TrainLoader
from paddle_resnet.lessons.common.training_loop import apply_cpu_backend, take_batches, train_batches
from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import Page, Text
from paddle_resnet.lessons.gradients.layer_gradients import (
    BATCH_SIZE,
    KINDS,
    LayerGradients,
    NetworkKey,
    format_factor,
    join_names,
    make_network,
    measure_gradients,
    record_gradients,
)
from paddle_resnet.lessons.gradients.plots import draw_before_and_after

TRAINED_DEPTHS = {True: (20, 56, 110), False: (20, 56)}
"""With BatchNorm and without."""

STEPS, FULL_STEPS = 20, 200
LEARNING_RATE = 0.1
MOMENTUM = 0.9
VANISHED = 0.1
"""Share of the last convolution's gradient below which the first one's has vanished."""

WITH_WITHOUT = {True: Text("with", "有"), False: Text("without", "无")}


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


Outcomes = Mapping[NetworkKey, BeforeAfter]
"""By kind and depth."""


def show_training(
    page: Page,
    effort: Effort,
    loader: TrainLoader,
    first_batch: tuple[paddle.Tensor, paddle.Tensor],
    initial: Mapping[bool, Mapping[NetworkKey, LayerGradients]],
) -> None:
    """Train the networks for a few steps, and show the gradients of `first_batch` before and after.

    `initial` holds the gradients before the first step, with BatchNorm (True) and without.
    """
    steps = effort.epochs(FULL_STEPS if effort.full else STEPS)
    page.heading("trained_heading", steps=steps)
    page.say("steps", steps=steps, batch_size=BATCH_SIZE, momentum=MOMENTUM, learning_rate=LEARNING_RATE)
    batches = list(take_batches(loader, steps))  # a list, so that every network sees the same
    outcomes = {
        batch_norm: {
            (kind, depth): _train((kind, depth), batch_norm, initial[batch_norm][kind, depth], batches, first_batch)
            for kind in KINDS
            for depth in depths
        }
        for batch_norm, depths in TRAINED_DEPTHS.items()
    }
    for batch_norm, networks in outcomes.items():
        for (kind, depth), trained in networks.items():
            name = f"{kind}{depth}_{WITH_WITHOUT[batch_norm].en}_batch_norm_trained"
            record_gradients(page, name, trained.after)
            for attribute in ("lengthened", "scale_free"):
                page.record(**{f"{name}_{attribute}": getattr(trained, attribute)})
    normalized = outcomes[True]
    page.figure(
        "trained",
        partial(
            draw_before_and_after,
            {key: trained.before for key, trained in normalized.items()},
            {key: trained.after for key, trained in normalized.items()},
        ),
        steps=steps,
    )
    _show_table(page, outcomes)
    _interpret_normalized(page, normalized)
    _interpret_bare(page, outcomes[False])


def _train(
    key: NetworkKey,
    batch_norm: bool,
    before: LayerGradients,
    batches: Sequence[list[paddle.Tensor]],
    first_batch: tuple[paddle.Tensor, paddle.Tensor],
) -> BeforeAfter:
    """Train on the batches, or until the loss is not finite."""
    network = make_network(key, batch_norm=batch_norm)
    if batch_norm:
        apply_cpu_backend(network)
    optimizer = paddle.optimizer.Momentum(LEARNING_RATE, MOMENTUM, parameters=network.parameters())
    stopped = None
    for step, batch in enumerate(batches, start=1):
        loss, _ = train_batches(network, optimizer, [batch])
        if not math.isfinite(loss):
            stopped = step
            break
    return BeforeAfter(before, measure_gradients(network, *first_batch), stopped)


def _show_table(page: Page, outcomes: Mapping[bool, Outcomes]) -> None:
    page.table(
        "trained_table",
        [
            [WITH_WITHOUT[batch_norm], f"{kind}{depth}", *_row(page, trained)]
            for batch_norm, networks in outcomes.items()
            for (kind, depth), trained in networks.items()
        ],
    )


def _row(page: Page, trained: BeforeAfter) -> list[str | Text]:
    loss, ratio = f"{trained.before.loss:.3g}", f"{trained.before.first_to_last:.1e}"
    if trained.stopped is not None:
        stopped = page.text("not_finite", step=trained.stopped)
        return [loss, stopped, ratio, "", "", ""]
    after, growth = trained.after, format_factor(trained.lengthened)
    return [loss, f"{after.loss:.3g}", ratio, f"{after.first_to_last:.1e}", growth, f"{trained.scale_free:.1e}"]


def _interpret_normalized(page: Page, outcomes: Outcomes) -> None:
    small = _named(outcomes, lambda trained: trained.after.first_to_last < VANISHED)
    lost = _named(outcomes, lambda trained: trained.scale_free < VANISHED)
    page.record(small_after_training=small, small_without_length=lost)
    depth = TRAINED_DEPTHS[True][-1]
    plain, residual = (format_factor(outcomes[kind, depth].lengthened) for kind in KINDS)
    page.say("large_weights", small=join_names(page, small), plain=plain, depth=depth, residual=residual)
    page.say("without_length", lost=join_names(page, lost))


def _interpret_bare(page: Page, outcomes: Outcomes) -> None:
    stopped = _named(outcomes, lambda trained: trained.stopped is not None)
    page.record(stopped_without_batch_norm=stopped)
    if stopped:
        largest = {f"{kind}{depth}": outcomes[kind, depth].before.relative.max() for kind, depth in outcomes}
        steps = [format_factor(LEARNING_RATE * largest[name]) for name in stopped]
        page.say("first_steps", stopped=join_names(page, stopped), steps=join_names(page, steps))


def _named(outcomes: Outcomes, chosen: Callable[[BeforeAfter], bool]) -> list[str]:
    return [f"{kind}{depth}" for (kind, depth), trained in outcomes.items() if chosen(trained)]
