"""LeNet-5 beside a ResNet of about as many parameters, on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from paddle_resnet.config import Config
from paddle_resnet.data import Split
from paddle_resnet.errors import RunFailure
from paddle_resnet.evaluation import Evaluation, NetworkScorer, measure_split
from paddle_resnet.lessons.common.network_costs import describe_machine, format_shape, model_summary
from paddle_resnet.lessons.common.runs import train_run
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import RUNS, Page
from paddle_resnet.models.summary import ModelSummary
from paddle_resnet.plots.style import BLUE, INK, ORANGE, make_figure, plain_log_labels, shortened, without_axes
from paddle_resnet.training import EpochRecord, Run, SeedStatistics

SIZE = 32  # LeNet's own
SEEDS = (0, 1, 2)
RATES = {"lenet": 0.02, "resnet8": 0.1}
QUICK: dict[str, Any] = {
    "data": {"source": "digits", "image_size": SIZE},
    "augment": {"pad": 4},
    "train": {"epochs": 12, "batch_size": 64},
}
FULL: dict[str, Any] = {
    "data": {"source": "fashion_mnist", "image_size": SIZE},
    "augment": {"pad": 2},
    "train": {"epochs": 10, "batch_size": 128},
}
STYLES = {"lenet": ("LeNet-5", ORANGE), "resnet8": ("resnet8", BLUE)}  # title and colour
IMAGES_PER_ROW = 8  # of a row at most


def teach(page: Page, effort: Effort) -> None:
    """Count LeNet's layers, train it and a ResNet with several seeds, and compare their errors."""
    _show_layers(page)
    lenet, resnet = (_train(page, effort, name) for name in RATES)
    first_run = Run.open(page.folder / RUNS / f"lenet_seed{SEEDS[0]}")
    _compare(page, first_run.config, lenet, resnet)
    _show_curves(page, lenet, resnet)
    _show_mistakes(page, first_run.splits().test, lenet, resnet)
    _show_learning_rate(page, effort, lenet)


def _show_layers(page: Page) -> None:
    lenet, resnet = model_summary("lenet", SIZE), model_summary("resnet8", SIZE)
    page.section("lenet5")
    page.say("seven_layers")
    page.table(
        "layers",
        [
            (f"{row.name} ({row.kind})", format_shape(row.output_shape[1:], "x"), row.parameters, row.macs)
            for row in lenet.leaves()
            if row.parameters
        ],
    )
    # Table I of the paper: 6 maps with 3 connections, 9 with 4, 1 with all 6; each connection is a 5x5 kernel.
    connections, dense_connections, maps = 6 * 3 + 9 * 4 + 6, 6 * 16, 16
    sparse, dense = (25 * number + maps for number in (connections, dense_connections))
    page.say("sparse", connections=connections, dense_connections=dense_connections, sparse=sparse, dense=dense)
    page.record(sparse_c3_parameters=sparse, dense_c3_parameters=dense)
    shares = {"lenet": _linear_share(lenet), "resnet8": _linear_share(resnet)}
    page.say("shares", lenet=lenet, shares=shares, resnet=resnet, work=resnet.macs / lenet.macs)
    page.record(lenet_parameters=lenet.parameters, lenet_macs=lenet.macs, lenet_linear_share=shares["lenet"][0])
    page.record(resnet_parameters=resnet.parameters, resnet_macs=resnet.macs)


def _linear_share(summary: ModelSummary) -> tuple[float, float]:
    """Return the linear layers' share of the parameters and of the multiply-adds."""
    linear = [row for row in summary.leaves() if row.kind == "Linear"]
    parameters, macs = sum(row.parameters for row in linear), sum(row.macs for row in linear)
    return parameters / summary.parameters, macs / summary.macs


def _train_once(page: Page, effort: Effort, name: str, network: str, **train: object) -> Run:
    """Train by the recipe, which is the same for both networks except for the learning rate."""
    settings = FULL if effort.full else QUICK
    return train_run(page, effort, name, settings, network, **{"learning_rate": RATES[network], **train})


def _measure(run: Run) -> Evaluation:
    """Measure the best checkpoint on the test split."""
    return measure_split(run, NetworkScorer(run.load_network(), run.normalize()))


def _train(page: Page, effort: Effort, name: str) -> NetworkRuns:
    runs = [_train_once(page, effort, f"{name}_seed{seed}", name, seed=seed) for seed in SEEDS]
    histories = [run.history() for run in runs]
    return NetworkRuns(*STYLES[name], model_summary(name, SIZE), histories, list(map(_measure, runs)))


