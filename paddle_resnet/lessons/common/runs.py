"""Training runs of the toolkit within a lesson; their folders lie in the lesson's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from paddle_resnet import runtime, training
from paddle_resnet.config import Config
from paddle_resnet.console import logger
from paddle_resnet.data import Split, uint8_batches
from paddle_resnet.evaluation.report import measure_split, metrics_section
from paddle_resnet.evaluation.scorer import NetworkScorer
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import RUNS, Page
from paddle_resnet.onednn import accelerate
from paddle_resnet.training.run_folder import Run

Settings = Mapping[str, Any]  # nested keys of a config


def lesson_config(effort: Effort, settings: Settings, network: str, **train: object) -> Config:
    """Make the config of a lesson: `settings` with this network, more keys of ``train``, and the user's overrides."""
    epochs = effort.epochs(settings["train"]["epochs"])
    groups = {
        "model": {**settings.get("model", {}), "name": network},
        "train": {**settings["train"], "epochs": epochs, **train},
    }
    return Config.from_values({**settings, **groups}, effort.overrides)


def train_run(page: Page, effort: Effort, name: str, settings: Settings, network: str, **train: object) -> Run:
    """Train a network into ``runs/<name>`` of the lesson's folder; see `lesson_config`."""
    settings = {**settings, "name": name, "output": page.folder / RUNS}
    return training.train(lesson_config(effort, settings, network, **train))


def read_images(run: Run, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Read a split as the run's network gets it: uint8 ``[N, S, S, 3]`` before normalisation, and labels ``[N]``."""
    batches = list(uint8_batches(split, 256, run.splits().resize, run.config.data.image_size))
    return np.concatenate([pixels for pixels, _ in batches]), np.concatenate([labels for _, labels in batches])


def flatten_pixels(images: np.ndarray) -> np.ndarray:
    """Return each of the uint8 images ``[N, H, W, 3]`` as one row, float32 ``[N, H * W * 3]`` from 0 to 1."""
    return images.reshape(len(images), -1).astype(np.float32) / 255


def image_settings(effort: Effort, *, size: int, pad: int) -> dict[str, Any]:
    """Return the digits at `size` pixels, shifted by up to `pad`; in the full form CIFAR-10 with crops and flips."""
    if effort.full:
        return {"data": {"source": "cifar10", "image_size": 32}, "augment": {"pad": 4, "flip": True}}
    return {"data": {"source": "digits", "image_size": size}, "augment": {"pad": pad}}


@dataclass
class SeedResults:
    """The trainings of one network, one a seed, measured with their last weights. Errors are fractions, 1 - top-1.

    The last weights instead of the best ones, because the lessons ask how far a training came. Both errors are measured
    after training, without augmentation, in evaluation mode.
    """

    seeds: list[int] = field(default_factory=list)
    training_errors: list[float] = field(default_factory=list)  # over all training images
    test_errors: list[float] = field(default_factory=list)  # over the whole test split
    training_curves: list[np.ndarray] = field(default_factory=list)  # by epoch, the mean over its augmented batches
    validation_curves: list[np.ndarray] = field(default_factory=list)  # by epoch, at its end
    seconds: list[float] = field(default_factory=list)  # of training, without validation
    steps: list[int] = field(default_factory=list)  # of the optimizer

    def add(self, run: Run) -> None:
        """Measure the last weights of a run, and write the result to its ``metrics.json``, too."""
        network = run.load_network("last")
        accelerate(network, run.config.train.cpu_backend, runtime.select_device(run.config.device))
        scorer = NetworkScorer(network, run.normalize())
        for split, errors in (("train", self.training_errors), ("test", self.test_errors)):
            evaluation = measure_split(run, scorer, split)
            run.update_metrics(metrics_section(split, "last"), evaluation.summary() | {"checkpoint": "last"})
            errors.append(1 - evaluation.top1)
        percents = 100 * self.training_errors[-1], 100 * self.test_errors[-1]
        logger.info("%s: training error %.2f%%, test error %.2f%%", run.config.name, *percents)
        history = run.history()
        self.seeds.append(run.config.train.seed)
        self.training_curves.append(np.array([1 - record.train_top1 for record in history]))
        self.validation_curves.append(np.array([1 - record.validation_top1 for record in history]))
        self.seconds.append(sum(record.seconds for record in history))
        self.steps.append(len(history) * (len(run.splits().train) // run.config.train.batch_size))


def choose_seeds(effort: Effort, usual: Sequence[int]) -> tuple[int, ...]:
    """Return the usual seeds, or the one that an override of ``train.seed`` names."""
    if any(override.partition("=")[0] == "train.seed" for override in effort.overrides):
        return (Config.from_values({}, effort.overrides).train.seed,)
    return tuple(usual)


def train_as_paper(
    page: Page,
    effort: Effort,
    names: Sequence[str],
    seeds: Sequence[int],
    *,
    epochs: tuple[int, int],
    recipe: str,
    **values: object,
) -> dict[str, SeedResults]:
    """Train each network with each seed by the recipe of He et al. 2015, section 4.2, and record the results.

    Seed by seed, so that an interrupted lesson leaves complete comparisons.

    Args:
        page: says the recipe, then how it differs from the paper's.
        effort: of the lesson.
        names: of the networks.
        seeds: used unless an override names one.
        epochs: on the digits, and on CIFAR-10 in the full form.
        recipe: key of a text; it gets ``config``, ``images``, the number of ``seeds`` and `values`.
        values: more values of the text.
    """
    digits_epochs, cifar10_epochs = epochs
    train: dict[str, Any] = {"learning_rate": 0.1, "weight_decay": 1e-4, "epochs": digits_epochs, "batch_size": 64}
    settings = {**image_settings(effort, size=8, pad=0), "train": train}
    if effort.full:
        train |= {"epochs": cifar10_epochs, "batch_size": 128, "cpu_precision": "auto"}
        # Max-pooling in the stem quarters the work of later layers.
        settings["model"] = {"stem": "cifar_pool"}
    seeds = choose_seeds(effort, seeds)
    config = lesson_config(effort, settings, names[0])
    images = "digits_images" if config.data.source == "digits" else "augmented_cifar10"
    size = config.data.image_size
    page.say(recipe, config=config, images=page.text(images, size=size), seeds=len(seeds), **values)
    if config.model.stem == "cifar_pool":
        page.say("max_pooling")
    if config.train.cpu_precision == "auto":
        page.say("bfloat16")
    if config.data.source != "digits" and not config.data.verify:
        page.say("not_verified")
    results = {name: SeedResults() for name in names}
    for seed in seeds:
        for name, result in results.items():
            result.add(train_run(page, effort, f"{name}-seed{seed}", settings, name, seed=seed))
    for name, result in results.items():
        page.record(**{f"{name}_{key}": each for key, each in vars(result).items()})
    return results
