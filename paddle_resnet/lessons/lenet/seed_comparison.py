"""Networks trained with several seeds: their curves, their errors by class, and the images they get wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from paddle_resnet.data import Split
from paddle_resnet.evaluation import Evaluation
from paddle_resnet.models.summary import ModelSummary
from paddle_resnet.plots.style import INK, make_figure, plain_log_labels, shortened, without_axes
from paddle_resnet.training import EpochRecord, SeedStatistics

IMAGES_PER_ROW = 8  # of a row at most


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
