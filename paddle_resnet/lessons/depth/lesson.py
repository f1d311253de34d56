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
from paddle_resnet.models import create_model
from paddle_resnet.plots.seeds import draw_values_and_mean
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
    page.heading("6n + 2 layers", "6n + 2 层")
    page.say(
        """The CIFAR networks of He et al. (2015, https://arxiv.org/abs/1512.03385, section 4.2) are one design of any
        depth. They have a 3x3 convolution, three stages of n blocks with 16, 32 and 64 channels, average pooling and a
        linear layer. A block has two convolutions, so there are 6n + 2 layers. The table shows the size of each depth
        as this program counts it, and the paper's table 6. Multiply-adds are for one image of 32x32 pixels.""",
        """何恺明等人（2015，https://arxiv.org/abs/1512.03385 第 4.2 节）的 CIFAR 网络是同一种设计，深度可任意取：一
        个 3x3 卷积，三个阶段各 n 个残差块，通道数为 16、32、64，最后是平均池化和线性层。每个块有两个卷积，所以
        共 6n + 2 层。下表是程序数出的各深度的规模，并与论文表 6 对照。乘加次数按一张 32x32 的图像计算。""",
    )
    summaries = {depth: model_summary(f"resnet{depth}", 32) for depth in DEPTHS}
    page.table(
        "network | n | parameters | paper (millions) | multiply-adds (millions)",
        "网络 | n | 参数量 | 论文（百万） | 乘加次数（百万）",
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
    page.say(
        f"""Both grow linearly: one more block in each stage has {step:,} parameters at every depth. This is
        `2 (9 c c + 2 c)` summed over c = 16, 32, 64; {2 * (9 * 64 * 64 + 2 * 64) / step:.0%} of them are in the last
        stage. An added block takes the same number of multiply-adds in every stage, with twice the channels and a
        quarter of the pixels.""",
        f"""两者都随深度线性增长：每个阶段各加一个块，参数就多 {step:,} 个，与深度无关，即 `2 (9 c c + 2 c)` 对 c = 16、
        32、64 求和；其中 {2 * (9 * 64 * 64 + 2 * 64) / step:.0%} 在最后一个阶段。而新增的块在每个阶段的乘加次数都相同，
        因为通道加倍时像素减为四分之一。""",
    )


def _time(page: Page, effort: Effort) -> None:
    page.heading("Time", "时间")
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
        f"""Parameters, and the time per image of 32x32 pixels (in batches of {TIMED_BATCH}, with Paddle's own
        layers).""",
        f"参数量，以及处理一张 32x32 图像所需的时间（每批 {TIMED_BATCH} 张，使用 Paddle 自带的层）。",
    )
    ratio = milliseconds[DEPTHS[-1]] / milliseconds[DEPTHS[0]]
    page.record(time_ratio=ratio)
    page.say(
        f"""Layers run one after the other, so additional layers cannot run in parallel, and time grows with depth as
        well. Here, resnet{DEPTHS[-1]} took {ratio:.1f} times as long as resnet{DEPTHS[0]}. It has
        {(DEPTHS[-1] - 2) / (DEPTHS[0] - 2):.1f} times the layers in its stages. (Medians of {rounds} interleaved
        round{"s" * (rounds > 1)}. {describe_machine().en})""",
        f"""各层只能依次计算，多出来的层无法并行，所以时间也随深度增长。这里，resnet{DEPTHS[-1]} 用时
        是 resnet{DEPTHS[0]} 的 {ratio:.1f} 倍，而各阶段的层数是后者的 {(DEPTHS[-1] - 2) / (DEPTHS[0] - 2):.1f} 倍。（轮
        流测 {rounds} 次取中位数。{describe_machine().zh}）""",
    )


def _describe_training(page: Page, config: Config, names: list[str], seeds: int) -> None:
    page.heading("What it gains", "换来了什么")
    epochs = config.train.epochs
    page.say(
        f"""Now {", ".join(names)} are trained alike on {describe_images(config).en}. The recipe: {epochs}
        epoch{"s" * (epochs > 1)}, batches of {config.train.batch_size}, learning rate up to
        {config.train.learning_rate:g} and back to 0 as a cosine, {seeds} seed{"s" * (seeds > 1)}. Errors are measured
        after training with the last weights, on the training images without augmentation and on the whole test
        split.""",
        f"""现在用同样的方法在 {describe_images(config).zh}上训练 {"、".join(names)}：{epochs} 轮，批大
        小 {config.train.batch_size}，学习率先升到 {config.train.learning_rate:g} 再按余弦降到 0，{seeds} 个随机种子。误
        差在训练结束后用最后的权重测量，训练误差不做数据增强，测试误差统计整个测试集。""",
    )
    note_differences_from_paper(page, config)


