"""LeNet-5 beside a ResNet of about as many parameters, on the same images."""

from __future__ import annotations

from typing import Any

import numpy as np

from paddle_resnet.data import Split
from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.evaluation import NetworkScorer, measure_split
from paddle_resnet.lessons.common.network_costs import format_shape, model_summary
from paddle_resnet.lessons.common.runs import train_run, update_settings
from paddle_resnet.lessons.common.timing import describe_machine
from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import RUNS, Page
from paddle_resnet.lessons.lenet.seed_comparison import (
    IMAGES_PER_ROW,
    NetworkRuns,
    draw_curves,
    draw_errors_by_class,
    draw_hard_images,
)
from paddle_resnet.models.summary import ModelSummary
from paddle_resnet.plots.style import BLUE, ORANGE
from paddle_resnet.training import RunFolder, SeedStatistics

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
OWN_SETTINGS = ("train.seed", "train.learning_rate")
COLOURS = {"lenet": ORANGE, "resnet8": BLUE}
TITLES = {"lenet": "LeNet-5", "resnet8": "resnet8"}


def teach(page: Page, effort: Effort) -> None:
    """Count LeNet's layers, train it and a ResNet with several seeds, and compare their errors."""
    _check_overrides(effort)
    _show_layers(page)
    networks = {name: _train(page, effort, name) for name in RATES}
    _compare(page, networks)
    _show_curves(page, networks)
    _show_mistakes(page, networks, _first_run(page).splits().test)
    _show_learning_rate(page, effort, networks["lenet"])


def _check_overrides(effort: Effort) -> None:
    """Raise `UsageError` if an override changes the seeds or learning rates that the comparison needs."""
    for override in effort.overrides:
        if override.partition("=")[0] in OWN_SETTINGS:
            raise UsageError(f"-o {override}: the lesson lenet compares by its own {' and '.join(OWN_SETTINGS)}")


def _show_layers(page: Page) -> None:
    page.heading("layers_heading")
    lenet, resnet = model_summary("lenet", SIZE), model_summary("resnet8", SIZE)
    page.say("lenet5")
    page.table(
        "layers",
        [
            (
                f"{row.name} ({row.kind})",
                format_shape(row.output_shape[1:], "x"),
                f"{row.parameters:,}",
                f"{row.macs:,}",
            )
            for row in lenet.leaves()
            if row.parameters
        ],
    )
    shares = {name: _linear_share(model_summary(name, SIZE)) for name in RATES}
    page.say("shares", lenet=lenet, shares=shares, resnet=resnet, work=resnet.macs / lenet.macs)
    page.record(lenet_parameters=lenet.parameters, lenet_macs=lenet.macs, lenet_linear_share=shares["lenet"][0])
    page.record(resnet_parameters=resnet.parameters, resnet_macs=resnet.macs)


def _linear_share(summary: ModelSummary) -> tuple[float, float]:
    """Return the linear layers' share of the parameters and of the multiply-adds."""
    linear = [row for row in summary.leaves() if row.kind == "Linear"]
    parameters, macs = sum(row.parameters for row in linear), sum(row.macs for row in linear)
    return parameters / summary.parameters, macs / summary.macs


def _first_run(page: Page) -> RunFolder:
    return RunFolder.open(page.folder / RUNS / f"lenet_seed{SEEDS[0]}")


def _settings(effort: Effort, name: str, seed: int) -> dict[str, Any]:
    """Return a run's config: the same for both networks except for the learning rate."""
    return update_settings(FULL if effort.full else QUICK, effort, name=name, seed=seed, learning_rate=RATES[name])


def _train(page: Page, effort: Effort, name: str) -> NetworkRuns:
    """Train with every seed and measure each run's best checkpoint on the test split."""
    runs = [train_run(page, effort, f"{name}_seed{seed}", _settings(effort, name, seed)) for seed in SEEDS]
    evaluations = [measure_split(run, NetworkScorer(run.load_network(), run.normalize())) for run in runs]
    return NetworkRuns(
        name, TITLES[name], COLOURS[name], model_summary(name, SIZE), [run.history() for run in runs], evaluations
    )


