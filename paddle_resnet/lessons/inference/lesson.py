"""Export a trained network, and compare its predictions and its speed with the dynamic graph's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from matplotlib.figure import Figure
from paddle import nn

from paddle_resnet import paddle_compat
from paddle_resnet.data import Normalize
from paddle_resnet.evaluation import NetworkScorer
from paddle_resnet.export import ExportReport, export_run
from paddle_resnet.inference import Predictor
from paddle_resnet.lessons.common.runs import read_images, train_run, update_settings
from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import Page, Text
from paddle_resnet.lessons.inference.latency import show_pitfalls, show_times
from paddle_resnet.plots.style import BLUE, GREY, ORANGE
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


@dataclass(frozen=True)
class Predictions:
    """The test split, and its probabilities by the dynamic and the exported network, float32 ``[N, classes]``."""

    images: np.ndarray
    labels: np.ndarray
    dynamic: np.ndarray
    exported: np.ndarray

    @property
    def difference(self) -> float:
        """Largest absolute difference of a probability."""
        return float(np.abs(self.dynamic - self.exported).max())

    @property
    def margins(self) -> np.ndarray:
        """Difference of the dynamic network's two highest probabilities for each image, ``[N]``."""
        second, best = np.sort(self.dynamic, axis=1)[:, -2:].T
        return best - second


def teach(page: Page, effort: Effort) -> None:
    """Train and export a network, compare the predictions, then the times."""
    settings = update_settings(FULL if effort.full else QUICK, effort, name="resnet20")
    run = train_run(page, effort, "network", settings)
    report = export_run(run)
    _show_export(page, run, report)
    predictions = _predict(run)
    _compare_predictions(page, predictions)
    _show_folding(page, run, predictions)
    _show_preprocessing(page, run, predictions)
    show_times(page, run, predictions.images, rounds=effort.epochs(ROUNDS))
    show_pitfalls(page)


def _show_export(page: Page, run: RunFolder, report: ExportReport) -> None:
    page.heading("What is exported", "导出了什么")
    page.say(
        f"""A trained network in Python is a program whose layers call operators one by one, in the mode last set. An
        export traces it once in evaluation mode into a graph in a file. Paddle Inference can optimise this graph and
        run it without the model's code. Here {run.config.model.name}, trained for {run.config.train.epochs} epochs on
        {run.config.data.source}:""",
        f"""Python 里训练好的网络是一段程序：各层逐个调用算子，处于训练还是评估模式要看当时的设置。导出则在评估模式下把
        它追踪一遍，写成文件里的计算图；Paddle Inference 可以重新安排这张图，不需要原来的代码就能运行。这里是
        在 {run.config.data.source} 上训练了 {run.config.train.epochs} 轮的 {run.config.model.name}：""",
    )
    with Predictor(report.path) as predictor:
        config = predictor.config
    page.values(
        "report = export_run(run)", *[f"{path.name:20} {path.stat().st_size:>9,} bytes" for path in report.files]
    )
    page.values(
        f"input    {config.input.dtype} [N, {config.input.image_size}, {config.input.image_size}, 3], raw pixels",
        f"output   {config.output} [N, {len(config.classes)}]",
    )
    page.say(
        """The graph begins with the normalisation and ends with the softmax: a deployed model takes pixels and returns
        probabilities.""",
        "图的开头是归一化，结尾是 softmax：部署时只需给出像素，就得到概率。",
    )


def _predict(run: RunFolder) -> Predictions:
    images, labels = read_images(run, run.splits().test)
    dynamic = _scores(NetworkScorer(run.load_network(), run.normalize()), images)
    with Predictor(run.inference_path) as predictor:
        return Predictions(images, labels, dynamic, _scores(predictor, images))


def _scores(scorer: NetworkScorer | Predictor, images: np.ndarray) -> np.ndarray:
    return np.concatenate([scorer.scores(images[start : start + 128]) for start in range(0, len(images), 128)])


