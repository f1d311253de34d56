"""Optimizers by hand and in Paddle, learning rates that diverge, and schedules, measured on one small network."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from paddle_resnet import runtime
from paddle_resnet.config import Config, TrainConfig
from paddle_resnet.console import logger
from paddle_resnet.data import Split
from paddle_resnet.errors import RunFailure
from paddle_resnet.lessons.common.runs import image_settings, lesson_config
from paddle_resnet.lessons.common.training_loop import (
    LessonData,
    apply_cpu_backend,
    take_batches,
    train_while_finite,
)
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.optimizers_and_schedules.plots import draw_optimizers, draw_paths, draw_schedules
from paddle_resnet.lessons.optimizers_and_schedules.updates import (
    CURVATURES,
    STEPS,
    UPDATES,
    best_settings,
    descend,
    difference_from_paddle,
    valley,
)
from paddle_resnet.models import create_model
from paddle_resnet.training import SeedStatistics
from paddle_resnet.training.optim.optimizer import make_optimizer
from paddle_resnet.training.optim.schedule import make_schedule

NETWORK = "resnet8"
SEEDS = (0, 1, 2)
QUICK_EPOCHS, FULL_EPOCHS = 5, 2
OPTIMIZERS: dict[str, tuple[float, ...]] = {
    "sgd": (0.01, 0.1, 1.0),
    "adamw": (0.001, 0.01, 0.1),
    "muon": (0.01, 0.1, 1.0),
}
"""Learning rates of each optimizer."""

SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {"schedule": "step", "milestones": [], "warmup": 0.0},
    "step": {"schedule": "step", "milestones": [0.5, 0.75], "warmup": 0.0},
    "cosine": {"schedule": "cosine", "warmup": 0.0},
    "one_cycle": {"schedule": "one_cycle", "warmup": 0.3},
}
SCHEDULE_RATE = 0.1
DRAWN_STEPS = 1000


@dataclass(frozen=True)
class Top1:
    """Of the trainings by one setting, one a seed: the accuracy on the validation and on the test split."""

    validation: SeedStatistics
    test: SeedStatistics


def teach(page: Page, effort: Effort) -> None:
    """Compute updates by hand, descend a valley, then train with each optimizer and each schedule."""
    _by_hand(page)
    _valley(page)
    config = _config(effort)
    _draw_schedules(page, config)
    runtime.select_device(config.device)
    data = LessonData(config)
    _compare_optimizers(page, data)
    _compare_schedules(page, data)


def _config(effort: Effort) -> Config:
    epochs = FULL_EPOCHS if effort.full else QUICK_EPOCHS
    train = {"epochs": epochs, "batch_size": 128 if effort.full else 64, "weight_decay": 5e-4}
    settings = {**image_settings(effort, size=8, pad=1), "train": train}
    return lesson_config(effort, settings, NETWORK)


def _by_hand(page: Page) -> None:
    page.heading("by_hand_heading")
    page.say("by_hand", steps=STEPS)
    differences = {name: difference_from_paddle(name) for name in UPDATES}
    page.table("updates", [(name, f"`{UPDATES[name][0]}`", f"{each:.0e}") for name, each in differences.items()])
    page.say("weight_decay")
    page.record(**{f"difference_{name}": each for name, each in differences.items()})


def _valley(page: Page) -> None:
    page.heading("valley_heading")
    low, high = CURVATURES
    limit = 2 / high
    page.say("valley", low=low, high=high, limit=limit)
    below, above = (valley(descend(factor * limit, steps=200)[-1]) for factor in (0.99, 1.01))
    page.values(f"rate 0.99 * 2/{high:g}: loss after 200 steps {below:.1e}", f"rate 1.01 * 2/{high:g}: {above:.1e}")
    settings = best_settings()
    paths = {name: descend(rate, momentum) for name, (rate, momentum, _) in settings.items()}
    page.figure("paths", lambda: draw_paths(paths), steps=STEPS)
    rows = []
    for name, (rate, momentum, factor) in settings.items():
        measured = _error_factor(rate, momentum)
        rows.append((page.text(name), *(f"{each:.4f}" for each in (rate, momentum, factor, measured))))
        page.record(**{f"{name}_factor": factor, f"{name}_measured": measured})
    page.table("factors", rows)
    page.say("condition", ratio=high / low, root=np.sqrt(high / low))
    page.record(loss_below_limit=below, loss_above_limit=above)


def _error_factor(rate: float, momentum: float, steps: int = 400) -> float:
    """Measure by which factor a step shrinks the distance to the minimum, late in the descent."""
    distances = np.linalg.norm(descend(rate, momentum, steps), axis=1)
    half = steps // 2
    return float((distances[steps] / distances[half]) ** (1 / (steps - half)))


def _draw_schedules(page: Page, config: Config) -> None:
    page.heading("schedules_heading")
    rates = {name: _rates(config.train, settings) for name, settings in SCHEDULES.items()}
    page.say("schedules")
    page.figure("factors_of_rate", lambda: draw_schedules(rates))
    page.record(**{f"{name}_rates": [each[0], each[DRAWN_STEPS // 2], each[-1]] for name, each in rates.items()})


def _rates(train: TrainConfig, settings: Mapping[str, Any]) -> list[float]:
    """Return the schedule's factor at each of `DRAWN_STEPS` steps."""
    schedule = make_schedule(train.model_copy(update={**settings, "learning_rate": 1.0, "epochs": 1}), DRAWN_STEPS)
    rates = []
    for _ in range(DRAWN_STEPS):
        rates.append(schedule.get_lr())
        schedule.step()
    return rates


