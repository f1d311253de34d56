"""LeNet-5 beside a ResNet of about as many parameters, on the same images."""

from __future__ import annotations

from typing import Any

import numpy as np

from paddle_resnet.data import Split
from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.evaluation import NetworkScorer, measure_split
from paddle_resnet.lessons.common.network_costs import format_shape, model_summary
from paddle_resnet.lessons.common.runs import train_run, update_settings
from paddle_resnet.lessons.common.statistics import SeedStatistics
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
from paddle_resnet.training import RunFolder

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
    page.heading("Seven layers from 1998", "1998 年的七层网络")
    lenet, resnet = model_summary("lenet", SIZE), model_summary("resnet8", SIZE)
    page.say(
        """LeNet-5 (LeCun et al. 1998, "Gradient-based learning applied to document recognition", figure 2) read bank
        cheques in the 1990s. Its shapes are kept here. As in current tutorials, ReLU and max-pooling replace tanh and
        trained subsampling, and a linear layer replaces the radial basis functions at its end.""",
        """LeNet-5（LeCun 等 1998，“Gradient-based learning applied to document recognition”，图 2）在上世纪九十年代用来
        识别银行支票。这里保留它的形状；像今天的教程那样，用 ReLU 与最大池化代替 tanh 与可训练的下采样，用线性层代替末尾
        的径向基函数。""",
    )
    page.table(
        "layer | output | parameters | multiply-adds",
        "层 | 输出 | 参数 | 乘加次数",
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
    page.say(
        f"""Of its {lenet.parameters:,} parameters, {shares["lenet"][0]:.0%} are in the linear layers, which do
        {shares["lenet"][1]:.0%} of the multiply-adds. The smallest ResNet of the family, resnet8, has about as many
        parameters, {resnet.parameters:,}. It distributes them the other way round: after global average pooling there
        is only one linear layer, with {shares["resnet8"][0]:.1%} of them. Its convolutions use each weight at many more
        positions, so it computes {resnet.macs / lenet.macs:.0f} times as much for an image.""",
        f"""它的 {lenet.parameters:,} 个参数中，{shares["lenet"][0]:.0%} 在线性层里，而线性层只占乘加次数
        的 {shares["lenet"][1]:.0%}。同族中最小的 ResNet，即 resnet8，参数量与它相近，为 {resnet.parameters:,} 个，用法
        却相反：全局平均池化之后只剩一个线性层，占参数的 {shares["resnet8"][0]:.1%}。它的卷积在多得多的位置上使用每个权
        重，所以处理一张图像的计算量是 LeNet 的 {resnet.macs / lenet.macs:.0f} 倍。""",
    )
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
    page.heading("The same images, three seeds", "同样的图像，三个随机种子")
    lenet, resnet = networks["lenet"], networks["resnet8"]
    config = _first_run(page).config
    images = lenet.evaluations[0].images
    page.say(
        f"""Both train on {config.data.source} at {SIZE}x{SIZE} for {config.train.epochs} epochs with the same recipe;
        only the learning rate differs, {RATES["lenet"]} for LeNet and {RATES["resnet8"]} for resnet8 (the last section
        says why). The test split has {images:,} images. Seeds change the first weights and the order of the images.""",
        f"""两者都在 {config.data.source} 上以 {SIZE}x{SIZE} 训练 {config.train.epochs} 轮，方法相同，只有学习率不同：
        LeNet 为 {RATES["lenet"]}，resnet8 为 {RATES["resnet8"]}（原因见最后一节）。测试集有 {images:,} 张图像。种子决定
        初始权重与图像的次序。""",
    )
    page.table(
        "network | test top-1 by seed (%) | mean ± deviation | parameters | multiply-adds | training, images/s",
        "网络 | 各种子的测试 top-1（%） | 均值 ± 标准差 | 参数 | 乘加次数 | 训练速度（张/秒）",
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
    page.say(*_verdict(gain))
    work = resnet.summary.macs / lenet.summary.macs
    page.say(
        f"""resnet8 does {work:.0f} times LeNet's multiply-adds. In training it processed
        {resnet.images_per_second:,.0f} images/s, LeNet {lenet.images_per_second:,.0f}. ({describe_machine().en}) Time
        is not proportional to the multiply-adds: every step also has a fixed overhead (loading, a call for each layer,
        the optimizer). Where oneDNN computes a ResNet's layers it does not compute LeNet's, so the two do not even run
        the same kernels.""",
        f"""resnet8 的乘加次数是 LeNet 的 {work:.0f} 倍；训练时它每秒处理 {resnet.images_per_second:,.0f} 张，LeNet 每
        秒 {lenet.images_per_second:,.0f} 张。（{describe_machine().zh}）计算量不等于时间：每一步还有不随乘加次数增长的
        开销（读数据、逐层调用、优化器）；而且 oneDNN 能接管 ResNet 的各层，却不接管 LeNet 的，两者用的计算核都不相
        同。""",
    )
    for key, runs in (("lenet", lenet), ("resnet", resnet)):
        page.record(**{f"{key}_top1": [each.top1 for each in runs.evaluations]})
        page.record(**{f"{key}_images_per_second": runs.images_per_second})
    page.record(gain=gain.mean, gain_margin=gain.ci95, gain_sign=gain.sign, test_images=images)


def _verdict(gain: SeedStatistics) -> tuple[str, str]:
    """Compare resnet8's lead with the seeds' variation, in both languages."""
    english = f"resnet8 minus LeNet, seed by seed: {gain.points()} points (95% interval, {gain.runs} seeds)."
    chinese = f"逐个种子相减，resnet8 减 LeNet 为 {gain.points()} 个百分点（95% 区间，{gain.runs} 个种子）。"
    if gain.sign > 0:
        return (
            f"{english} The lead is larger than the variation between the seeds.",
            f"{chinese}这个差距超出了种子之间的波动。",
        )
    if gain.sign < 0:
        return (
            f"{english} LeNet is ahead, by more than the variation between the seeds.",
            f"{chinese}也就是 LeNet 领先，且超出了种子之间的波动。",
        )
    return (
        f"{english} The interval includes zero: the difference is not significant.",
        f"{chinese}区间包含零：在这些图像上，这几个种子分不出两者的高下。",
    )


def _show_curves(page: Page, networks: dict[str, NetworkRuns]) -> None:
    page.heading("How they learn", "它们怎样学习")
    page.figure(
        "curves",
        lambda: draw_curves(list(networks.values())),
        "Training loss (dashed) and validation loss (solid), and top-1 on the validation images, of every seed.",
        "每个种子的训练损失（虚线）与验证损失（实线），以及验证图像上的 top-1。",
    )
    losses = {name: _median_losses(each) for name, each in networks.items()}
    (lenet_train, lenet_validation), (resnet_train, resnet_validation) = losses["lenet"][0], losses["resnet8"][0]
    page.say(
        f"""Medians over the seeds, in nats. After the first epoch the training loss was {lenet_train:.2f} for LeNet and
        {resnet_train:.2f} for resnet8, the validation loss {lenet_validation:.2f} and {resnet_validation:.2f}. After
        the last epoch the training loss was {losses["lenet"][-1][0]:.3f} and {losses["resnet8"][-1][0]:.3f}, the
        validation loss {losses["lenet"][-1][1]:.3f} and {losses["resnet8"][-1][1]:.3f}.""",
        f"""各种子的中位数（纳特）：第一轮之后，训练损失是 LeNet {lenet_train:.2f}、resnet8 {resnet_train:.2f}，验证损失
        分别是 {lenet_validation:.2f} 与 {resnet_validation:.2f}；最后一轮之后，训练损失
        是 {losses["lenet"][-1][0]:.3f} 与 {losses["resnet8"][-1][0]:.3f}，验证损失
        是 {losses["lenet"][-1][1]:.3f} 与 {losses["resnet8"][-1][1]:.3f}。""",
    )
    if resnet_validation > 1.5 * resnet_train:
        page.say(
            """resnet8's first epochs look worse in validation than in training. A likely reason is BatchNorm. In
            training it uses each batch's own statistics, in validation running averages, which lag behind while the
            weights change quickly.""",
            """resnet8 最初几轮在验证中看起来比训练中差得多。原因很可能在批归一化：训练时用每一批自己的统计量，验证时用
            滑动平均，而权重还在快速变化时，滑动平均跟不上。""",
        )


def _median_losses(runs: NetworkRuns) -> list[tuple[float, float]]:
    """Return training and validation loss by epoch, medians over the seeds."""
    return [
        (float(np.median([row.train_loss for row in rows])), float(np.median([row.validation_loss for row in rows])))
        for rows in zip(*runs.histories, strict=True)
    ]


def _show_mistakes(page: Page, networks: dict[str, NetworkRuns], test: Split) -> None:
    page.heading("Where each fails", "各自错在哪里")
    lenet, resnet = networks["lenet"], networks["resnet8"]
    classes = lenet.evaluations[0].classes
    page.figure(
        "errors_by_class",
        lambda: draw_errors_by_class(list(networks.values()), classes),
        "Errors on the test split by true class, means over the seeds; the lines span the seeds.",
        "测试集上各类别答错的张数，取各种子的均值；竖线是种子之间的范围。",
    )
    both = np.flatnonzero(lenet.hard & resnet.hard)
    only_lenet = np.flatnonzero(lenet.hard & ~resnet.hard)
    only_resnet = np.flatnonzero(resnet.hard & ~lenet.hard)
    page.say(
        f"""An image is hard for a network if most of its seeds misclassify it. Of {len(lenet.failures):,} images,
        {len(both)} are hard for both, {len(only_lenet)} for LeNet alone, {len(only_resnet)} for resnet8 alone. If both
        misclassify an image, the image is a more likely cause than the network.""",
        f"""如果一个网络的多数种子都答错某张图像，就称它为该网络的难例。在 {len(lenet.failures):,} 张中，两者共有的难
        例 {len(both)} 张，只是 LeNet 难例的 {len(only_lenet)} 张，只是 resnet8 难例的 {len(only_resnet)} 张。两者都错的
        图像，多半是图像本身的问题。""",
    )
    groups = {"hard for both": both, "for LeNet alone": only_lenet, "for resnet8 alone": only_resnet}
    page.figure(
        "hard_images",
        lambda: draw_hard_images(groups, test, list(networks.values())),
        f"""Up to {IMAGES_PER_ROW} of the hard images in each group: their class, and the most frequent prediction of
        each network's seeds (for a hard image, the most frequent wrong one).""",
        f"""难例，每组至多 {IMAGES_PER_ROW} 张：真实类别，以及两个网络各种子最常见的回答（多数种子答错时，取最常见的错误
        回答）。""",
    )
    page.record(hard_for_both=len(both), hard_for_lenet=len(only_lenet), hard_for_resnet=len(only_resnet))


def _show_learning_rate(page: Page, effort: Effort, lenet: NetworkRuns) -> None:
    """Train LeNet once at the rate that suits a network with BatchNorm."""
    page.heading("A learning rate for a network without BatchNorm", "没有批归一化的网络要用怎样的学习率")
    settings = _settings(effort, "lenet", SEEDS[0])
    settings["train"]["learning_rate"] = RATES["resnet8"]
    page.say(
        f"""With BatchNorm, the scale of a convolution's weights does not affect its output, and a large step does
        little harm. LeNet has no such protection. This is the same run as its seed {SEEDS[0]}, at resnet8's learning
        rate of {RATES["resnet8"]}:""",
        f"""有批归一化时，卷积权重的尺度不影响归一化之后的输出，步长大一些也无妨。LeNet 没有这样的保护。下面是与其种
        子 {SEEDS[0]} 相同的一次运行，但用 resnet8 的学习率 {RATES["resnet8"]}：""",
    )
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
        page.say(
            """It did not learn to distinguish the classes. A comparison at one learning rate for both would have
            measured only this.""",
            "它没有学会区分类别。如果两者用同一个学习率比较，测到的就只是这一点。",
        )
    else:
        page.say(
            f"""It learnt, and ended {100 * (top1 - usual):+.1f} points from the run at {RATES["lenet"]}: one run, on
            {lenet.evaluations[0].images:,} test images. Choose a suitable learning rate for each network before
            comparing them.""",
            f"""它学会了，与学习率 {RATES["lenet"]} 的那次相差 {100 * (top1 - usual):+.1f} 个百分点：这只是一次运行，测
            试图像 {lenet.evaluations[0].images:,} 张。比较网络之前，先给每个网络合适的学习率。""",
        )
    page.record(large_rate_top1=top1, chance=chance)