def _compare(page: Page, networks: dict[str, NetworkRuns]) -> None:
    page.heading("comparison_heading")
    lenet, resnet = networks["lenet"], networks["resnet8"]
    config = _first_run(page).config
    images = lenet.evaluations[0].images
    page.say(
        "recipe",
        source=config.data.source,
        size=SIZE,
        epochs=config.train.epochs,
        lenet_rate=RATES["lenet"],
        resnet_rate=RATES["resnet8"],
        images=images,
    )
    page.table(
        "results",
        [
            [
                each.title,
                ", ".join(f"{100 * run.top1:.2f}" for run in each.evaluations),
                each.top1.percent(),
                f"{each.summary.parameters:,}",
                f"{each.summary.macs:,}",
                f"{each.images_per_second:,.0f}",
            ]
            for each in networks.values()
        ],
    )
    gain = SeedStatistics.of(
        [ours.top1 - theirs.top1 for ours, theirs in zip(resnet.evaluations, lenet.evaluations, strict=True)]
    )
    _say_gain(page, gain)
    work = resnet.summary.macs / lenet.summary.macs
    page.say("speed", work=work, resnet=resnet, lenet=lenet, machine=describe_machine())
    for key, runs in (("lenet", lenet), ("resnet", resnet)):
        page.record(**{f"{key}_top1": [each.top1 for each in runs.evaluations]})
        page.record(**{f"{key}_images_per_second": runs.images_per_second})
    page.record(gain=gain.mean, gain_margin=gain.ci95, gain_sign=gain.sign, test_images=images)


def _say_gain(page: Page, gain: SeedStatistics) -> None:
    verdict = page.text(("no_verdict", "resnet_ahead", "lenet_ahead")[gain.sign])
    page.say("gain", points=gain.points(), seeds=gain.runs, verdict=verdict)


def _show_curves(page: Page, networks: dict[str, NetworkRuns]) -> None:
    page.heading("curves_heading")
    page.figure("curves", lambda: draw_curves(list(networks.values())))
    losses = {name: _median_losses(each) for name, each in networks.items()}
    (lenet_train, lenet_validation), (resnet_train, resnet_validation) = losses["lenet"][0], losses["resnet8"][0]
    page.say(
        "losses",
        lenet_train=lenet_train,
        resnet_train=resnet_train,
        lenet_validation=lenet_validation,
        resnet_validation=resnet_validation,
        lenet_last=losses["lenet"][-1],
        resnet_last=losses["resnet8"][-1],
    )
    if resnet_validation > 1.5 * resnet_train:
        page.say("validation_lags")


def _median_losses(runs: NetworkRuns) -> list[tuple[float, float]]:
    """Return training and validation loss by epoch, medians over the seeds."""
    return [
        (float(np.median([row.train_loss for row in rows])), float(np.median([row.validation_loss for row in rows])))
        for rows in zip(*runs.histories, strict=True)
    ]


def _show_mistakes(page: Page, networks: dict[str, NetworkRuns], test: Split) -> None:
    page.heading("mistakes_heading")
    lenet, resnet = networks["lenet"], networks["resnet8"]
    classes = lenet.evaluations[0].classes
    page.figure("errors_by_class", lambda: draw_errors_by_class(list(networks.values()), classes))
    both = np.flatnonzero(lenet.hard & resnet.hard)
    only_lenet = np.flatnonzero(lenet.hard & ~resnet.hard)
    only_resnet = np.flatnonzero(resnet.hard & ~lenet.hard)
    page.say(
        "hard_examples",
        images=len(lenet.failures),
        both=len(both),
        only_lenet=len(only_lenet),
        only_resnet=len(only_resnet),
    )
    groups = {"hard for both": both, "for LeNet alone": only_lenet, "for resnet8 alone": only_resnet}
    page.figure(
        "hard_images", lambda: draw_hard_images(groups, test, list(networks.values())), images_per_row=IMAGES_PER_ROW
    )
    page.record(hard_for_both=len(both), hard_for_lenet=len(only_lenet), hard_for_resnet=len(only_resnet))


def _show_learning_rate(page: Page, effort: Effort, lenet: NetworkRuns) -> None:
    """Train LeNet once at the rate that suits a network with BatchNorm."""
    page.heading("learning_rate_heading")
    settings = _settings(effort, "lenet", SEEDS[0])
    settings["train"]["learning_rate"] = RATES["resnet8"]
    page.say("larger_rate", seed=SEEDS[0], resnet_rate=RATES["resnet8"])
    chance = float(np.bincount(lenet.evaluations[0].labels).max() / lenet.evaluations[0].images)
    try:
        run = train_run(page, effort, "lenet_large_rate", settings)
        top1 = measure_split(run, NetworkScorer(run.load_network(), run.normalize())).top1
        loss = f"{run.history()[-1].train_loss:.3f}"
    except RunFailure:
        top1, loss = chance, "not finite"
    usual = lenet.evaluations[0].top1
    usual_loss = f"{lenet.histories[0][-1].train_loss:.3f}"
    page.values(
        f"learning rate {RATES['lenet']:<5} test top-1 {usual:.2%}   training loss {usual_loss}",
        f"learning rate {RATES['resnet8']:<5} test top-1 {top1:.2%}   training loss {loss}",
        f"the most frequent class alone: {chance:.2%}",
    )
    if top1 < (usual + chance) / 2:
        page.say("not_learnt")
    else:
        page.say(
            "learnt", difference=100 * (top1 - usual), lenet_rate=RATES["lenet"], images=lenet.evaluations[0].images
        )
    page.record(large_rate_top1=top1, chance=chance)