def _compare_optimizers(page: Page, data: LessonData) -> None:
    page.heading("optimizers_heading")
    page.say("recipe", config=data.config, network=NETWORK, seeds=len(SEEDS))
    top1: dict[str, dict[float, Top1]] = {}
    for name, rates in OPTIMIZERS.items():
        settings = [{"optimizer": name, "learning_rate": rate} for rate in rates]
        top1[name] = {rate: _train_seeds(data, each) for rate, each in zip(rates, settings, strict=True)}
        logger.info("%s: trained at %d learning rates", name, len(rates))
    validation = {name: {rate: each.validation for rate, each in by_rate.items()} for name, by_rate in top1.items()}
    best = {name: max((each.mean, rate) for rate, each in by_rate.items())[1] for name, by_rate in validation.items()}
    page.table(
        "by_rate",
        [
            (name, f"{rate:g}", each.percent() + (" *" if rate == best[name] else ""))
            for name, by_rate in validation.items()
            for rate, each in by_rate.items()
        ],
    )
    page.figure("optimizers", lambda: draw_optimizers(validation))
    tests = {name: by_rate[best[name]].test for name, by_rate in top1.items()}
    page.table("test_top1", [(name, f"{best[name]:g}", each.percent()) for name, each in tests.items()])
    page.say("own_scale", seeds=len(SEEDS), one_image=100 / len(data.splits.test))
    page.record(best_rates=list(best.values()), **{f"{name}_test_top1": each.values for name, each in tests.items()})


def _compare_schedules(page: Page, data: LessonData) -> None:
    page.heading("schedule_results_heading")
    page.say("schedule_recipe", rate=SCHEDULE_RATE, seeds=len(SEEDS))
    rate = {"optimizer": "sgd", "learning_rate": SCHEDULE_RATE}
    tests = {name: _train_seeds(data, {**rate, **each}).test for name, each in SCHEDULES.items()}
    constant = tests["constant"].values
    rows = []
    for name, each in tests.items():
        gain = SeedStatistics.of(one - other for one, other in zip(each.values, constant, strict=True))
        rows.append((name, each.percent(), "" if name == "constant" else gain.points()))
        page.record(**{f"{name}_schedule_test_top1": each.values})
    page.table("schedule_results", rows)
    page.say("schedule_verdict")


def _train_seeds(data: LessonData, settings: Mapping[str, Any]) -> Top1:
    """Train once a seed with `settings` of the optimizer."""
    validation, test = zip(*(_train(data, settings, seed) for seed in SEEDS), strict=True)
    return Top1(SeedStatistics.of(validation), SeedStatistics.of(test))


def _train(data: LessonData, settings: Mapping[str, Any], seed: int) -> tuple[float, float]:
    """Train one network; return its top-1 on the validation and the test split. One that diverged guesses one class."""
    config, splits = data.config, data.splits
    train = config.train.model_copy(update={**settings, "seed": seed})
    runtime.seed_everything(seed)
    network = create_model(config.model.name, len(splits.classes))
    apply_cpu_backend(network, train)
    loader = data.loader(train.batch_size, seed, augment=config.augment)
    steps = train.epochs * len(loader)
    losses = train_while_finite(network, make_optimizer(network, train, len(loader)), take_batches(loader, steps))

    def top1(split: Split) -> float:
        if len(losses) == steps:
            with suppress(RunFailure):  # the last step may have made its weights infinite
                return data.measure(network, split).top1
        return float(np.bincount(split.labels).max() / len(split))

    return top1(splits.validation), top1(splits.test)
