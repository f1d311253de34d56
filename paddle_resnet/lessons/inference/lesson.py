"""From the trained network to the exported one: are its answers the same, and how is its speed measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from matplotlib.figure import Figure
from paddle import nn

from paddle_resnet import paddle_compat
from paddle_resnet.data import Normalize, uint8_batches
from paddle_resnet.evaluation import NetworkScorer
from paddle_resnet.export import ExportReport, export_run
from paddle_resnet.inference import Predictor
from paddle_resnet.lessons.common.runs import train_within
from paddle_resnet.lessons.framework.catalogue import Effort
from paddle_resnet.lessons.framework.page import Page, Text
from paddle_resnet.lessons.inference.times import show_pitfalls, show_times
from paddle_resnet.plots.style import BLUE, GREY, ORANGE
from paddle_resnet.training import RunFolder

ROUNDS = 15

QUICK: dict[str, Any] = {
    "data": {"source": "digits", "image_size": 16},
    "augment": {"pad": 2},
    "train": {"batch_size": 64, "learning_rate": 0.1},
}
FULL: dict[str, Any] = {
    "data": {"source": "cifar10", "image_size": 32},
    "augment": {"pad": 4, "flip": True},
    "train": {"batch_size": 128, "learning_rate": 0.2},
}


@dataclass(frozen=True)
class Answers:
    """The test split, and the probabilities that the two forms of the network give it, float32 ``[N, classes]``."""

    images: np.ndarray
    labels: np.ndarray
    dynamic: np.ndarray
    exported: np.ndarray

    @property
    def difference(self) -> float:
        """The largest of a probability."""
        return float(np.abs(self.dynamic - self.exported).max())

    @property
    def margins(self) -> np.ndarray:
        """Of each image, the dynamic network's best probability less its second best, ``[N]``."""
        second, best = np.sort(self.dynamic, axis=1)[:, -2:].T
        return best - second


def teach(page: Page, effort: Effort) -> None:
    """Train, export, compare the answers, then the times."""
    values, epochs = (FULL, 5) if effort.full else (QUICK, 6)
    settings = {
        **values,
        "model": {"name": "resnet20"},
        "train": {**values["train"], "epochs": effort.epochs(epochs)},
    }
    run = train_within(page, effort, "network", settings)
    report = export_run(run)
    _show_export(page, run, report)
    answers = _answers(run)
    _compare_answers(page, answers)
    _show_folding(page, run, answers)
    _show_preprocessing(page, run, answers)
    show_times(page, run, answers.images, rounds=effort.epochs(ROUNDS))
    show_pitfalls(page)


def _show_export(page: Page, run: RunFolder, report: ExportReport) -> None:
    page.heading("What is exported", "导出了什么")
    page.say(
        f"""A trained network in Python is a program: layers that call operators one by one, in whatever mode they were
        left. An export traces it once, in evaluation mode, into a graph in a file, which Paddle Inference can rearrange
        and run without the code that made it. Here {run.config.model.name}, trained for {run.config.train.epochs}
        epochs on {run.config.data.source}:""",
        f"""Python 里训练好的网络是一段程序：各层逐个调用算子，处于训练还是评估模式要看当时的设置。导出则在评估模式下把
        它追踪一遍，写成文件里的计算图；Paddle Inference 可以重新安排这张图，不需要原来的代码就能运行。这里是
        在 {run.config.data.source} 上训练了 {run.config.train.epochs} 轮的 {run.config.model.name}：""",
    )
    with Predictor(report.path) as predictor:
        config = predictor.config
    page.values(
        "report = export_run(run)",
        *[f"{path.name:20} {path.stat().st_size:>9,} bytes" for path in report.files],
    )
    page.values(
        f"input    {config.input.dtype} [N, {config.input.image_size}, {config.input.image_size}, 3], raw pixels",
        f"output   {config.output} [N, {len(config.classes)}]",
    )
    page.say(
        """The graph begins with the normalisation and ends with the softmax, so the one who deploys it gives pixels and
        gets probabilities.""",
        "图的开头是归一化，结尾是 softmax：部署时只需给出像素，就得到概率。",
    )


def _answers(run: RunFolder) -> Answers:
    splits, size = run.splits(), run.config.data.image_size
    batches = list(uint8_batches(splits.test, 128, splits.resize, size))
    images = np.concatenate([pixels for pixels, _ in batches])
    labels = np.concatenate([each for _, each in batches])
    dynamic = _scores(NetworkScorer(run.load_network(), run.normalize()), images)
    with Predictor(run.inference_path) as predictor:
        return Answers(images, labels, dynamic, _scores(predictor, images))


