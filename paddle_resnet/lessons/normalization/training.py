"""Batch against group normalisation in training, over the batch size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from paddle import nn

from paddle_resnet.lessons.common.small_cnn import LessonData, NormFactory, Trainings, train_grid
from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.normalization.plots import COLOURS, MARKERS, label_batch_axis
from paddle_resnet.plots.curves import draw_values_and_mean
from paddle_resnet.plots.style import make_figure

BATCH_SIZES = (2, 8, 64)
SEEDS = (0, 1, 2)
EPOCHS, FULL_EPOCHS = 2, 1
RATE_FOR_64 = 0.2
CHANNELS_A_GROUP = 8


def group_norm(channels: int) -> nn.Layer:
    """Make a group normalisation with 8 channels per group."""
    return nn.GroupNorm(channels // CHANNELS_A_GROUP, channels)


NORMALIZATIONS: dict[str, NormFactory] = {"Batch": nn.BatchNorm2D, "Group": group_norm}


def teach(page: Page, effort: Effort) -> None:
    """Train with batch and with group normalisation at each batch size."""
    data = LessonData.open(effort)
    epochs = effort.epochs(FULL_EPOCHS if effort.full else EPOCHS)
    page.heading("training_heading")
    page.say(
        "recipe", data=data, epochs=epochs, seeds=len(SEEDS), channels_a_group=CHANNELS_A_GROUP, rate_for_64=RATE_FOR_64
    )
    settings = [(size, RATE_FOR_64 * size / 64) for size in BATCH_SIZES]
    runs = train_grid(data, NORMALIZATIONS, settings, epochs, SEEDS)
    rows = []
    for size, *trained in zip(BATCH_SIZES, *runs.values(), strict=True):
        for name, each in zip(runs, trained, strict=True):
            errors = 1 - each.test_top1
            losses = f"{each.mean_loss:.3f}", f"{np.mean(each.test_losses):.3f}"
            rows.append([size, name, *losses, f"{errors.mean():.1%}", f"{errors.min():.1%} – {errors.max():.1%}"])
    page.table("results", rows)
    page.figure("batch_sizes", partial(draw_trainings, runs))
    _conclude(page, runs, len(data.splits.test))


def _conclude(page: Page, runs: dict[str, list[Trainings]], images: int) -> None:
    errors = {name: [float(np.mean(1 - each.test_top1)) for each in by_size] for name, by_size in runs.items()}
    losses = {name: [each.mean_loss for each in by_size] for name, by_size in runs.items()}
    page.record(training_batch_sizes=BATCH_SIZES)
    page.record(**{f"test_error_{name.lower()}": values for name, values in errors.items()})
    page.record(**{f"training_loss_{name.lower()}": values for name, values in losses.items()})
    small = BATCH_SIZES[0]
    small_losses = {name: values[0] for name, values in losses.items()}
    page.say(
        "small_batches",
        large=BATCH_SIZES[-1],
        small=small,
        large_losses={name: values[-1] for name, values in losses.items()},
        small_losses=small_losses,
        change={name: 100 * (values[0] - values[-1]) for name, values in errors.items()},
        one_image=100 / images,
    )
    test_loss = runs["Batch"][0].test_losses.mean()
    page.say("two_functions", small=small, training_loss=small_losses["Batch"], test_loss=test_loss)
    page.say("two_changes")


def draw_trainings(runs: Mapping[str, Sequence[Trainings]]) -> Figure:
    """Draw training loss, test loss and test error over the batch size: a dot per run, a line through the means."""
    figure, panels = make_figure(9.5, 3.7, 1, 3)
    measures: dict[str, Callable[[Trainings], np.ndarray]] = {
        "training loss, last epoch (nats)": lambda each: each.last_epoch_losses,
        "test loss (nats)": lambda each: each.test_losses,
        "test error (%)": lambda each: 100 * (1 - each.test_top1),
    }
    for axes, (title, measure) in zip(panels, measures.items(), strict=True):
        for name, by_size in runs.items():
            values = list(map(measure, by_size))
            draw_values_and_mean(axes, BATCH_SIZES, values, f"{name} norm", COLOURS[name], MARKERS[name])
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_ylim(bottom=0)
        label_batch_axis(axes, BATCH_SIZES)
    panels[0].legend(loc="upper right")
    return figure
