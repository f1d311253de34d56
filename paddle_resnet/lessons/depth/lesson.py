"""What depth gains: parameters, multiply-adds, time and accuracy of the CIFAR networks from 20 layers on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import paddle
from matplotlib.figure import Figure

from paddle_resnet.lessons.common.network_costs import describe_machine, model_summary, time_interleaved
from paddle_resnet.lessons.common.runs import SeedResults, train_as_paper
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.framework.texts import Text
from paddle_resnet.models import create_model
from paddle_resnet.plots.curves import draw_values_and_mean
from paddle_resnet.plots.style import BLUE, ORANGE, make_figure
from paddle_resnet.training import SeedStatistics

PAPER = {20: (0.27, 8.75), 32: (0.46, 7.51), 44: (0.66, 7.17), 56: (0.85, 6.97), 110: (1.7, 6.43)}
"""Table 6 of He et al. 2015: millions of parameters, and test error in percent on CIFAR-10, by depth."""

DEPTHS = tuple(PAPER)
QUICK_DEPTHS, FULL_DEPTHS = (20, 32, 44), (20, 32, 44, 56)
SEEDS = (0, 1)
WIDTHS = (16, 32, 64)

TIMED_BATCH = 32
TIMED_ROUNDS = 5


def teach(page: Page, effort: Effort) -> None:
    """Count and time the networks, then train them."""
    _count(page)
    _time(page, effort)
    depths = FULL_DEPTHS if effort.full else QUICK_DEPTHS
    names = [f"resnet{depth}" for depth in depths]
    page.heading("training_heading")
    trained = train_as_paper(page, effort, names, SEEDS, epochs=(8, 12), recipe="recipe", networks=names)
    results = dict(zip(depths, trained.values(), strict=True))
    _show_errors(page, effort, results)
    _conclude(page, effort, results)


def closed_form_parameters(n: int) -> int:
    """Return the number of parameters of the network with 6n + 2 layers, option A and 10 classes."""
    stem, head = 3 * WIDTHS[0] * 9 + 2 * WIDTHS[0], WIDTHS[-1] * 10 + 10
    # A stage has 2n convolutions with BatchNorm; the first one of the second and third stage has half the inputs.
    stages = sum(2 * n * (9 * width * width + 2 * width) for width in WIDTHS)
    return stem + stages - sum(9 * width * width // 2 for width in WIDTHS[1:]) + head


def _count(page: Page) -> None:
    page.section("design")
    summaries = {depth: model_summary(f"resnet{depth}", 32) for depth in DEPTHS}
    page.table(
        "sizes",
        [
            (f"resnet{depth}", (depth - 2) // 6, each.parameters, PAPER[depth][0], f"{each.macs / 1e6:.1f}")
            for depth, each in summaries.items()
        ],
    )
    parameters, macs = zip(*((each.parameters, each.macs) for each in summaries.values()), strict=True)
    page.record(depths=DEPTHS, parameters=parameters, macs=macs)
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
    page.figure("costs", partial(draw_costs, milliseconds), timed_batch=TIMED_BATCH)
    ratio = milliseconds[DEPTHS[-1]] / milliseconds[DEPTHS[0]]
    page.record(milliseconds_an_image=list(milliseconds.values()), time_ratio=ratio)
    page.say(
        "time_and_depth",
        deepest=DEPTHS[-1],
        ratio=ratio,
        shallowest=DEPTHS[0],
        layers_ratio=(DEPTHS[-1] - 2) / (DEPTHS[0] - 2),
        rounds=rounds,
        machine=describe_machine(),
    )


def _show_errors(page: Page, effort: Effort, results: dict[int, SeedResults]) -> None:
    page.table(
        "errors_by_depth",
        [
            [
                f"resnet{depth}",
                closed_form_parameters((depth - 2) // 6),
                SeedStatistics.of(each.training_errors).percent(),
                SeedStatistics.of(each.test_errors).percent(),
                f"{np.mean(each.seconds):.0f}",
                PAPER[depth][1],
            ]
            for depth, each in results.items()
        ],
    )
    page.say("columns")
    page.values(effort.command("depth"))
    page.figure("errors", partial(draw_errors, results))


def _conclude(page: Page, effort: Effort, results: dict[int, SeedResults]) -> None:
    page.heading("verdict_heading")
    shallow, deep = min(results), max(results)
    changes = SeedStatistics.of(np.subtract(results[deep].test_errors, results[shallow].test_errors).tolist())
    slower = float(np.mean(results[deep].seconds) / np.mean(results[shallow].seconds))
    page.record(gains=[-change for change in changes.values], gain=-changes.mean, training_time_ratio=slower)
    significance = _significance(page, changes)
    page.say("verdict", shallow=shallow, deep=deep, change=100 * changes.mean, slower=slower, significance=significance)
    page.say("papers_gains")
    if not effort.full:
        page.say("quick_form")


def _significance(page: Page, changes: SeedStatistics) -> Text:
    """Say whether the change differs from zero by more than the seeds' variation."""
    key = "one_seed" if changes.runs == 1 else "significant" if changes.sign else "not_significant"
    return page.text(key, runs=changes.runs, interval=changes.points(decimals=2))


def draw_costs(milliseconds: Mapping[int, float]) -> Figure:
    """Draw parameters (millions) and time (milliseconds per image) over the layers."""
    figure, panels = make_figure(10, 3.8, 1, 2)
    millions = {depth: closed_form_parameters((depth - 2) // 6) / 1e6 for depth in milliseconds}
    measures = {"parameters (millions)": millions, "time (ms per image)": milliseconds}
    for axes, (label, values) in zip(panels, measures.items(), strict=True):
        axes.plot(list(values), list(values.values()), "o-", color=BLUE)
        axes.set_xticks(list(values))
        axes.set(xlim=(0, max(values) * 1.05), ylim=(0, max(values.values()) * 1.1), xlabel="layers", ylabel=label)
    return figure


def draw_errors(results: Mapping[int, SeedResults]) -> Figure:
    """Draw training and test error over the layers, a point for each seed."""
    figure, axes = make_figure(9, 4.2)
    for images, colour, marker in (("training", BLUE, "o"), ("test", ORANGE, "s")):
        errors = [100 * np.array(getattr(each, f"{images}_errors")) for each in results.values()]
        draw_values_and_mean(axes, list(results), errors, f"{images} images", colour, marker)
    axes.set_xticks(list(results))
    axes.set(xlabel="layers", ylabel="error after training (%)", ylim=(0, None))
    axes.legend(loc="best")
    return figure
