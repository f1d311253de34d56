"""What depth gains: parameters, multiply-adds, time and accuracy of the CIFAR networks from 20 layers on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import paddle
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paddle_resnet.config import Config
from paddle_resnet.lessons.common.network_costs import model_summary
from paddle_resnet.lessons.common.runs import (
    TrainingResult,
    choose_seeds,
    describe_images,
    note_differences_from_paper,
    train_seeds,
    update_settings,
)
from paddle_resnet.lessons.common.statistics import SeedStatistics, format_percent
from paddle_resnet.lessons.common.timing import describe_machine, time_interleaved
from paddle_resnet.lessons.framework.effort import Effort, lesson_command
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.framework.texts import Text
from paddle_resnet.models import create_model
from paddle_resnet.plots.curves import draw_values_and_mean
from paddle_resnet.plots.style import BLUE, ORANGE

PAPER = {20: (0.27, 8.75), 32: (0.46, 7.51), 44: (0.66, 7.17), 56: (0.85, 6.97), 110: (1.7, 6.43)}
"""Table 6 of He et al. 2015: millions of parameters, and test error in percent on CIFAR-10, by depth."""

DEPTHS = tuple(PAPER)
QUICK_DEPTHS, FULL_DEPTHS = (20, 32, 44), (20, 32, 44, 56)
SEEDS = (0, 1)
WIDTHS = (16, 32, 64)

TIMED_BATCH = 32
TIMED_ROUNDS = 5

QUICK: dict[str, Any] = {
    "data": {"source": "digits", "image_size": 8},
    "train": {"epochs": 8, "batch_size": 64, "learning_rate": 0.1, "weight_decay": 1e-4},
}
FULL: dict[str, Any] = {
    "data": {"source": "cifar10", "image_size": 32},
    "augment": {"pad": 4, "flip": True},
    "model": {"stem": "cifar_pool"},
    "train": {"epochs": 12, "batch_size": 128, "learning_rate": 0.1, "weight_decay": 1e-4, "cpu_precision": "auto"},
}


def teach(page: Page, effort: Effort) -> None:
    """Count and time the networks, then train them."""
    _count(page)
    _time(page, effort)
    settings, depths = (FULL, FULL_DEPTHS) if effort.full else (QUICK, QUICK_DEPTHS)
    seeds = choose_seeds(effort, SEEDS)
    config = Config.from_values(update_settings(settings, effort), effort.overrides)
    names = {f"resnet{depth}": depth for depth in depths}
    _describe_training(page, config, list(names), len(seeds))
    trained = train_seeds(page, effort, settings, list(names), seeds)
    results = {names[name]: trainings for name, trainings in trained.items()}
    _show_errors(page, effort, results)
    _conclude(page, effort, results)


def closed_form_parameters(n: int) -> int:
    """Return the number of parameters of the network with 6n + 2 layers, option A and 10 classes."""
    stem, head = 3 * WIDTHS[0] * 9 + 2 * WIDTHS[0], WIDTHS[-1] * 10 + 10
    # A stage has 2n convolutions with BatchNorm; the first one of the second and third stage has half the inputs.
    stages = sum(2 * n * (9 * width * width + 2 * width) for width in WIDTHS)
    return stem + stages - sum(9 * width * width // 2 for width in WIDTHS[1:]) + head


def _count(page: Page) -> None:
    page.heading("design_heading")
    page.say("design")
    summaries = {depth: model_summary(f"resnet{depth}", 32) for depth in DEPTHS}
    page.table(
        "sizes",
        [
            [
                f"resnet{depth}",
                (depth - 2) // 6,
                f"{summary.parameters:,}",
                PAPER[depth][0],
                f"{summary.macs / 1e6:.1f}",
            ]
            for depth, summary in summaries.items()
        ],
    )
    parameters = [summary.parameters for summary in summaries.values()]
    page.record(depths=DEPTHS, parameters=parameters, macs=[summary.macs for summary in summaries.values()])
    step = closed_form_parameters(2) - closed_form_parameters(1)
    page.say("linear_growth", step=step, last_stage=2 * (9 * 64 * 64 + 2 * 64) / step)


def _time(page: Page, effort: Effort) -> None:
    page.heading("time_heading")
    rounds = effort.epochs(TIMED_ROUNDS)
    networks = {depth: create_model(f"resnet{depth}") for depth in DEPTHS}
    images = np.random.default_rng(0).normal(size=(TIMED_BATCH, 3, 32, 32)).astype(np.float32)

    def predict(network: paddle.nn.Layer) -> np.ndarray:
        network.eval()
        with paddle.no_grad():
            return network(paddle.to_tensor(images)).numpy()

    calls = {depth: partial(predict, network) for depth, network in networks.items()}
    time_interleaved(calls, rounds=1)  # warm-up
    seconds = time_interleaved(calls, rounds)
    milliseconds = {depth: 1000 * float(np.median(seconds[depth])) / TIMED_BATCH for depth in DEPTHS}
    page.record(milliseconds_an_image=list(milliseconds.values()))
    page.figure(
        "costs",
        partial(draw_costs, {depth: closed_form_parameters((depth - 2) // 6) for depth in DEPTHS}, milliseconds),
        timed_batch=TIMED_BATCH,
    )
    ratio = milliseconds[DEPTHS[-1]] / milliseconds[DEPTHS[0]]
    page.record(time_ratio=ratio)
    page.say(
        "time_and_depth",
        deepest=DEPTHS[-1],
        ratio=ratio,
        shallowest=DEPTHS[0],
        layers_ratio=(DEPTHS[-1] - 2) / (DEPTHS[0] - 2),
        rounds=rounds,
        machine=describe_machine(),
    )


def _describe_training(page: Page, config: Config, names: list[str], seeds: int) -> None:
    page.heading("training_heading")
    epochs = config.train.epochs
    page.say("recipe", names=names, images=describe_images(page, config), epochs=epochs, config=config, seeds=seeds)
    note_differences_from_paper(page, config)


def _show_errors(page: Page, effort: Effort, results: dict[int, list[TrainingResult]]) -> None:
    page.table(
        "errors_by_depth",
        [
            [
                f"resnet{depth}",
                f"{closed_form_parameters((depth - 2) // 6):,}",
                format_percent([training.training_error for training in trainings]),
                format_percent([training.test_error for training in trainings]),
                f"{np.mean([training.seconds for training in trainings]):.0f}",
                PAPER[depth][1],
            ]
            for depth, trainings in results.items()
        ],
    )
    page.say("columns")
    page.values(lesson_command("depth", effort))
    page.figure("errors", partial(draw_errors, results))


def _conclude(page: Page, effort: Effort, results: dict[int, list[TrainingResult]]) -> None:
    page.heading("verdict_heading")
    shallow, deep = min(results), max(results)
    gains = np.array(
        [first.test_error - last.test_error for first, last in zip(results[shallow], results[deep], strict=True)]
    )
    slower = np.mean([training.seconds for training in results[deep]]) / np.mean(
        [training.seconds for training in results[shallow]]
    )
    page.record(gains=gains.tolist(), gain=float(gains.mean()), training_time_ratio=float(slower))
    page.say(
        "verdict",
        shallow=shallow,
        deep=deep,
        change=-100 * gains.mean(),
        slower=slower,
        significance=_significance(page, gains),
    )
    page.say("papers_gains")
    if not effort.full:
        page.say("quick_form")


def _significance(page: Page, gains: np.ndarray) -> Text:
    """Say whether the gain differs from zero by more than the seeds' variation."""
    if len(gains) < 2:
        return page.text("one_seed")
    gain = SeedStatistics.of(gains.tolist())
    interval = f"{-100 * gain.mean:+.2f} ± {100 * gain.ci95:.2f}"
    return page.text("not_significant" if gain.sign == 0 else "significant", runs=gain.runs, interval=interval)