def _compare(page: Page, config: Config, lenet: NetworkRuns, resnet: NetworkRuns) -> None:
    images = lenet.evaluations[0].images
    page.section("recipe", config=config, size=SIZE, rates=RATES, images=images)
    page.table(
        "results",
        [
            [
                each.title,
                ", ".join(f"{100 * top1:.2f}" for top1 in each.top1.values),
                each.top1.percent(),
                each.summary.parameters,
                each.summary.macs,
                f"{each.images_per_second:,.0f}",
            ]
            for each in (lenet, resnet)
        ],
    )
    gain = SeedStatistics.of(ours - theirs for ours, theirs in zip(resnet.top1.values, lenet.top1.values, strict=True))
    _say_gain(page, gain)
    work = resnet.summary.macs / lenet.summary.macs
    page.say("speed", work=work, resnet=resnet, lenet=lenet, machine=describe_machine())
    page.record(lenet_top1=lenet.top1.values, lenet_images_per_second=lenet.images_per_second)
    page.record(resnet_top1=resnet.top1.values, resnet_images_per_second=resnet.images_per_second)
    page.record(gain=gain.mean, gain_margin=gain.ci95, gain_sign=gain.sign, test_images=images)


def _say_gain(page: Page, gain: SeedStatistics) -> None:
    verdict = page.text(("no_verdict", "resnet_ahead", "lenet_ahead")[gain.sign])
    page.say("gain", points=gain.points(), seeds=gain.runs, verdict=verdict)


def _show_curves(page: Page, lenet: NetworkRuns, resnet: NetworkRuns) -> None:
    page.heading("curves_heading")
    page.figure("curves", lambda: draw_curves((lenet, resnet)))
    first = {"lenet": lenet.median_losses(0), "resnet": resnet.median_losses(0)}
    last = {"lenet": lenet.median_losses(-1), "resnet": resnet.median_losses(-1)}
    page.say("losses", first=first, last=last)
    training, validation = first["resnet"]
    if validation > 1.5 * training:
        page.say("validation_lags")


def _show_mistakes(page: Page, test: Split, lenet: NetworkRuns, resnet: NetworkRuns) -> None:
    page.heading("mistakes_heading")
    page.figure("errors_by_class", lambda: draw_errors_by_class((lenet, resnet)))
    groups = {
        "hard for both": np.flatnonzero(lenet.hard & resnet.hard),
        "for LeNet alone": np.flatnonzero(lenet.hard & ~resnet.hard),
        "for resnet8 alone": np.flatnonzero(resnet.hard & ~lenet.hard),
    }
    both, only_lenet, only_resnet = map(len, groups.values())
    images = lenet.evaluations[0].images
    page.say("hard_examples", images=images, both=both, only_lenet=only_lenet, only_resnet=only_resnet)
    page.figure("hard_images", lambda: draw_hard_images(groups, test, (lenet, resnet)), images_per_row=IMAGES_PER_ROW)
    page.record(hard_for_both=both, hard_for_lenet=only_lenet, hard_for_resnet=only_resnet)


def _show_learning_rate(page: Page, effort: Effort, lenet: NetworkRuns) -> None:
    """Train LeNet once at the rate that suits a network with BatchNorm."""
    usual_rate, rate = RATES.values()
    page.section("larger_rate", seed=SEEDS[0], rate=rate)
    usual = lenet.evaluations[0]
    chance = float(np.bincount(usual.labels).max() / usual.images)
    try:
        run = _train_once(page, effort, "lenet_large_rate", "lenet", seed=SEEDS[0], learning_rate=rate)
        top1, loss = _measure(run).top1, f"{run.history()[-1].train_loss:.3f}"
    except RunFailure:
        top1, loss = chance, "not finite"
    page.values(
        f"learning rate {usual_rate:<5} test top-1 {usual.top1:.2%}   "
        f"training loss {lenet.histories[0][-1].train_loss:.3f}",
        f"learning rate {rate:<5} test top-1 {top1:.2%}   training loss {loss}",
        f"the most frequent class alone: {chance:.2%}",
    )
    if top1 < (usual.top1 + chance) / 2:
        page.say("not_learnt")
    else:
        page.say("learnt", difference=100 * (top1 - usual.top1), usual_rate=usual_rate, images=usual.images)
    page.record(large_rate_top1=top1, chance=chance)


