"""A lesson's training whose errors are measured when it has ended, on images as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paddle_resnet import runtime
from paddle_resnet.config import Config
from paddle_resnet.console import logger
from paddle_resnet.evaluation.measure import NetworkScorer
from paddle_resnet.evaluation.report import measure_split, metrics_section
from paddle_resnet.lessons.catalogue import Effort
from paddle_resnet.lessons.page import Page
from paddle_resnet.lessons.spread import Spread
from paddle_resnet.lessons.training_runs import train_within
from paddle_resnet.training.cpu_backend import use_cpu_backend
from paddle_resnet.training.run_folder import RunFolder

SEED_KEY = "train.seed"


@dataclass(frozen=True)
class MeasuredTraining:
    """One training, and what its last weights get wrong. Errors are fractions: 1 - top-1.

    Attributes:
        config: of the run.
        training_error: over all training images, without augmentation, in evaluation mode.
        test_error: over the whole test split, likewise.
        training_curve: by epoch, as training goes: of augmented images, each by the weights of its moment.
        validation_curve: by epoch, at its end.
        steps: of training.
        seconds: of training, without validation.
    """

    config: Config
    training_error: float
    test_error: float
    training_curve: np.ndarray
    validation_curve: np.ndarray
    steps: int
    seconds: float


def seeds_of(effort: Effort, usual: Sequence[int]) -> tuple[int, ...]:
    """The seeds to train with: the usual ones, or the one that an override names."""
    if any(override.partition("=")[0] == SEED_KEY for override in effort.overrides):
        return (Config.from_values({}, effort.overrides).train.seed,)
    return tuple(usual)


def train_and_measure(page: Page, effort: Effort, name: str, settings: Mapping[str, Any]) -> MeasuredTraining:
    """Train as `train_within`, then measure the last weights; the figures are also in the run's ``metrics.json``.

    The last weights, not the best by validation: what is asked is how far training came.
    """
    run = train_within(page, effort, name, settings)
    network = run.load_network("last")
    use_cpu_backend(network, run.config.train.cpu_backend, runtime.select_device(run.config.device))
    scorer = NetworkScorer(network, run.normalize())
    errors = {split: _measured_error(run, scorer, split) for split in ("train", "test")}
    logger.info("%s: training error %.2f%%, test error %.2f%%", name, *(100 * error for error in errors.values()))
    history = run.history()
    return MeasuredTraining(
        config=run.config,
        training_error=errors["train"],
        test_error=errors["test"],
        training_curve=np.array([1 - record.train_top1 for record in history]),
        validation_curve=np.array([1 - record.validation_top1 for record in history]),
        steps=len(history) * (len(run.splits().train) // run.config.train.batch_size),
        seconds=sum(record.seconds for record in history),
    )


def percent_over_seeds(fractions: Sequence[float]) -> str:
    """Mean and standard deviation in percent, ``97.21 ± 0.43``; of a single run its value."""
    return Spread.of(fractions).percent() if len(fractions) > 1 else f"{100 * fractions[0]:.2f}"


def _measured_error(run: RunFolder, scorer: NetworkScorer, split: str) -> float:
    evaluation = measure_split(run, scorer, split)
    run.update_metrics(metrics_section(split, "last"), evaluation.summary() | {"checkpoint": "last"})
    return 1 - evaluation.top1
