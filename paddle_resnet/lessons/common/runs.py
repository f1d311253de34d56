"""Training runs of the toolkit within a lesson; their folders lie in the lesson's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paddle_resnet import runtime
from paddle_resnet.config import Config
from paddle_resnet.console import logger
from paddle_resnet.data import Split, uint8_batches
from paddle_resnet.evaluation.report import measure_split, metrics_section
from paddle_resnet.evaluation.scorer import NetworkScorer
from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import RUNS, Page
from paddle_resnet.lessons.framework.texts import Text
from paddle_resnet.training import train
from paddle_resnet.training.cpu_backend import use_cpu_backend
from paddle_resnet.training.run_folder import RunFolder

Settings = Mapping[str, Any]
"""Nested keys of a config."""


def train_run(page: Page, effort: Effort, name: str, settings: Settings) -> RunFolder:
    """Train one network by `settings` and the lesson's overrides into ``runs/<name>`` of the lesson's folder."""
    config = Config.from_values({**settings, "name": name, "output": page.folder / RUNS}, effort.overrides)
    return train(config)


def update_settings(settings: Settings, effort: Effort, *, name: str | None = None, **train: object) -> dict[str, Any]:
    """Scale the epochs of `settings` by `effort`; set the model's name and other keys of ``train``."""
    model = {**settings.get("model", {}), **({"name": name} if name else {})}
    epochs = effort.epochs(settings["train"]["epochs"])
    return {**settings, "model": model, "train": {**settings["train"], "epochs": epochs, **train}}


def read_images(run: RunFolder, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Read a split as the run's network gets it: uint8 ``[N, S, S, 3]`` before normalisation, and labels ``[N]``."""
    batches = list(uint8_batches(split, 256, run.splits().resize, run.config.data.image_size))
    return np.concatenate([pixels for pixels, _ in batches]), np.concatenate([labels for _, labels in batches])


def describe_images(page: Page, config: Config) -> Text:
    """Name the training images of a config."""
    return page.text(
        "digits_images" if config.data.source == "digits" else "augmented_cifar10", size=config.data.image_size
    )


def note_differences_from_paper(page: Page, config: Config) -> None:
    """Write how networks and numbers differ from those of He et al. 2015, if they do."""
    if config.model.stem == "cifar_pool":
        page.say("max_pooling")
    if config.train.cpu_precision == "auto":
        page.say("bfloat16")
    if config.data.source != "digits" and not config.data.verify:
        page.say("not_verified")


@dataclass(frozen=True)
class TrainingResult:
    """One training and the errors of its last weights. Errors are fractions, 1 - top-1.

    Attributes:
        config: of the run.
        training_error: over all training images, without augmentation, in evaluation mode.
        test_error: over the whole test split, in evaluation mode.
        training_curve: by epoch, the mean over the augmented batches of the epoch.
        validation_curve: by epoch, at its end.
        steps: number of optimizer steps.
        seconds: of training, without validation.
    """

    config: Config
    training_error: float
    test_error: float
    training_curve: np.ndarray
    validation_curve: np.ndarray
    steps: int
    seconds: float


def choose_seeds(effort: Effort, usual: Sequence[int]) -> tuple[int, ...]:
    """Return the usual seeds, or the one that an override of ``train.seed`` names."""
    if any(override.partition("=")[0] == "train.seed" for override in effort.overrides):
        return (Config.from_values({}, effort.overrides).train.seed,)
    return tuple(usual)


def train_seeds(
    page: Page, effort: Effort, settings: Settings, names: Sequence[str], seeds: Sequence[int]
) -> dict[str, list[TrainingResult]]:
    """Train each network with each seed, and record the results under names that begin with the network's.

    Seed by seed, so that an interrupted lesson leaves complete comparisons.
    """
    results: dict[str, list[TrainingResult]] = {name: [] for name in names}
    for seed in seeds:
        for name, trainings in results.items():
            run_settings = update_settings(settings, effort, name=name, seed=seed)
            trainings.append(train_and_measure(page, effort, f"{name}-seed{seed}", run_settings))
            numbers = {
                f"{name}_seeds": [each.config.train.seed for each in trainings],
                f"{name}_training_errors": [each.training_error for each in trainings],
                f"{name}_test_errors": [each.test_error for each in trainings],
                f"{name}_training_curves": [each.training_curve for each in trainings],
                f"{name}_validation_curves": [each.validation_curve for each in trainings],
                f"{name}_seconds": [each.seconds for each in trainings],
            }
            page.record(**numbers)
    return results


def train_and_measure(page: Page, effort: Effort, name: str, settings: Settings) -> TrainingResult:
    """Train as `train_run`, then measure the last weights and write the result to the run's ``metrics.json``.

    The last weights instead of the best ones, because the lessons ask how far a training came.
    """
    run = train_run(page, effort, name, settings)
    network = run.load_network("last")
    use_cpu_backend(network, run.config.train.cpu_backend, runtime.select_device(run.config.device))
    scorer = NetworkScorer(network, run.normalize())
    errors = {}
    for split in ("train", "test"):
        evaluation = measure_split(run, scorer, split)
        run.update_metrics(metrics_section(split, "last"), evaluation.summary() | {"checkpoint": "last"})
        errors[split] = 1 - evaluation.top1
    logger.info("%s: training error %.2f%%, test error %.2f%%", name, *(100 * error for error in errors.values()))
    history = run.history()
    return TrainingResult(
        config=run.config,
        training_error=errors["train"],
        test_error=errors["test"],
        training_curve=np.array([1 - record.train_top1 for record in history]),
        validation_curve=np.array([1 - record.validation_top1 for record in history]),
        steps=len(history) * (len(run.splits().train) // run.config.train.batch_size),
        seconds=sum(record.seconds for record in history),
    )