@dataclass(frozen=True)
class NetworkRuns:
    """One network's runs, one for each seed: their histories, and their evaluations on the test split."""

    title: str
    colour: str
    summary: ModelSummary
    histories: list[list[EpochRecord]]
    evaluations: list[Evaluation]

    @property
    def top1(self) -> SeedStatistics:
        """On the test split, over the seeds."""
        return SeedStatistics.of([each.top1 for each in self.evaluations])

    @property
    def images_per_second(self) -> float:
        """Training speed, the median of all epochs of all runs."""
        return float(np.median([row.images_per_second for history in self.histories for row in history]))

    def median_losses(self, epoch: int) -> tuple[float, float]:
        """Return training and validation loss of one epoch, medians over the seeds."""
        rows = [history[epoch] for history in self.histories]
        return (
            float(np.median([row.train_loss for row in rows])),
            float(np.median([row.validation_loss for row in rows])),
        )

    @property
    def failures(self) -> np.ndarray:
        """Number of runs that misclassify each test image, int ``[N]``."""
        return np.sum([each.predicted != each.labels for each in self.evaluations], axis=0)

    @property
    def hard(self) -> np.ndarray:
        """Mask of the test images that most runs misclassify, bool ``[N]``."""
        return self.failures > len(self.evaluations) / 2

    def usual_prediction(self, index: int) -> str:
        """Return the most frequent prediction for a test image; for a hard one, the most frequent wrong one."""
        predicted = [each.predicted[index] for each in self.evaluations]
        if self.hard[index]:
            predicted = [label for label in predicted if label != self.evaluations[0].labels[index]]
        return self.evaluations[0].classes[np.bincount(predicted).argmax()]


def draw_curves(networks: Sequence[NetworkRuns]) -> Figure:
    """Draw every seed's losses and validation top-1 over the epochs."""
    figure, (loss, top1) = make_figure(10, 4.2, 1, 2)
    for each in networks:
        for index, history in enumerate(each.histories):
            epochs = [row.epoch for row in history]
            style: dict[str, Any] = {"color": each.colour, "linewidth": 1.6}
            label = each.title if index == 0 else None
            loss.plot(epochs, [row.train_loss for row in history], linestyle="--", alpha=0.7, **style)
            loss.plot(epochs, [row.validation_loss for row in history], label=label, **style)
            top1.plot(epochs, [100 * row.validation_top1 for row in history], label=label, **style)
    loss.set_yscale("log")
    plain_log_labels(loss.yaxis)
    for axes, label in ((loss, "loss (nats)"), (top1, "validation top-1 (%)")):
        axes.set(xlabel="epoch", ylabel=label)
    loss.legend(loc="upper right", title="dashed: training")
    top1.legend(loc="lower right")
    return figure


def draw_errors_by_class(networks: Sequence[NetworkRuns]) -> Figure:
    """Draw the number of errors in each class: mean and range over the seeds."""
    classes = networks[0].evaluations[0].classes
    places = np.arange(len(classes))
    figure, axes = make_figure(10, 3.8)
    width = 0.38
    for index, each in enumerate(networks):
        confusions = np.array([evaluation.confusion for evaluation in each.evaluations])
        wrong = confusions.sum(axis=2) - confusions.diagonal(axis1=1, axis2=2)
        means = wrong.mean(axis=0)
        ranges = [means - wrong.min(axis=0), wrong.max(axis=0) - means]
        bars = {"ecolor": INK, "elinewidth": 1.2, "capsize": 3}
        middle = places + (index - 0.5) * width
        axes.bar(middle, means, width, yerr=ranges, color=each.colour, error_kw=bars, label=each.title)
    axes.set_xticks(places, classes, rotation=0 if max(map(len, classes)) < 4 else 30)
    axes.set(xlabel="true class", ylabel="errors (images)")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(networks))
    return figure


def draw_hard_images(groups: Mapping[str, np.ndarray], test: Split, networks: Sequence[NetworkRuns]) -> Figure:
    """Draw a row of images for each group, with each network's most frequent prediction."""
    columns = min(IMAGES_PER_ROW, max(1, *map(len, groups.values())))
    width, height = 0.6 + 1.3 * columns, 0.2 + 1.75 * len(groups)
    figure, rows = make_figure(width, height, len(groups), columns, squeeze=False)
    for cells, (title, chosen) in zip(rows, groups.items(), strict=True):
        for axes in cells:
            without_axes(axes)
        cells[0].set_ylabel(title, fontsize=10)
        if len(chosen) == 0:
            cells[0].text(0.5, 0.5, "none", ha="center", va="center", transform=cells[0].transAxes)
        for axes, index in zip(cells, chosen[:columns], strict=False):
            _draw_predictions(axes, test.batch([index])[0], networks, int(index))
    return figure


def _draw_predictions(axes: Axes, image: np.ndarray, networks: Sequence[NetworkRuns], index: int) -> None:
    evaluation = networks[0].evaluations[0]
    lines = [f"is {evaluation.classes[evaluation.labels[index]]}"]
    lines += [f"{each.title}: {shortened(each.usual_prediction(index), 9)}" for each in networks]
    axes.imshow(image, interpolation="nearest")
    axes.set_title("\n".join(lines), fontsize=9, loc="center")
