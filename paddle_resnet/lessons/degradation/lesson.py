"""Degradation: a deeper plain network is worse on the images it was trained on; a deeper residual one is not."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import paddle
from paddle import nn

from paddle_resnet import paddle_compat
from paddle_resnet.config import Config
from paddle_resnet.lessons.common.runs import (
    TrainingResult,
    choose_seeds,
    describe_images,
    note_differences_from_paper,
    train_seeds,
    update_settings,
)
from paddle_resnet.lessons.common.statistics import format_percent
from paddle_resnet.lessons.degradation.plots import draw_curves, draw_final_errors
from paddle_resnet.lessons.framework.effort import Effort, lesson_command
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.models import count_parameters, create_model
from paddle_resnet.models.blocks import PlainBlock
from paddle_resnet.models.resnet import ResNet

SHALLOW, DEEP = 20, 56
KINDS = {"plain": "-", "resnet": "A"}
"""Prefix of the networks' names, and the option of section 3.3 for their shortcuts."""

SEEDS = (0, 1, 2)

QUICK: dict[str, Any] = {
    "data": {"source": "digits", "image_size": 8},
    "train": {"epochs": 10, "batch_size": 64, "learning_rate": 0.1, "weight_decay": 1e-4},
}
# Max-pooling in the stem quarters the work of later layers, so that three seeds take an hour.
FULL: dict[str, Any] = {
    "data": {"source": "cifar10", "image_size": 32},
    "augment": {"pad": 4, "flip": True},
    "model": {"stem": "cifar_pool"},
    "train": {"epochs": 4, "batch_size": 128, "learning_rate": 0.1, "weight_decay": 1e-4, "cpu_precision": "auto"},
}


def teach(page: Page, effort: Effort) -> None:
    """Construct a deep network that equals a shallow one, then train both kinds at both depths."""
    _ask(page)
    _construct(page)
    settings = FULL if effort.full else QUICK
    seeds = choose_seeds(effort, SEEDS)
    config = Config.from_values(update_settings(settings, effort), effort.overrides)
    _describe_training(page, config, len(seeds))
    results = train_seeds(
        page, effort, settings, [f"{kind}{depth}" for kind in KINDS for depth in (SHALLOW, DEEP)], seeds
    )
    _show_errors(page, effort, results)
    _show_curves(page, effort, results)
    _conclude(page, effort, results)


def _ask(page: Page) -> None:
    page.heading("never_worse_heading")
    page.say("never_worse")


def _construct(page: Page) -> None:
    page.heading("construction_heading")
    page.say("construction", deep=DEEP, shallow=SHALLOW)
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


def _describe_training(page: Page, config: Config, seeds: int) -> None:
    page.heading("recipe_heading")
    page.say(
        "recipe",
        shallow=SHALLOW,
        deep=DEEP,
        shallow_parameters=_parameters(SHALLOW),
        deep_parameters=_parameters(DEEP),
        images=describe_images(page, config),
        seeds=seeds,
        config=config,
    )
    note_differences_from_paper(page, config)


def _parameters(depth: int) -> int:
    return count_parameters(create_model(f"plain{depth}"))


def _show_errors(page: Page, effort: Effort, results: dict[str, list[TrainingResult]]) -> None:
    page.heading("errors_heading")
    page.say("errors")
    page.table(
        "errors_by_network",
        [
            [
                f"{kind}{depth}",
                depth,
                KINDS[kind],
                format_percent([each.training_error for each in results[f"{kind}{depth}"]]),
                format_percent([each.test_error for each in results[f"{kind}{depth}"]]),
                ", ".join(str(each.config.train.seed) for each in results[f"{kind}{depth}"]),
            ]
            for kind in KINDS
            for depth in (SHALLOW, DEEP)
        ],
    )
    minutes = sum(training.seconds for trainings in results.values() for training in trainings) / 60
    page.say("command", minutes=minutes)
    page.values(lesson_command("degradation", effort))
    page.figure("final_errors", partial(draw_final_errors, results))


def _show_curves(page: Page, effort: Effort, results: dict[str, list[TrainingResult]]) -> None:
    page.heading("curves_heading")
    augmented = page.text("augmented") if effort.full else ""
    page.say("running_means", augmented=augmented)
    page.figure("curves", partial(draw_curves, results))


def _conclude(page: Page, effort: Effort, results: dict[str, list[TrainingResult]]) -> None:
    page.heading("conclusion_heading")
    rises = {kind: _rises(results, kind) for kind in KINDS}
    page.record(
        **{f"{kind}_training_error_rise": values.tolist() for kind, values in rises.items()},
        plain_degrades_with_every_seed=bool((rises["plain"] > 0).all()),
    )
    for kind, values in rises.items():
        page.say(
            "change",
            kind=page.text(kind),
            shallow=SHALLOW,
            deep=DEEP,
            mean=100 * values.mean(),
            by_seed=", ".join(f"{100 * rise:+.2f}" for rise in values),
            higher=int((values > 0).sum()),
            lower=int((values < 0).sum()),
            seeds=len(values),
        )
    if (rises["plain"] > 0).all() and rises["resnet"].mean() < rises["plain"].mean():
        page.say("not_overfitting")
    _state_limits(page, effort, rises, results[f"plain{DEEP}"][0].steps)


def _rises(results: dict[str, list[TrainingResult]], kind: str) -> np.ndarray:
    """Return the deeper network's training error minus the shallower one's, by seed."""
    shallow, deep = (
        np.array([training.training_error for training in results[f"{kind}{depth}"]]) for depth in (SHALLOW, DEEP)
    )
    return deep - shallow


def _state_limits(page: Page, effort: Effort, rises: dict[str, np.ndarray], steps: int) -> None:
    if effort.full:
        degrades, gains = bool((rises["plain"] > 0).all()), bool((rises["resnet"] < 0).all())
        page.say(
            "figure6",
            plain=page.text("plain_degrades" if degrades else "plain_does_not_degrade"),
            residual=page.text("residual_gains" if gains else "residual_does_not_gain"),
        )
        page.say("full_form", steps=steps)
    else:
        page.say("quick_form", steps=steps)


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