def _show_errors(page: Page, effort: Effort, results: dict[int, list[TrainingResult]]) -> None:
    page.table(
        "network | parameters | training error (%) | test error (%) | training time (s) | paper's test error (%)",
        "网络 | 参数量 | 训练误差（%） | 测试误差（%） | 训练时间（秒） | 论文的测试误差（%）",
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
    page.say(
        "Mean and standard deviation over the seeds. The paper's are of CIFAR-10, after 64,000 steps. The command:",
        "表中为各随机种子的均值与标准差。论文一列是 CIFAR-10 上训练 64,000 步的结果。对应的命令：",
    )
    page.values(lesson_command("depth", effort))
    page.figure(
        "errors",
        partial(draw_errors, results),
        "Errors after training by depth; a point for each seed, lines join the means.",
        "训练结束后的误差与深度的关系；每个点是一个随机种子，折线连接均值。",
    )


def _conclude(page: Page, effort: Effort, results: dict[int, list[TrainingResult]]) -> None:
    page.heading("Is it worth it?", "值得吗？")
    shallow, deep = min(results), max(results)
    gains = np.array(
        [first.test_error - last.test_error for first, last in zip(results[shallow], results[deep], strict=True)]
    )
    slower = np.mean([training.seconds for training in results[deep]]) / np.mean(
        [training.seconds for training in results[shallow]]
    )
    page.record(gains=gains.tolist(), gain=float(gains.mean()), training_time_ratio=float(slower))
    page.say(
        f"""From {shallow} to {deep} layers the test error changed by {-100 * gains.mean():+.2f} percentage points on
        average, for {slower:.1f} times the training time. {_significance(gains)[0]}""",
        f"""从 {shallow} 层到 {deep} 层，测试误差平均变化 {-100 * gains.mean():+.2f} 个百分点，训练时间
        为 {slower:.1f} 倍。{_significance(gains)[1]}""",
    )
    page.say(
        """In the paper the first added layers help most: the 12 from 20 to 32 bring 1.24 points. The next two times 12
        bring 0.34 and 0.20, and the 54 from 56 to 110 bring 0.54. A network of 1,202 layers and 19.4 million parameters
        was worse than 110 layers (7.93%), at a training error as low. The authors attribute this to overfitting.""",
        """在论文里，最先增加的层收益最大：从 20 层到 32 层这 12 层降低 1.24 个百分点，接下来的两个 12 层分别降
        低 0.34 和 0.20，从 56 层到 110 层的 54 层降低 0.54。1,202 层的网络（1,940 万参数）反而不如 110 层（7.93%），而
        两者训练误差同样低，作者归因于过拟合。""",
    )
    if not effort.full:
        page.say(
            """The quick form cannot show a gain from depth. The digits are too easy and the training is too short, so
            the deeper network is at best as good. `--full` trains on CIFAR-10.""",
            """快速版无法显示深度的收益：手写数字太简单，训练又太短，更深的网络至多同样好。`--full` 在 CIFAR-10 上训
            练。""",
        )


def _significance(gains: np.ndarray) -> tuple[str, str]:
    """Say in English and Chinese whether the gain differs from zero by more than the seeds' variation."""
    if len(gains) < 2:
        return "With one seed this may be chance.", "只有一个随机种子，无法排除偶然。"
    gain = SeedStatistics.of(gains.tolist())
    interval = f"{-100 * gain.mean:+.2f} ± {100 * gain.ci95:.2f}"
    if gain.sign == 0:
        return (
            f"With {gain.runs} seeds it does not differ significantly from zero (95% interval {interval}).",
            f"仅凭 {gain.runs} 个随机种子，不能断定它不为零（95% 区间 {interval}）。",
        )
    return (
        f"This is more than the variation between the seeds (95% interval {interval}).",
        f"这超出了随机种子之间的差异（95% 区间 {interval}）。",
    )


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