def _compare_predictions(page: Page, predictions: Predictions) -> None:
    page.heading("Are the predictions the same?", "答案一样吗？")
    dynamic, exported = predictions.dynamic.argmax(axis=1), predictions.exported.argmax(axis=1)
    agreement = float(np.mean(dynamic == exported))
    dynamic_top1, exported_top1 = (float(np.mean(classes == predictions.labels)) for classes in (dynamic, exported))
    identical = float(np.mean(predictions.dynamic == predictions.exported))
    closest = float(predictions.margins.min())
    page.table(
        "test images | largest difference of a probability | probabilities equal to the last bit "
        "| images given the same class | top-1, dynamic graph | top-1, exported | smallest lead of a best class",
        "测试图像 | 概率的最大差别 | 逐位相等的概率 "
        "| 类别相同的图像 | 动态图 top-1 | 导出模型 top-1 | 最高类别的最小领先",
        [
            [
                f"{len(predictions.labels):,}",
                f"{predictions.difference:.1e}",
                f"{identical:.1%}",
                f"{agreement:.2%}",
                f"{dynamic_top1:.2%}",
                f"{exported_top1:.2%}",
                f"{closest:.1e}",
            ]
        ],
    )
    page.say(
        f"""Float32 has 24 significant bits: near 1, adjacent numbers differ by {np.finfo(np.float32).eps:.1e}. Sums in
        a different order are rounded differently, and the differences propagate through the layers. What matters is
        whether a class can change. It cannot if the best probability leads by more than twice the largest
        difference.""",
        f"""float32 有 24 位有效位：1 附近相邻两个数相差 {np.finfo(np.float32).eps:.1e}。求和的次序不同，舍入就不同，再
        一层层传下去。要紧的是类别会不会变：只要最高概率领先第二名超过最大差别的两倍，类别就不可能变。""",
    )
    if closest > 2 * predictions.difference:
        page.say(
            f"""Here that holds for every image: the smallest lead, {closest:.1e}, is
            {closest / predictions.difference:,.0f} times the largest difference.""",
            f"""这里每张图像都满足：最小的领先是 {closest:.1e}，为最大差别
            的 {closest / predictions.difference:,.0f} 倍。""",
        )
    else:
        close = int(np.sum(predictions.margins <= 2 * predictions.difference))
        page.say(
            f"Here it does not hold for {close} of the images, whose class may depend on rounding.",
            f"这里有 {close} 张图像不满足，它们的类别可能由舍入决定。",
        )
    page.figure(
        "differences",
        lambda: _draw_differences(predictions),
        """Number of test images by the largest difference between the two forms' probabilities. Dashed: half of the
        smallest lead; to the left of it no class can change.""",
        "按两者概率的最大差别统计的测试图像数。虚线是最小领先的一半，在它左边，任何类别都不会改变。",
    )
    page.record(
        images=len(predictions.labels),
        largest_difference=predictions.difference,
        agreement=agreement,
        smallest_lead=closest,
        top1_dynamic=dynamic_top1,
        top1_exported=exported_top1,
    )


def _draw_differences(predictions: Predictions) -> Figure:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    decades = np.arange(-10, 1)
    # The first bar includes differences of zero.
    differences = np.clip(np.abs(predictions.dynamic - predictions.exported).max(axis=1), 10.0 ** decades[0], 1)
    counts, _ = np.histogram(np.log10(differences), decades)
    axes.bar(decades[:-1] + 0.5, counts, width=0.92, color=BLUE)
    axes.axvline(np.log10(np.finfo(np.float32).eps), color=GREY, linestyle=":", label="spacing of float32 next to 1")
    half = max(predictions.margins.min() / 2, 10.0 ** decades[0])
    axes.axvline(np.log10(half), color=ORANGE, linestyle="--", label="half of the smallest lead")
    axes.set_xticks(decades, ["0", *[f"1e{decade}" for decade in decades[1:-1]], "1"])
    axes.set(xlabel="largest difference of an image's probabilities", ylabel="test images")
    axes.grid(True, axis="y")
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper right", ncols=2)
    return figure


