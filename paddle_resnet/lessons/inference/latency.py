"""Latency of the exported network and of the dynamic graph."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from paddle_resnet import runtime
from paddle_resnet.evaluation import NetworkScorer
from paddle_resnet.inference import Predictor
from paddle_resnet.lessons.common.timing import describe_machine, time_interleaved
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.plots.style import BLUE, GREEN, ORANGE, label_log_axis, make_figure, plain_log_labels
from paddle_resnet.training import RunFolder

DYNAMIC, EXPORTED, ONE_THREAD = "dynamic graph", "exported", "exported, 1 thread"
STYLES = {
    DYNAMIC: {"color": ORANGE, "marker": "o"},
    EXPORTED: {"color": BLUE, "marker": "s"},
    ONE_THREAD: {"color": GREEN, "marker": "^"},
}
BATCHES = (1, 8, 32, 128)
FIRST_CALLS = 60

Times = Mapping[str, np.ndarray]
"""Seconds of calls in their order, by form."""


def show_times(page: Page, run: RunFolder, images: np.ndarray, rounds: int) -> None:
    """Time both forms on uint8 images ``[N, S, S, 3]``: the first calls, then `rounds` for each batch size."""
    page.heading("speed_heading")
    threads = runtime.prepare_process().threads
    network = NetworkScorer(run.load_network(), run.normalize())
    with (
        Predictor(run.inference_path, batch_size=max(BATCHES)) as usual,
        Predictor(run.inference_path, threads=1, batch_size=max(BATCHES)) as single,
    ):
        forms = {DYNAMIC: network.scores, EXPORTED: usual.scores}
        if runtime.thread_count(threads) != 1:
            forms[ONE_THREAD] = single.scores

        def measure(batch: np.ndarray, rounds: int) -> dict[str, np.ndarray]:
            return time_interleaved({name: partial(scores, batch) for name, scores in forms.items()}, rounds)

        first = measure(images[:1], FIRST_CALLS)
        _show_first_calls(page, first, f"{threads.variable}={threads.value}")
        steady = {}
        for size in BATCHES:
            batch = np.resize(images, (size, *images.shape[1:]))
            measure(batch, 1)  # warm-up for the new shape
            steady[size] = measure(batch, rounds)
    _show_steady(page, steady, rounds)


def _show_first_calls(page: Page, first: Times, threads: str) -> None:
    opening = {name: 1000 * float(seconds[0]) for name, seconds in first.items()}
    later = {name: 1000 * float(np.median(seconds[FIRST_CALLS // 2 :])) for name, seconds in first.items()}
    hasty = 1000 * float(np.mean(first[EXPORTED][:10]))
    page.say("first_call", calls=FIRST_CALLS, threads=threads, opening=opening, later=later, hasty=hasty)
    page.say("warm_up" if opening[EXPORTED] > 2 * later[EXPORTED] else "no_warm_up")
    page.figure("first_calls", lambda: _draw_first_calls(first))
    page.record(ways=list(first), first_call_ms=list(opening.values()))
    page.record(later_median_ms=list(later.values()), mean_of_first_ten_ms=hasty)


def _draw_first_calls(first: Times) -> Figure:
    figure, axes = make_figure(9, 3.8)
    for name, seconds in first.items():
        calls = np.arange(1, len(seconds) + 1)
        axes.plot(calls, 1000 * seconds, label=name, markersize=3, linewidth=1, **STYLES[name])
    axes.set_yscale("log")
    plain_log_labels(axes.yaxis)
    axes.set(xlabel="call", ylabel="time (ms)")
    axes.grid(True, axis="y")
    axes.legend(loc="upper right")
    return figure


def _show_steady(page: Page, steady: Mapping[int, Times], rounds: int) -> None:
    medians = {size: [1000 * float(np.median(each)) for each in times.values()] for size, times in steady.items()}
    page.say("steady", rounds=rounds, machine=describe_machine())
    page.table(
        "medians",
        [[size, *(f"{median:.2f}" for median in of_size)] for size, of_size in medians.items()],
        columns=[page.text("milliseconds", form=page.text(name)) for name in steady[BATCHES[0]]],
    )
    for size in (BATCHES[0], BATCHES[-1]):
        _say_verdict(page, size, steady[size])
    page.figure("throughput", lambda: _draw_throughput(steady))
    page.record(**{f"median_ms_batch_{size}": of_size for size, of_size in medians.items()})


def _say_verdict(page: Page, size: int, times: Times) -> None:
    """Say which form is faster at a batch size, or that the middle halves of their times overlap."""
    verdict = "no_clear_difference"
    if np.percentile(times[EXPORTED], 75) < np.percentile(times[DYNAMIC], 25):
        verdict = "export_pays"
    elif np.percentile(times[DYNAMIC], 75) < np.percentile(times[EXPORTED], 25):
        verdict = "export_does_not_pay"
    page.say(verdict, size=size, ratio=np.median(times[EXPORTED]) / np.median(times[DYNAMIC]))


def _draw_throughput(steady: Mapping[int, Times]) -> Figure:
    figure, axes = make_figure(9, 4)
    for name in steady[BATCHES[0]]:
        slow, middle, fast = np.array(
            [size / np.percentile(times[name], (75, 50, 25)) for size, times in steady.items()]
        ).T
        axes.errorbar(list(steady), middle, [middle - slow, fast - middle], capsize=3, label=name, **STYLES[name])
    axes.set(xscale="log", yscale="log")
    plain_log_labels(axes.yaxis)
    label_log_axis(axes.xaxis, list(steady))
    axes.set(xlabel="images per call", ylabel="images / s")
    axes.grid(True, axis="y")
    axes.legend(loc="upper left")
    return figure
