"""What pretraining is worth, by the number of images per class of the new task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from paddle_resnet import runtime
from paddle_resnet.config import Config
from paddle_resnet.console import logger
from paddle_resnet.data import MemorySplit, open_splits
from paddle_resnet.lessons.common.runs import update_settings
from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.transfer.few_shot import (
    FewShotTrainer,
    Task,
    linear_probe_top1,
    make_task,
    pixel_features,
    sample_per_class,
)
from paddle_resnet.lessons.transfer.results import (
    CHINESE,
    COLOURS,
    LAST,
    PIXELS,
    SCRATCH,
    TUNED,
    Results,
    draw_by_number,
)
from paddle_resnet.models import create_model, load_weights
from paddle_resnet.training import SeedStatistics

SOURCE_CLASSES, TARGET_CLASSES = range(5), range(5, 10)

QUICK: dict[str, Any] = {
    "data": {"source": "digits", "image_size": 16},
    "augment": {"pad": 2},
    "model": {"name": "resnet8"},
    "train": {"epochs": 10, "batch_size": 64, "learning_rate": 0.05},
}
FULL: dict[str, Any] = {
    "data": {"source": "cifar10", "image_size": 32},
    "augment": {"pad": 4, "flip": True},
    "model": {"name": "resnet14"},
    "train": {"epochs": 10, "batch_size": 64, "learning_rate": 0.05},
}


@dataclass(frozen=True)
class Plan:
    """The trainings of the lesson.

    Attributes:
        config: network, data and recipe of every training.
        numbers: images per class, from few to many.
        steps: of each training on the few images.
        seeds: each has its own pretraining, sample of images and new weights.
    """

    config: Config
    numbers: tuple[int, ...]
    steps: int
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, effort: Effort) -> Plan:
        config = Config.from_values(update_settings(FULL if effort.full else QUICK, effort), effort.overrides)
        if effort.full:
            return cls(config, (5, 20, 50, 200), effort.epochs(300), (0, 1, 2))
        return cls(config, (1, 2, 5, 10, 20), effort.epochs(60), tuple(range(max(2, effort.epochs(5)))))


def teach(page: Page, effort: Effort) -> None:
    """Pretrain on five classes, then learn the other five from few images with and without the pretrained weights."""
    plan = Plan.of(effort)
    runtime.select_device(plan.config.device)
    splits = open_splits(plan.config.data)
    source, target = make_task(splits, SOURCE_CLASSES), make_task(splits, TARGET_CLASSES)
    _show_question(page, plan, source, target)
    _show_what_is_taken(page, plan)
    results = _measure(plan, FewShotTrainer(plan.config, splits), source, target)
    _show_results(page, plan, results, target)
    _show_gain(page, plan, results)
    _explain(page, plan, results, target)


def _show_question(page: Page, plan: Plan, source: Task, target: Task) -> None:
    page.heading("Two tasks from one data set", "一个数据集里的两个任务")
    page.say(
        """A network that has learnt one task is said to learn the next one from fewer images. Its first layers detect
        edges and strokes that any task needs (Yosinski et al. 2014, https://arxiv.org/abs/1411.1792). How many images
        is this worth? To measure it without downloading weights, five classes are the old task, and the other five the
        new one.""",
        """常说学过一个任务的网络，用更少的图像就能学会下一个，因为它的前几层看到的是任何任务都需要的边缘与笔画
        （Yosinski 等 2014，https://arxiv.org/abs/1411.1792 ）。这究竟值多少张图像？为了不下载任何权重，这里把五个类别当
        作旧任务，另外五个当作新任务。""",
    )
    page.values(
        f"old task   {', '.join(source.classes)}: {len(source.train):,} training images, all of them used",
        f"new task   {', '.join(target.classes)}: {', '.join(map(str, plan.numbers))} training images per class; "
        f"{len(target.test):,} test images",
    )
    config = plan.config
    page.say(
        f"""The network is {config.model.name} at {config.data.image_size}x{config.data.image_size}. It learns the new
        task in two ways: **from scratch**, and **fine-tuned** from the old task's weights with a new last layer. Both
        take {plan.steps} steps with the same recipe, which is tuned for neither (learning rate
        {config.train.learning_rate:g}, falling by a cosine, and the same augmentation). The third way trains the **last
        layer alone** and freezes the rest. This is a logistic regression on the old network's features, fitted to
        convergence. The same regression on **pixels alone** shows how hard the task is. Each of {len(plan.seeds)} seeds
        has its own pretraining and its own sample of images, which all ways share.""",
        f"""网络是 {config.model.name}，输入 {config.data.image_size}x{config.data.image_size}。它用两种方式学习新任务：
        **从头训练**；以及**微调**，即从旧任务的权重出发，换上新的最后一层。两者都是 {plan.steps} 步，训练方法相同（学习
        率 {config.train.learning_rate:g}，按余弦下降，数据增强也相同），没有专门为哪一种调过。第三种**只训练最后一层
        **，其余全部冻结；这就是在旧网络的特征上做逻辑回归，一直拟合到收敛。同样的回归**只用像素**，用来看任务本身有多
        难。{len(plan.seeds)} 个种子各自重新预训练、各自抽取图像，几种方式共用这些图像。""",
    )


def _show_what_is_taken(page: Page, plan: Plan) -> None:
    page.heading("What is loaded from the old task", "从旧任务带来了什么")
    old, new = (create_model(plan.config.model.name, classes) for classes in (10, 5))
    report = load_weights(new, {name: tensor.numpy() for name, tensor in old.state_dict().items()})
    learnt = sum(new.state_dict()[name].size for name in report.loaded)
    page.values(
        "report = load_weights(network, weights_of_another_task)",
        f"report.loaded         {len(report.loaded)} arrays, {learnt:,} numbers",
        f"report.skipped_head   {', '.join(report.skipped_head)}",
    )
    page.say(
        """Every convolution is loaded, and BatchNorm's scales together with its running statistics. A network with the
        old task's weights and new statistics would not be the network that was trained. Only the last layer, which
        outputs the classes, is new.""",
        """每个卷积都带了过来，批归一化的缩放参数连同滑动统计量也一样：如果权重是旧任务的而统计量是新的，那就不是训练好
        的那个网络了。只有给类别命名的最后一层是新的。""",
    )
    page.record(arrays_loaded=len(report.loaded), arrays_skipped=len(report.skipped_head))


def _measure(plan: Plan, learner: FewShotTrainer, source: Task, target: Task) -> Results:
    """Train, for each seed, the old task, then the new one from every initialisation and number of images."""
    top1: dict[str, dict[int, list[float]]] = {start: {each: [] for each in plan.numbers} for start in COLOURS}
    pretrained = []
    for seed in plan.seeds:
        weights, source_top1 = learner.pretrain(source, seed)
        pretrained.append(source_top1)
        logger.info("seed %d: the old task is learnt, test top-1 %.2f%%", seed, 100 * source_top1)
        inputs: dict[str, Callable[[MemorySplit], np.ndarray]] = {
            LAST: partial(learner.features, weights=weights),
            PIXELS: pixel_features,
        }
        test = {start: of(target.test) for start, of in inputs.items()}
        for number in plan.numbers:
            images = sample_per_class(target.train, number, seed)
            for start, begin in ((SCRATCH, None), (TUNED, weights)):
                top1[start][number].append(learner.learn(target, images, plan.steps, seed, begin))
            for start, of in inputs.items():
                right = linear_probe_top1(of(images), images.labels, test[start], target.test.labels)
                top1[start][number].append(right)
        logger.info("seed %d: the new task is learnt from each number of images", seed)
    return Results(top1, pretrained)


def _show_results(page: Page, plan: Plan, results: Results, target: Task) -> None:
    page.heading("Measured", "测量结果")
    pretrained = SeedStatistics.of(results.pretrained_top1)
    page.say(
        f"""The network reaches {pretrained.percent()}% on the old task (test top-1, mean and standard deviation over
        {len(plan.seeds)} seeds). The new task, test top-1 in percent on {len(target.test):,} images:""",
        f"""旧任务学到了 {pretrained.percent()}%（测试 top-1，{len(plan.seeds)} 个种子的均值与标准差）。新任务的测
        试 top-1（百分数，{len(target.test):,} 张图像）：""",
    )
    page.table(
        " | ".join(["images per class", *COLOURS]),
        " | ".join(["每类图像数", *(CHINESE[start] for start in COLOURS)]),
        [[number, *[results.statistics(start, number).percent() for start in COLOURS]] for number in plan.numbers],
    )
    page.figure(
        "by_images",
        lambda: draw_by_number(results),
        """Left: test top-1 of the new task, mean and standard deviation over the seeds. Right: gain of each
        initialisation over training from scratch, paired by seed, with the mean's 95% interval. Where the interval
        includes zero, the gain is not significant.""",
        """左：新任务的测试 top-1，种子间的均值与标准差。右：各起点逐个种子减去从头训练的差，连同均值的 95% 区间；区间跨
        过零，就是这些种子分不出来。""",
    )
    page.record(
        images_a_class=plan.numbers,
        seeds=len(plan.seeds),
        test_images=len(target.test),
        pretrained_top1=results.pretrained_top1,
    )
    for start in COLOURS:
        page.record(**{_key(start): [results.top1[start][number] for number in plan.numbers]})


def _key(start: str) -> str:
    return f"top1_{start.replace(' ', '_').replace('-', '_')}"


def _show_gain(page: Page, plan: Plan, results: Results) -> None:
    page.heading("What pretraining was worth", "预训练值多少")
    by_chance = 1 - 0.95 ** len(plan.numbers)
    page.table(
        "images per class | fine-tuned minus scratch (points) | last layer alone minus scratch (points)",
        "每类图像数 | 微调减从头训练（百分点） | 只训练最后一层减从头训练（百分点）",
        [
            [number, results.gain(TUNED, number).points(), results.gain(LAST, number).points()]
            for number in plan.numbers
        ],
    )
    page.say(
        f"""Mean and 95% interval over {len(plan.seeds)} seeds (Student's t on the paired differences). Each row is a
        separate comparison. Even if pretraining had no effect at all, at least one of {len(plan.numbers)} such
        intervals would exclude zero with probability {by_chance:.0%} (if they were independent). An interval that just
        excludes zero is a reason to measure again, not a finding.""",
        f"""{len(plan.seeds)} 个种子的均值与 95% 区间（对配对差用 Student t）。每一行都是一次单独的比较：即使某个起点毫
        无价值，{len(plan.numbers)} 个这样的区间中至少有一个不含零的概率仍有 {by_chance:.0%}（假设彼此独立）。刚刚不含零
        的区间只说明值得再测一次，还算不上结论。""",
    )
    for start in (TUNED, LAST):
        gains = {number: results.gain(start, number) for number in plan.numbers}
        page.say(*_verdict(start, gains))
        for name, attribute in (("gain", "mean"), ("margin", "ci95"), ("sign", "sign")):
            page.record(**{f"{_key(start)}_{name}": [getattr(each, attribute) for each in gains.values()]})


def _verdict(start: str, gains: dict[int, SeedStatistics]) -> tuple[str, str]:
    """Say at which numbers of images an initialisation gained, lost, or did not differ significantly."""
    english, chinese = [], []
    words = {1: ("better than from scratch", "好于从头训练"), -1: ("worse than from scratch", "差于从头训练")}
    words[0] = ("not significantly different", "这些种子分不出与从头训练的差别")
    for sign in (1, -1, 0):
        numbers = [str(number) for number, gain in gains.items() if gain.sign == sign]
        if numbers:
            english.append(f"{words[sign][0]} at {', '.join(numbers)} images per class")
            chinese.append(f"每类 {'、'.join(numbers)} 张时{words[sign][1]}")
    return f"**{start.capitalize()}**: {'; '.join(english)}.", f"**{CHINESE[start]}**：{'；'.join(chinese)}。"


def _explain(page: Page, plan: Plan, results: Results, target: Task) -> None:
    page.heading("Why, and how general it is", "原因与适用范围")
    fewest, most = plan.numbers[0], plan.numbers[-1]
    scratch, pixels = results.statistics(SCRATCH, most), results.statistics(PIXELS, most)
    old = float(np.mean(results.pretrained_top1))
    height, width = target.test.batch([0]).shape[1:3]
    page.say(
        f"""Pretraining can gain at most what is missing without it. The stored images are {height}x{width}. With {most}
        of them per class, training from scratch classified {scratch.mean:.1%} of the test images correctly, and a
        linear classifier on bare pixels {pixels.mean:.1%}.""",
        f"""起点的价值，最多也就是没有它时所缺的那一部分。存储的图像是 {height}x{width}；每类 {most} 张时，从头训练答对
        了 {scratch.mean:.1%} 的测试图像，而直接在像素上做的线性分类器答对了 {pixels.mean:.1%}。""",
    )
    ahead = [str(number) for number in plan.numbers if results.best(number) == PIXELS]
    if ahead:
        page.say(
            f"""At {", ".join(ahead)} images per class the pixels gave the best mean of all, without any network.""",
            f"""每类 {"、".join(ahead)} 张时，均值最高的竟是只用像素，根本没有网络。""",
        )
    if pixels.mean > 0.9:
        page.say(
            f"""With {most} images per class features can hardly improve the result: a task that bare pixels nearly
            solve does not need edges learnt elsewhere. With {fewest}, training from scratch classified
            {results.statistics(SCRATCH, fewest).mean:.1%} correctly and fine-tuning
            {results.statistics(TUNED, fewest).mean:.1%}. Five classes of tiny images, learnt to {old:.1%}, teach
            little: none of them requires features that distinguish the other five. This form of the lesson shows no
            more. It says nothing about ImageNet's million photographs as the old task, which is the usual meaning of
            "pretrained".""",
            f"""每类 {most} 张时，留给特征去改进的余地很小：单凭像素就几乎解决的任务，用不着别处学来的边缘。每
            类 {fewest} 张时，从头训练答对 {results.statistics(SCRATCH, fewest).mean:.1%}，微调答
            对 {results.statistics(TUNED, fewest).mean:.1%}。五类极小的图像（学到了 {old:.1%}）所能教的很窄：其中没有什
            么要求特征去区分另外五类。本课的这种形式只说明这一点；通常所说的“预训练”，旧任务是 ImageNet 的上百万张照片，
            对此它什么也说明不了。""",
        )
    else:
        page.say(
            """Bare pixels leave much of this task unsolved, so features can help; the table above shows how much the
            old task's features do. The old task is five classes of the same data set. It is closer to the new task than
            ImageNet usually is to one's own task, and far smaller.""",
            """单凭像素还解决不了这个任务，特征有用武之地；旧任务的特征填补了多少，见上面的表。这里的旧任务是同一数据集
            的五个类别，比起 ImageNet 与自己的任务之间，通常更接近新任务，规模却小得多。""",
        )
    page.say(
        """In practice: before attributing a result to pretraining, train from scratch with the same budget and several
        seeds, and pair the differences. Given enough images and steps, training from scratch caught up with ImageNet's
        weights on COCO's object detection (He, Girshick and Dollár 2018, https://arxiv.org/abs/1811.08883).""",
        """由此得到的经验：在把功劳归于预训练之前，先用同样的预算、若干个种子从头训练一遍，再逐对相减。在 COCO 目标检测
        上，只要图像与步数足够，从头训练就追上了 ImageNet 权重（He、Girshick 与 Dollár 2018，
        https://arxiv.org/abs/1811.08883 ）。""",
    )
    page.record(scratch_at_most=scratch.mean, pixels_at_most=pixels.mean)
