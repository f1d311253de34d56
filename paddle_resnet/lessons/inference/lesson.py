"""Export a trained network, and compare its predictions and its speed with the dynamic graph's."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
from matplotlib.figure import Figure
from paddle import nn

from paddle_resnet import paddle_compat
from paddle_resnet.data import Normalize
from paddle_resnet.evaluation import Evaluation, NetworkScorer, measure_split
from paddle_resnet.export import ExportReport, export_run
from paddle_resnet.inference import InferenceConfig, Predictor
from paddle_resnet.lessons.common.runs import read_images, train_run, update_settings
from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.inference.latency import show_times
from paddle_resnet.plots.style import BLUE, GREY, ORANGE, make_figure
from paddle_resnet.training import RunFolder

ROUNDS = 15

QUICK: dict[str, Any] = {
    "data": {"source": "digits", "image_size": 16},
    "augment": {"pad": 2},
    "train": {"epochs": 6, "batch_size": 64, "learning_rate": 0.1},
}
FULL: dict[str, Any] = {
    "data": {"source": "cifar10", "image_size": 32},
    "augment": {"pad": 4, "flip": True},
    "train": {"epochs": 5, "batch_size": 128, "learning_rate": 0.2},
}


def teach(page: Page, effort: Effort) -> None:
    """Train and export a network, compare the predictions, then the times."""
    settings = update_settings(FULL if effort.full else QUICK, effort, name="resnet20")
    run = train_run(page, effort, "network", settings)
    report = export_run(run)
    dynamic = measure_split(run, NetworkScorer(run.load_network(), run.normalize()))
    with Predictor(report.path) as predictor:
        _show_export(page, run, report, predictor.config)
        exported = measure_split(run, predictor)
    _compare_predictions(page, dynamic, exported)
    images, _ = read_images(run, run.splits().test)
    _show_folding(page, run, images[:64])
    _show_preprocessing(page, run, images[0])
    show_times(page, run, images, rounds=effort.epochs(ROUNDS))
    page.heading("pitfalls_heading")
    for pitfall in ("threads", "interleaving", "scope", "asynchronous_gpu"):
        page.say(pitfall)


def _show_export(page: Page, run: RunFolder, report: ExportReport, config: InferenceConfig) -> None:
    page.heading("export_heading")
    page.say("export", run=run)
    files = [f"{path.name:20} {path.stat().st_size:>9,} bytes" for path in report.files]
    page.values("report = export_run(run)", *files)
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
    page.table(
        "comparison",
        [[f"{dynamic.images:,}", f"{difference:.1e}", f"{identical:.1%}", *shares, f"{closest:.1e}"]],
    )
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
    axes.grid(True, axis="y")
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper right", ncols=2)
    return figure


def _show_folding(page: Page, run: RunFolder, images: np.ndarray) -> None:
    """Fold the first BatchNorm into the convolution before it."""
    page.heading("folding_heading")
    network = run.load_network()
    x = run.normalize()(paddle.to_tensor(images))
    weight, shift = fold_batch_norm(network.conv1, network.bn1)
    with paddle.no_grad():
        two_layers = network.bn1(network.conv1(x))
        settings = paddle_compat.convolution_settings(network.conv1)
        one_layer = nn.functional.conv2d(x, weight, shift, stride=settings.stride, padding=settings.padding)
    difference = float((two_layers - one_layer).abs().max().item())
    largest = float(two_layers.abs().max().item())
    page.say("folding")
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


def _show_preprocessing(page: Page, run: RunFolder, image: np.ndarray) -> None:
    """Measure the accuracy with mistakes in the preprocessing."""
    page.heading("preprocessing_heading")
    right = run.normalize()
    network = run.load_network()
    identity = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    # `Normalize` divides by 255: (x / 255 - mean / 255) / (std / 255) is (x - mean) / std.
    mean, std = ([each / 255 for each in values] for values in (right.mean, right.std))
    slips = {"right": right, "not_normalized": Normalize(*identity), "not_divided": Normalize(mean, std)}
    found = [measure_split(run, NetworkScorer(network, normalize)) for normalize in slips.values()]
    top1 = [each.top1 for each in found]
    page.say("slips")
    best = [f"{each.scores.max(axis=1).mean():.2f}" for each in found]
    page.table(
        "preprocessing",
        [["top-1", *(f"{each:.2%}" for each in top1)], [page.text("mean_of_best"), *best]],
        columns=[page.text(slip) for slip in slips],
    )
    page.record(top1_by_preprocessing=top1)
    page.say("confidence", raw=image.nbytes, ready=image.size * 4)