def _scores(scorer: NetworkScorer | Predictor, images: np.ndarray) -> np.ndarray:
    """Score all images, in batches that fit into memory."""
    return np.concatenate([scorer.scores(images[start : start + 128]) for start in range(0, len(images), 128)])


def _compare_answers(page: Page, answers: Answers) -> None:
    page.heading("Are the answers the same?", "答案一样吗？")
    agreement = float(np.mean(answers.dynamic.argmax(axis=1) == answers.exported.argmax(axis=1)))
    dynamic_top1, exported_top1 = (
        float(np.mean(scores.argmax(axis=1) == answers.labels)) for scores in (answers.dynamic, answers.exported)
    )
    identical = float(np.mean(answers.dynamic == answers.exported))
    closest = float(answers.margins.min())
    page.table(
        [
            ("test images", "测试图像"),
            ("largest difference of a probability", "概率的最大差别"),
            ("probabilities equal to the last bit", "逐位相等的概率"),
            ("images given the same class", "类别相同的图像"),
            ("top-1, dynamic graph", "动态图 top-1"),
            ("top-1, exported", "导出模型 top-1"),
            ("smallest lead of a best class", "最高类别的最小领先"),
        ],
        [
            [
                f"{len(answers.labels):,}",
                f"{answers.difference:.1e}",
                f"{identical:.1%}",
                f"{agreement:.2%}",
                f"{dynamic_top1:.2%}",
                f"{exported_top1:.2%}",
                f"{closest:.1e}",
            ]
        ],
    )
    page.say(
        f"""Float32 keeps 24 bits: next to 1, numbers are {np.finfo(np.float32).eps:.1e} apart. Sums taken in another
        order round otherwise, and layer after layer passes that on. What matters is whether a class can change: it
        cannot where the best probability leads by more than twice the largest difference.""",
        f"""float32 有 24 位有效位：1 附近相邻两个数相差 {np.finfo(np.float32).eps:.1e}。求和的次序不同，舍入就不同，再
        一层层传下去。要紧的是类别会不会变：只要最高概率领先第二名超过最大差别的两倍，类别就不可能变。""",
    )
    if closest > 2 * answers.difference:
        page.say(
            f"""Here that holds for every image: the smallest lead, {closest:.1e}, is
            {closest / answers.difference:,.0f} times the largest difference.""",
            f"这里每张图像都满足：最小的领先是 {closest:.1e}，为最大差别的 {closest / answers.difference:,.0f} 倍。",
        )
    else:
        close = int(np.sum(answers.margins <= 2 * answers.difference))
        page.say(
            f"Here it does not hold for {close} of the images, whose class rounding may decide.",
            f"这里有 {close} 张图像不满足，它们的类别可能由舍入决定。",
        )
    page.figure(
        "differences",
        lambda: _draw_differences(answers),
        """The test images by how far their probabilities differ between the two. Dashed: half of the smallest lead; no
        class can change to the left of it.""",
        "按两者概率的最大差别统计的测试图像数。虚线是最小领先的一半，在它左边，任何类别都不会改变。",
    )
    page.record(
        images=len(answers.labels),
        largest_difference=answers.difference,
        agreement=agreement,
        smallest_lead=closest,
        top1_dynamic=dynamic_top1,
        top1_exported=exported_top1,
    )


def _draw_differences(answers: Answers) -> Figure:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    decades = np.arange(-10, 1)
    # What is equal to the last bit, or nearly, stands in the first bar.
    differences = np.clip(np.abs(answers.dynamic - answers.exported).max(axis=1), 10.0 ** decades[0], 1)
    counts, _ = np.histogram(np.log10(differences), decades)
    axes.bar(decades[:-1] + 0.5, counts, width=0.92, color=BLUE)
    axes.axvline(np.log10(np.finfo(np.float32).eps), color=GREY, linestyle=":", label="spacing of float32 next to 1")
    half = max(answers.margins.min() / 2, 10.0 ** decades[0])
    axes.axvline(np.log10(half), color=ORANGE, linestyle="--", label="half of the smallest lead")
    axes.set_xticks(decades, ["0", *[f"1e{decade}" for decade in decades[1:-1]], "1"])
    axes.set_xlabel("largest difference of an image's probabilities")
    axes.set_ylabel("test images")
    axes.grid(True, axis="y")
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper right", ncols=2)
    return figure