def _show_folding(page: Page, run: RunFolder, predictions: Predictions) -> None:
    """Fold the first BatchNorm into the convolution before it."""
    page.heading("One of the optimisations: BatchNorm folded away", "重排之一：把批归一化折叠进卷积")
    network = run.load_network()
    x = run.normalize()(paddle.to_tensor(predictions.images[:64]))
    weight, shift = fold_batch_norm(network.conv1, network.bn1)
    with paddle.no_grad():
        two_layers = network.bn1(network.conv1(x))
        settings = paddle_compat.convolution_settings(network.conv1)
        one_layer = nn.functional.conv2d(x, weight, shift, stride=settings.stride, padding=settings.padding)
    difference = float((two_layers - one_layer).abs().max().item())
    largest = float(two_layers.abs().max().item())
    page.say(
        """In evaluation, BatchNorm is the same multiplication and addition for every image (Ioffe and Szegedy 2015,
        https://arxiv.org/abs/1502.03167, algorithm 2, line 11). A convolution is linear, so the two are one convolution
        with other weights:""",
        """评估时，批归一化对每张图像都是同样的乘与加（Ioffe 与 Szegedy 2015，https://arxiv.org/abs/1502.03167 ，算
        法 2 第 11 行），而卷积是线性的；所以两者合起来就是一个换了权重的卷积：""",
    )
    page.values(
        "factor = gamma / sqrt(running variance + epsilon)",
        "weight' = weight * factor",
        "bias'   = beta - running mean * factor",
    )
    page.values(
        f"conv1 and bn1 against the one convolution, on {len(predictions.images[:64])} images:",
        f"largest value {largest:.3f}, largest difference {difference:.1e}",
    )
    page.say(
        f"""Equal mathematically, they differ in float32 by {difference / largest:.0e} of the largest value. An
        inference library can do this to every BatchNorm that follows a convolution. Training cannot, because there the
        statistics are each batch's own.""",
        f"""纸面上完全相等，float32 里相差最大值的 {difference / largest:.0e}。推理库可以对卷积之后的每个批归一化都这样
        做；训练时不行，因为那时用的是每一批自己的统计量。""",
    )
    page.record(folding_difference=difference, folding_largest=largest)


def fold_batch_norm(convolution: nn.Conv2D, normalization: nn.BatchNorm2D) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Return weight and bias of the convolution that equals both layers in evaluation mode."""
    epsilon = paddle_compat.batch_norm_settings(normalization).epsilon
    factor = normalization.weight / (normalization._variance + epsilon).sqrt()
    return convolution.weight * factor.reshape([-1, 1, 1, 1]), normalization.bias - normalization._mean * factor


def _show_preprocessing(page: Page, run: RunFolder, predictions: Predictions) -> None:
    """Measure the accuracy with mistakes in the preprocessing."""
    page.heading("Why the normalisation is in the graph", "为什么归一化要放进图里")
    right = run.normalize()
    network = run.load_network()
    identity = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    # `Normalize` divides by 255: (x / 255 - mean / 255) / (std / 255) is (x - mean) / std.
    mean, std = ([each / 255 for each in values] for values in (right.mean, right.std))
    slips = {
        ("as in training", "与训练一致"): right,
        ("mean and deviation forgotten", "忘了均值与标准差"): Normalize(*identity),
        ("not divided by 255", "忘了除以 255"): Normalize(mean, std),
    }
    scores = [_scores(NetworkScorer(network, normalize), predictions.images) for normalize in slips.values()]
    top1 = [float(np.mean(each.argmax(axis=1) == predictions.labels)) for each in scores]
    page.say(
        """If the caller had to normalise the images, mistakes would cost this much. No program reports them as errors,
        because shapes and types are right.""",
        "如果把它留给调用模型的人，下面就是一处疏忽的代价。对任何程序来说这都不是错误：形状与类型全都正确。",
    )
    page.table(
        " | ".join(["", *(en for en, _ in slips)]),
        " | ".join(["", *(zh for _, zh in slips)]),
        [
            ["top-1", *[f"{each:.2%}" for each in top1]],
            [
                Text("mean of the best probability", "最高概率的均值"),
                *[f"{each.max(axis=1).mean():.2f}" for each in scores],
            ],
        ],
    )
    page.record(top1_by_preprocessing=top1)
    raw, ready = predictions.images[:1].nbytes, predictions.images[:1].size * 4
    page.say(
        f"""The second row is the mean of each image's best probability, the network's confidence. Raw pixels are also
        less data to send: {raw:,} bytes per image instead of {ready:,} in float32. The exported input has type uint8,
        and `Predictor` rejects any other type with a one-line error.""",
        f"""第二行是每张图像最高概率的均值，即网络有多自信。原始像素要传的数据也更少：每张 {raw:,} 字节，float32 则
        要 {ready:,} 字节。导出的输入类型是 uint8，给别的类型，`Predictor` 会用一行话拒绝。""",
    )