def draw_costs(parameters: Mapping[int, int], milliseconds: Mapping[int, float]) -> Figure:
    """Draw parameters (millions) and time (milliseconds per image) over the layers."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    _line(left, {depth: count / 1e6 for depth, count in parameters.items()}, "parameters (millions)")
    _line(right, milliseconds, "time (ms per image)")
    return figure


def draw_errors(results: Mapping[int, Sequence[TrainingResult]]) -> Figure:
    """Draw training and test error over the layers, a point for each seed."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    training = [[100 * run.training_error for run in runs] for runs in results.values()]
    test = [[100 * run.test_error for run in runs] for runs in results.values()]
    draw_values_and_mean(axes, list(results), training, "training images", BLUE, "o")
    draw_values_and_mean(axes, list(results), test, "test images", ORANGE, "s")
    axes.set_xticks(list(results))
    axes.set(xlabel="layers", ylabel="error after training (%)", ylim=(0, None))
    axes.grid(True, axis="y")
    axes.legend(loc="best")
    return figure


def _line(axes: Axes, values: Mapping[int, float], label: str) -> None:
    axes.plot(list(values), list(values.values()), "o-", color=BLUE)
    axes.set_xticks(list(values))
    axes.set(xlim=(0, max(values) * 1.05), ylim=(0, max(values.values()) * 1.1), xlabel="layers", ylabel=label)
    axes.grid(True, axis="y")