def _show_folding(page: Page, run: RunFolder, answers: Answers) -> None:
    """Fold the first BatchNorm into the convolution before it, as an inference library may."""
    page.heading("One of the rearrangements: BatchNorm folded away", "重排之一：把批归一化折叠进卷积")
    network = run.load_network()
    x = run.normalize()(paddle.to_tensor(answers.images[:64]))
    weight, shift = folded(network.conv1, network.bn1)
    with paddle.no_grad():
        two_layers = network.bn1(network.conv1(x))
        settings = paddle_compat.convolution_settings(network.conv1)
        one_layer = nn.functional.conv2d(x, weight, shift, stride=settings.stride, padding=settings.padding)
    difference = float((two_layers - one_layer).abs().max().item())
    largest = float(two_layers.abs().max().item())
    page.say(
        """In evaluation, BatchNorm is the same multiplication and addition for every image (Ioffe and Szegedy 2015,
        https://arxiv.org/abs/1502.03167, algorithm 2, line 11), and a convolution is linear; so the two are one
        convolution with other weights:""",
        """评估时，批归一化对每张图像都是同样的乘与加（Ioffe 与 Szegedy 2015，https://arxiv.org/abs/1502.03167 ，算
        法 2 第 11 行），而卷积是线性的；所以两者合起来就是一个换了权重的卷积：""",
    )
    page.values(
        "factor = gamma / sqrt(running variance + epsilon)",
        "weight' = weight * factor",
        "bias'   = beta - running mean * factor",
    )
    page.values(
        f"conv1 and bn1 against the one convolution, on {len(answers.images[:64])} images:",
        f"largest value {largest:.3f}, largest difference {difference:.1e}",
    )
    page.say(
        f"""Equal on paper, {difference / largest:.0e} of the largest value apart in float32. An inference library may
        do this to every BatchNorm that follows a convolution; training cannot, as there the statistics are each batch's
        own.""",
        f"""纸面上完全相等，float32 里相差最大值的 {difference / largest:.0e}。推理库可以对卷积之后的每个批归一化都这样
        做；训练时不行，因为那时用的是每一批自己的统计量。""",
    )
    page.record(folding_difference=difference, folding_largest=largest)


def folded(convolution: nn.Conv2D, normalization: nn.BatchNorm2D) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Weight and bias of the one convolution that is both in evaluation; the convolution has no bias of its own."""
    factor = (
        normalization.weight
        / (normalization._variance + paddle_compat.batch_norm_settings(normalization).epsilon).sqrt()
    )
    return convolution.weight * factor.reshape([-1, 1, 1, 1]), normalization.bias - normalization._mean * factor


def _show_preprocessing(page: Page, run: RunFolder, answers: Answers) -> None:
    """Measure what a slip in the preprocessing costs, were it outside of the graph."""
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
    scores = [_scores(NetworkScorer(network, normalize), answers.images) for normalize in slips.values()]
    top1 = [float(np.mean(each.argmax(axis=1) == answers.labels)) for each in scores]
    page.say(
        """Were it left to whoever calls the model, this is what a slip would cost. None of these is an error to any
        program: shapes and types are right.""",
        "如果把它留给调用模型的人，下面就是一处疏忽的代价。对任何程序来说这都不是错误：形状与类型全都正确。",
    )
    page.table(
        [("", ""), *slips],
        [
            ["top-1", *[f"{each:.2%}" for each in top1]],
            [
                Text("mean of the best probability", "最高概率的均值"),
                *[f"{each.max(axis=1).mean():.2f}" for each in scores],
            ],
        ],
    )
    page.record(top1_by_preprocessing=[*top1])
    raw, ready = answers.images[:1].nbytes, answers.images[:1].size * 4
    page.say(
        f"""The second row is the mean of each image's best probability: how sure the network was. Raw pixels are also
        less to send: {raw:,} bytes an image instead of {ready:,} in float32. The exported input is of type uint8, and
        `Predictor` refuses anything else in one line.""",
        f"""第二行是每张图像最高概率的均值，即网络有多自信。原始像素要传的数据也更少：每张 {raw:,} 字节，float32 则
        要 {ready:,} 字节。导出的输入类型是 uint8，给别的类型，`Predictor` 会用一行话拒绝。""",
    )
