"""Batch against group normalisation in training, over the batch size."""

from __future__ import annotations

from functools import partial

import numpy as np
from paddle import nn

from paddle_resnet.lessons.common.small_cnn import (
    LessonData,
    NormFactory,
    SmallCnnResult,
    mean_last_epoch_loss,
    train_grid,
)
from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.normalization.plots import draw_trainings

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
    page.table(
        "results",
        [
            [
                size,
                name,
                f"{mean_last_epoch_loss(seeds):.3f}",
                f"{np.mean([run.loss for run in seeds]):.3f}",
                f"{_mean_error(seeds):.1%}",
                f"{min(_errors(seeds)):.1%} – {max(_errors(seeds)):.1%}",
            ]
            for index, size in enumerate(BATCH_SIZES)
            for name, seeds in ((name, by_size[index]) for name, by_size in runs.items())
        ],
    )
    page.figure("batch_sizes", partial(draw_trainings, BATCH_SIZES, runs))
    _conclude(page, runs, len(data.splits.test))


def _conclude(page: Page, runs: dict[str, list[list[SmallCnnResult]]], images: int) -> None:
    errors = {name: [_mean_error(seeds) for seeds in by_size] for name, by_size in runs.items()}
    losses = {name: [mean_last_epoch_loss(seeds) for seeds in by_size] for name, by_size in runs.items()}
    page.record(
        training_batch_sizes=BATCH_SIZES,
        test_error_batch=errors["Batch"],
        test_error_group=errors["Group"],
        training_loss_batch=losses["Batch"],
        training_loss_group=losses["Group"],
    )
    small, large = BATCH_SIZES[0], BATCH_SIZES[-1]
    error_change = {name: values[0] - values[-1] for name, values in errors.items()}
    page.say(
        "small_batches",
        large=large,
        small=small,
        batch_large=losses["Batch"][-1],
        batch_small=losses["Batch"][0],
        group_large=losses["Group"][-1],
        group_small=losses["Group"][0],
        batch_change=100 * error_change["Batch"],
        group_change=100 * error_change["Group"],
        one_image=100 / images,
    )
    small_loss = float(np.mean([run.loss for run in runs["Batch"][0]]))
    page.say("two_functions", small=small, batch_small=losses["Batch"][0], small_loss=small_loss)
    page.say("two_changes")


def _errors(seeds: list[SmallCnnResult]) -> list[float]:
    return [1 - run.top1 for run in seeds]


def _mean_error(seeds: list[SmallCnnResult]) -> float:
    return float(np.mean(_errors(seeds)))
