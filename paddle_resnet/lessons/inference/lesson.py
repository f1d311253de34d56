"""Export a trained network, and compare its predictions and its speed with the dynamic graph's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import paddle
from matplotlib.figure import Figure
from paddle import nn

from paddle_resnet import paddle_compat, runtime
from paddle_resnet.data import Normalize
from paddle_resnet.evaluation import Evaluation, NetworkScorer, measure_split
from paddle_resnet.exporting import ExportReport, export
from paddle_resnet.inference import InferenceConfig, Predictor
from paddle_resnet.lessons.common.network_costs import describe_machine, time_interleaved
from paddle_resnet.lessons.common.runs import image_settings, read_images, train_run
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.plots.style import BLUE, GREEN, GREY, ORANGE, label_log_axis, make_figure, plain_log_labels
from paddle_resnet.training import Run

ROUNDS = 15
DYNAMIC, EXPORTED, ONE_THREAD = "dynamic graph", "exported", "exported, 1 thread"
STYLES = {
    DYNAMIC: {"color": ORANGE, "marker": "o"},
    EXPORTED: {"color": BLUE, "marker": "s"},
    ONE_THREAD: {"color": GREEN, "marker": "^"},
}
BATCHES = (1, 8, 32, 128)
FIRST_CALLS = 60

Times = Mapping[str, np.ndarray]  # seconds of calls in their order, by form
QUICK = {"epochs": 6, "batch_size": 64, "learning_rate": 0.1}
FULL = {"epochs": 5, "batch_size": 128, "learning_rate": 0.2}


def teach(page: Page, effort: Effort) -> None:
    """Train and export a network, compare the predictions, then the times."""
    settings = {**image_settings(effort, size=16, pad=2), "train": FULL if effort.full else QUICK}
    run = train_run(page, effort, "network", settings, "resnet20")
    report = export(run)
    dynamic = measure_split(run, NetworkScorer(run.load_network(), run.normalize()))
    with Predictor(report.path) as predictor:
        _show_export(page, run, report, predictor.config)
        exported = measure_split(run, predictor)
    _compare_predictions(page, dynamic, exported)
    images, _ = read_images(run, run.splits().test)
    _show_folding(page, run, images[:64])
    _show_preprocessing(page, run, images[0])
    _show_times(page, run, images, rounds=effort.epochs(ROUNDS))
    page.heading("pitfalls_heading")
    for pitfall in ("threads", "interleaving", "scope", "asynchronous_gpu"):
        page.say(pitfall)


def _show_export(page: Page, run: Run, report: ExportReport, config: InferenceConfig) -> None:
    page.section("export", run=run)
    files = [f"{path.name:20} {path.stat().st_size:>9,} bytes" for path in report.files]
    page.values("report = export(run)", *files)
    side = config.input.image_size
    page.values(
        f"input    {config.input.dtype} [N, {side}, {side}, 3], raw pixels",
        f"output   {config.output} [N, {len(config.classes)}]",
    )
    page.say("graph")


def _compare_predictions(page: Page, dynamic: Evaluation, exported: Evaluation) -> None:
    page.heading("same_heading")
    agreement = float(np.mean(dynamic.predicted == exported.predicted))
    identical = float(np.mean(dynamic.scores == exported.scores))
    differences = np.abs(dynamic.scores - exported.scores).max(axis=1)  # of an image's probabilities
    second, best = np.sort(dynamic.scores, axis=1)[:, -2:].T
    leads = best - second
    difference, closest = float(differences.max()), float(leads.min())
    shares = [f"{share:.2%}" for share in (agreement, dynamic.top1, exported.top1)]
    page.table("comparison", [[dynamic.images, f"{difference:.1e}", f"{identical:.1%}", *shares, f"{closest:.1e}"]])
    page.say("rounding", float32=np.finfo(np.float32))
    if closest > 2 * difference:
        page.say("no_class_changes", closest=closest, lead_ratio=closest / difference)
    else:
        close = int(np.sum(leads <= 2 * difference))
        page.say("classes_may_change", close=close)
    page.figure("differences", lambda: _draw_differences(differences, closest))
    page.record(
        images=dynamic.images,
        largest_difference=difference,
        agreement=agreement,
        smallest_lead=closest,
        top1_dynamic=dynamic.top1,
        top1_exported=exported.top1,
    )


def _draw_differences(differences: np.ndarray, closest: float) -> Figure:
    figure, axes = make_figure(9, 3.6)
    decades = np.arange(-10, 1)
    # The first bar includes differences of zero.
    counts, _ = np.histogram(np.log10(np.clip(differences, 10.0 ** decades[0], 1)), decades)
    axes.bar(decades[:-1] + 0.5, counts, width=0.92, color=BLUE)
    axes.axvline(np.log10(np.finfo(np.float32).eps), color=GREY, linestyle=":", label="spacing of float32 next to 1")
    half = max(closest / 2, 10.0 ** decades[0])
    axes.axvline(np.log10(half), color=ORANGE, linestyle="--", label="half of the smallest lead")
    axes.set_xticks(decades, ["0", *[f"1e{decade}" for decade in decades[1:-1]], "1"])
    axes.set(xlabel="largest difference of an image's probabilities", ylabel="test images")
    figure.legend(loc="outside upper right", ncols=2)
    return figure


def _show_folding(page: Page, run: Run, images: np.ndarray) -> None:
    """Fold the first BatchNorm into the convolution before it."""
    network = run.load_network()
    x = run.normalize()(paddle.to_tensor(images))
    weight, shift = fold_batch_norm(network.conv1, network.bn1)
    with paddle.no_grad():
        two_layers = network.bn1(network.conv1(x))
        settings = paddle_compat.convolution_settings(network.conv1)
        one_layer = nn.functional.conv2d(x, weight, shift, stride=settings.stride, padding=settings.padding)
    difference = float((two_layers - one_layer).abs().max().item())
    largest = float(two_layers.abs().max().item())
    page.section("folding")
    page.values(
        "factor = gamma / sqrt(running variance + epsilon)",
        "weight' = weight * factor",
        "bias'   = beta - running mean * factor",
    )
    page.values(
        f"conv1 and bn1 against the one convolution, on {len(images)} images:",
        f"largest value {largest:.3f}, largest difference {difference:.1e}",
    )
    page.say("folded", relative=difference / largest)
    page.record(folding_difference=difference, folding_largest=largest)


def fold_batch_norm(convolution: nn.Conv2D, normalization: nn.BatchNorm2D) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Return weight and bias of the convolution that equals both layers in evaluation mode."""
    epsilon = paddle_compat.batch_norm_settings(normalization).epsilon
    factor = normalization.weight / (normalization._variance + epsilon).sqrt()
    return convolution.weight * factor.reshape([-1, 1, 1, 1]), normalization.bias - normalization._mean * factor


def _show_preprocessing(page: Page, run: Run, image: np.ndarray) -> None:
    """Measure the accuracy with mistakes in the preprocessing."""
    right = run.normalize()
    network = run.load_network()
    identity = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    # `Normalize` divides by 255: (x / 255 - mean / 255) / (std / 255) is (x - mean) / std.
    mean, std = ([each / 255 for each in values] for values in (right.mean, right.std))
    slips = {"right": right, "not_normalized": Normalize(*identity), "not_divided": Normalize(mean, std)}
    found = [measure_split(run, NetworkScorer(network, normalize)) for normalize in slips.values()]
    top1 = [each.top1 for each in found]
    page.section("slips")
    best = [f"{each.scores.max(axis=1).mean():.2f}" for each in found]
    page.table(
        "preprocessing",
        [["top-1", *(f"{each:.2%}" for each in top1)], [page.text("mean_of_best"), *best]],
        columns=[page.text(slip) for slip in slips],
    )
    page.record(top1_by_preprocessing=top1)
    page.say("confidence", raw=image.nbytes, ready=image.size * 4)


def _show_times(page: Page, run: Run, images: np.ndarray, rounds: int) -> None:
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
    axes.legend(loc="upper left")
    return figure
