"""What pretraining is worth, by the number of images per class of the new task."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from paddle_resnet import runtime
from paddle_resnet.config import Config
from paddle_resnet.console import logger
from paddle_resnet.data import MemorySplit, Split, Splits
from paddle_resnet.evaluation.run_plots import features_of
from paddle_resnet.lessons.common.runs import flatten_pixels, image_settings, lesson_config
from paddle_resnet.lessons.common.training_loop import LessonData, apply_cpu_backend, take_batches, train_batches
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.framework.texts import Text
from paddle_resnet.models import ImageClassifier, create_model, load_weights
from paddle_resnet.plots.style import BLUE, GREEN, GREY, ORANGE, label_log_axis, make_figure
from paddle_resnet.training import SeedStatistics
from paddle_resnet.training.optim.optimizer import make_optimizer

SOURCE_CLASSES, TARGET_CLASSES = range(5), range(5, 10)

SCRATCH, TUNED, LAST, PIXELS = "from scratch", "fine-tuned", "last layer alone", "pixels alone"
STARTS: dict[str, dict[str, Any]] = {  # the initialisations, and how they are drawn
    SCRATCH: {"color": ORANGE, "marker": "o"},
    TUNED: {"color": BLUE, "marker": "s"},
    LAST: {"color": GREEN, "marker": "^"},
    PIXELS: {"color": GREY, "marker": "D"},
}

Weights = Mapping[str, np.ndarray]
Top1 = dict[str, dict[int, SeedStatistics]]  # on the new task's test images, by initialisation and images per class


@dataclass(frozen=True)
class Plan:
    """The trainings of the lesson."""

    config: Config  # network, data and recipe of every training
    numbers: tuple[int, ...]  # images per class, from few to many
    steps: int  # of each training on the few images
    seeds: tuple[int, ...]  # each has its own pretraining, sample of images and new weights

    @classmethod
    def of(cls, effort: Effort) -> Plan:
        train = {"epochs": 10, "batch_size": 64, "learning_rate": 0.05}
        settings = {**image_settings(effort, size=16, pad=2), "train": train}
        config = lesson_config(effort, settings, "resnet14" if effort.full else "resnet8")
        if effort.full:
            return cls(config, (5, 20, 50, 200), effort.epochs(300), (0, 1, 2))
        return cls(config, (1, 2, 5, 10, 20), effort.epochs(60), tuple(range(max(2, effort.epochs(5)))))


def gains_over_scratch(top1: Top1, start: str) -> dict[int, SeedStatistics]:
    """Return the gain of an initialisation over training from scratch, paired by seed, by images per class."""
    pairs = {
        number: zip(each.values, top1[SCRATCH][number].values, strict=True) for number, each in top1[start].items()
    }
    return {number: SeedStatistics.of(value - scratch for value, scratch in each) for number, each in pairs.items()}


def teach(page: Page, effort: Effort) -> None:
    """Pretrain on five classes, then learn the other five from few images with and without the pretrained weights."""
    plan = Plan.of(effort)
    data = LessonData(plan.config)
    source, target = make_task(data.splits, SOURCE_CLASSES), make_task(data.splits, TARGET_CLASSES)
    _show_photographs(page)
    _show_question(page, plan, source, target)
    _show_what_is_taken(page, plan)
    top1, pretrained = _measure(plan, FewShotTrainer(data), source, target)
    _show_results(page, plan, top1, pretrained, target)
    _show_gain(page, plan, top1)
    _explain(page, plan, top1, pretrained, target)


def _show_photographs(page: Page) -> None:
    """Show an experiment too long for a lesson, ``docs/experiments/five_classes.py``, by the results that it wrote."""
    page.section("worth")
    recorded = json.loads(Path(__file__).with_name("five_classes.json").read_text(encoding="utf-8"))
    statistics = {start: SeedStatistics.of(recorded["test_top1"][start]) for start in (SCRATCH, TUNED)}
    pairs = zip(statistics[TUNED].values, statistics[SCRATCH].values, strict=True)
    gain = SeedStatistics.of(tuned - scratch for tuned, scratch in pairs)
    first = SeedStatistics.of(recorded["first_test_top1"]).percent()
    old, new = (recorded["classes"][part] for part in ("first", "then"))
    page.say("photographs", recorded=recorded, old=old, new=new, first=first, seeds=gain.runs)
    page.table(
        "photographs_top1",
        [
            (page.text(start), *(f"{100 * value:.2f}" for value in each.values), each.percent())
            for start, each in statistics.items()
        ],
        columns=[f"seed {seed}" for seed in recorded["seeds"]],
    )
    page.values("python docs/experiments/five_classes.py --data FOLDER --output output/five_classes")
    page.say("photographs_gain", gain=gain.points(), seeds=gain.runs)
    page.record(photographs_gain=gain.mean, photographs_margin=gain.ci95)


def _show_question(page: Page, plan: Plan, source: Task, target: Task) -> None:
    page.section("question")
    old, new, numbers = (", ".join(map(str, each)) for each in (source.classes, target.classes, plan.numbers))
    page.values(
        f"old task   {old}: {len(source.train):,} training images, all of them used",
        f"new task   {new}: {numbers} training images per class; {len(target.test):,} test images",
    )
    page.say("ways", config=plan.config, plan=plan, seeds=len(plan.seeds))


def _show_what_is_taken(page: Page, plan: Plan) -> None:
    page.heading("loaded_heading")
    old, new = (create_model(plan.config.model.name, classes) for classes in (10, 5))
    report = load_weights(new, {name: tensor.numpy() for name, tensor in old.state_dict().items()})
    learnt = sum(new.state_dict()[name].size for name in report.loaded)
    page.values(
        "report = load_weights(network, weights_of_another_task)",
        f"report.loaded         {len(report.loaded)} arrays, {learnt:,} numbers",
        f"report.skipped_head   {', '.join(report.skipped_head)}",
    )
    page.say("loaded")
    page.record(arrays_loaded=len(report.loaded), arrays_skipped=len(report.skipped_head))


def _measure(plan: Plan, learner: FewShotTrainer, source: Task, target: Task) -> tuple[Top1, SeedStatistics]:
    """Train, for each seed, the old task, then the new one from every initialisation and number of images.

    Returns:
        Top-1 on the new task, and of the pretrained networks on the old one.
    """
    top1: dict[str, dict[int, list[float]]] = {start: {each: [] for each in plan.numbers} for start in STARTS}
    pretrained = []
    for seed in plan.seeds:
        weights, source_top1 = learner.pretrain(source, seed)
        pretrained.append(source_top1)
        logger.info("seed %d: the old task is learnt, test top-1 %.2f%%", seed, 100 * source_top1)
        inputs: dict[str, Callable[[MemorySplit], np.ndarray]] = {
            LAST: partial(learner.features, weights=weights),
            PIXELS: pixel_features,
        }
        test = {start: of(target.test) for start, of in inputs.items()}
        for number in plan.numbers:
            images = sample_per_class(target.train, number, seed)
            for start, begin in ((SCRATCH, None), (TUNED, weights)):
                top1[start][number].append(learner.learn(target, images, plan.steps, seed, begin))
            for start, of in inputs.items():
                right = linear_probe_top1(of(images), images.labels, test[start], target.test.labels)
                top1[start][number].append(right)
        logger.info("seed %d: the new task is learnt from each number of images", seed)
    statistics = {start: {key: SeedStatistics.of(each) for key, each in of.items()} for start, of in top1.items()}
    return statistics, SeedStatistics.of(pretrained)


def _show_results(page: Page, plan: Plan, top1: Top1, pretrained: SeedStatistics, target: Task) -> None:
    page.section("results", pretrained=pretrained.percent(), seeds=len(plan.seeds), images=len(target.test))
    page.table(
        "top1",
        [[number, *(top1[start][number].percent() for start in STARTS)] for number in plan.numbers],
        columns=[page.text(start) for start in STARTS],
    )
    page.figure("by_images", lambda: draw_by_number(top1))
    page.record(images_a_class=plan.numbers, seeds=len(plan.seeds), test_images=len(target.test))
    page.record(pretrained_top1=pretrained.values)
    page.record(**{_key(start): [each.values for each in top1[start].values()] for start in STARTS})


def _key(start: str) -> str:
    return f"top1_{start.replace(' ', '_').replace('-', '_')}"


def _show_gain(page: Page, plan: Plan, top1: Top1) -> None:
    page.heading("gain_heading")
    by_chance = 1 - 0.95 ** len(plan.numbers)
    gains = {start: gains_over_scratch(top1, start) for start in (TUNED, LAST)}
    page.table("gains", [[number, *(each[number].points() for each in gains.values())] for number in plan.numbers])
    page.say("intervals", seeds=len(plan.seeds), rows=len(plan.numbers), by_chance=by_chance)
    for start, by_number in gains.items():
        _say_verdict(page, start, by_number)
        for name, attribute in (("gain", "mean"), ("margin", "ci95"), ("sign", "sign")):
            page.record(**{f"{_key(start)}_{name}": [getattr(each, attribute) for each in by_number.values()]})


def _say_verdict(page: Page, start: str, gains: Mapping[int, SeedStatistics]) -> None:
    """Say at which numbers of images an initialisation gained, lost, or did not differ significantly."""
    outcomes = []
    for sign, outcome in ((1, "gained"), (-1, "lost"), (0, "undecided")):
        if numbers := [number for number, gain in gains.items() if gain.sign == sign]:
            outcomes.append(page.text(outcome, numbers=numbers))
    page.say("verdict", start=Text(start.capitalize(), page.text(start).zh), outcomes=outcomes)


def _explain(page: Page, plan: Plan, top1: Top1, pretrained: SeedStatistics, target: Task) -> None:
    fewest, most = plan.numbers[0], plan.numbers[-1]
    scratch, pixels = top1[SCRATCH][most], top1[PIXELS][most]
    height, width = target.test.batch([0]).shape[1:3]
    page.section("at_most", height=height, width=width, most=most, scratch=scratch, pixels=pixels)
    others = [max(top1[start][number].mean for start in (SCRATCH, TUNED, LAST)) for number in plan.numbers]
    if ahead := [number for number, best in zip(plan.numbers, others, strict=True) if top1[PIXELS][number].mean > best]:
        page.say("pixels_ahead", ahead=ahead)
    if pixels.mean > 0.9:
        few = {start: top1[start][fewest].mean for start in STARTS}
        page.say("pixels_suffice", most=most, fewest=fewest, old=pretrained.mean, few=few)
    else:
        page.say("pixels_do_not_suffice")
    page.say("practice")
    page.record(scratch_at_most=scratch.mean, pixels_at_most=pixels.mean)


def draw_by_number(top1: Top1) -> Figure:
    """Draw the top-1 of every initialisation, and the gain of two of them, over the images per class."""
    numbers = list(top1[SCRATCH])
    figure, (left, right) = make_figure(10, 4.4, 1, 2)
    for place, (start, style) in enumerate(STARTS.items()):
        # Shifted, so that the error bars do not overlap.
        shifted = [number * 1.05 ** (place - 1.5) for number in numbers]
        line = {**style, "markersize": 5, "capsize": 3, "label": start}
        dashed = "--" if start == PIXELS else "-"
        left.errorbar(shifted, *_percents(top1[start], "std"), linestyle=dashed, **line)
        if start in (TUNED, LAST):
            right.errorbar(shifted, *_percents(gains_over_scratch(top1, start), "ci95"), **line)
    right.axhline(0, color=GREY, linewidth=1)
    left.set_ylabel("test top-1 (%)")
    right.set_ylabel("gain over training from scratch (points)")
    for axes in (left, right):
        axes.set_xscale("log")
        label_log_axis(axes.xaxis, numbers)
        axes.set_xlabel("training images per class")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=len(STARTS))
    return figure


def _percents(by_number: Mapping[int, SeedStatistics], bar: str) -> tuple[list[float], list[float]]:
    return [100 * each.mean for each in by_number.values()], [100 * getattr(each, bar) for each in by_number.values()]


@dataclass(frozen=True)
class Task:
    """A data set of some of the classes of another one."""

    classes: tuple[str, ...]
    train: MemorySplit
    test: MemorySplit


def make_task(splits: Splits, labels: Sequence[int]) -> Task:
    """Make a task of the classes `labels`, in that order; the validation images become training images."""
    names = tuple(splits.classes[label] for label in labels)
    parts = [select_classes([splits.train, splits.validation], labels), select_classes([splits.test], labels)]
    return Task(names, *parts)


def select_classes(sources: Sequence[Split], labels: Sequence[int]) -> MemorySplit:
    """Gather the images of the classes `labels`, and number the classes 0, 1, ..."""
    chosen = [(split, np.flatnonzero(np.isin(split.labels, labels))) for split in sources]
    images = np.concatenate([split.batch(positions) for split, positions in chosen])
    old = np.concatenate([split.labels[positions] for split, positions in chosen])
    return MemorySplit(images, np.array([list(labels).index(label) for label in old]), "chosen")


def sample_per_class(split: MemorySplit, number: int, seed: int) -> MemorySplit:
    """Sample `number` images of each class; with one seed, a larger sample contains the smaller ones."""
    generator = np.random.default_rng(seed)
    classes = np.unique(split.labels)
    shuffled = [generator.permutation(np.flatnonzero(split.labels == label)) for label in classes]
    positions = np.concatenate([members[:number] for members in shuffled])
    return MemorySplit(split.batch(positions), split.labels[positions], "chosen")


class FewShotTrainer:
    """Trains networks with the model, augmentation and optimizer of one config."""

    def __init__(self, data: LessonData) -> None:
        self._data, self.config = data, data.config

    def pretrain(self, task: Task, seed: int) -> tuple[Weights, float]:
        """Train on all images of the task for the config's epochs; return the weights and the test top-1."""
        network = self._train(task, task.train, seed)
        weights = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
        return weights, self._data.measure(network, task.test, task.classes).top1

    def learn(self, task: Task, images: MemorySplit, steps: int, seed: int, weights: Weights | None) -> float:
        """Train `steps` steps on `images`; return the top-1 on the task's test images.

        The network starts from `weights` with a new last layer, or from new weights (None).
        """
        network = self._train(task, images, seed, steps, weights)
        return self._data.measure(network, task.test, task.classes).top1

    def features(self, images: MemorySplit, weights: Weights) -> np.ndarray:
        """Return the input of the last layer for each image, float32 ``[N, features]``."""
        network = create_model(self.config.model.name, weights["fc.bias"].size)
        load_weights(network, weights)
        network.eval()
        return features_of(network, self._data.normalize, (pixels for pixels, _ in self._data.batches(images)))

    def _train(
        self, task: Task, images: MemorySplit, seed: int, steps: int | None = None, weights: Weights | None = None
    ) -> ImageClassifier:
        """Train on images of the task; None: as many steps as the config's epochs have."""
        runtime.seed_everything(seed)
        network, train = create_model(self.config.model.name, len(task.classes)), self.config.train
        if weights is not None:
            load_weights(network, weights)
            network.reset_classifier(len(task.classes))
        apply_cpu_backend(network, train)
        loader = self._data.loader(train.batch_size, seed, images, self.config.augment)
        steps = steps or train.epochs * len(loader)
        optimizer = make_optimizer(network, train.model_copy(update={"epochs": 1}), steps)
        train_batches(network, optimizer, take_batches(loader, steps))
        return network


def linear_probe_top1(
    inputs: np.ndarray, labels: np.ndarray, test_inputs: np.ndarray, test_labels: np.ndarray
) -> float:
    """Fit a logistic regression on standardised inputs ``[N, D]``; return its top-1 on the test inputs."""
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)).fit(inputs, labels)
    return float(linear.score(test_inputs, test_labels))


def pixel_features(split: MemorySplit) -> np.ndarray:
    """Return the stored pixels of each image as one row."""
    return flatten_pixels(split.batch(np.arange(len(split))))
