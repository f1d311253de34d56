"""Degradation: a deeper plain network is worse on the images it was trained on; a deeper residual one is not."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import paddle
from paddle import nn

from paddle_resnet import paddle_compat
from paddle_resnet.config import Config
from paddle_resnet.lessons.common.runs import (
    TrainingResult,
    choose_seeds,
    describe_images,
    note_differences_from_paper,
    train_seeds,
    update_settings,
)
from paddle_resnet.lessons.common.statistics import format_percent
from paddle_resnet.lessons.degradation.plots import draw_curves, draw_final_errors
from paddle_resnet.lessons.framework.effort import Effort, lesson_command
from paddle_resnet.lessons.framework.page import Page, Text
from paddle_resnet.models import count_parameters, create_model
from paddle_resnet.models.blocks import PlainBlock
from paddle_resnet.models.resnet import ResNet

SHALLOW, DEEP = 20, 56
KINDS = {"plain": "-", "resnet": "A"}
"""Prefix of the networks' names, and the option of section 3.3 for their shortcuts."""

SEEDS = (0, 1, 2)

QUICK: dict[str, Any] = {
    "data": {"source": "digits", "image_size": 8},
    "train": {"epochs": 10, "batch_size": 64, "learning_rate": 0.1, "weight_decay": 1e-4},
}
# Max-pooling in the stem quarters the work of later layers, so that three seeds take an hour.
FULL: dict[str, Any] = {
    "data": {"source": "cifar10", "image_size": 32},
    "augment": {"pad": 4, "flip": True},
    "model": {"stem": "cifar_pool"},
    "train": {"epochs": 4, "batch_size": 128, "learning_rate": 0.1, "weight_decay": 1e-4, "cpu_precision": "auto"},
}


def teach(page: Page, effort: Effort) -> None:
    """Construct a deep network that equals a shallow one, then train both kinds at both depths."""
    _ask(page)
    _construct(page)
    settings = FULL if effort.full else QUICK
    seeds = choose_seeds(effort, SEEDS)
    config = Config.from_values(update_settings(settings, effort), effort.overrides)
    _describe_training(page, config, len(seeds))
    results = train_seeds(
        page, effort, settings, [f"{kind}{depth}" for kind in KINDS for depth in (SHALLOW, DEEP)], seeds
    )
    _show_errors(page, effort, results)
    _show_curves(page, effort, results)
    _conclude(page, effort, results)


def _ask(page: Page) -> None:
    page.heading("A deeper network should never be worse on its training images", "更深的网络在训练集上本不该更差")
    page.say(
        """Take a network that works, and add layers. The deep network can compute whatever the shallow one computes, if
        the added layers are the identity. So the best deep network has at most the training error of the shallow one.
        Its test error may be higher, but that is overfitting, and a different question. He et al. (2015,
        https://arxiv.org/abs/1512.03385, section 1) found that training does not reach this solution. Plain stacks of
        56 layers ended with a *higher training error* than 20. The authors called this degradation, and designed the
        residual network against it.""",
        """取一个表现正常的网络，再往里加层。浅层网络能算的，深层网络一样能算：让新增的层都做恒等映射，把输入原样传下去
        即可。因此，最优的深层网络在训练集上的误差不会高于浅层网络。（测试集上可能更差，但那是过拟合，是另一回事。）何恺
        明等人（2015，https://arxiv.org/abs/1512.03385 第 1 节）却发现训练达不到这一点：同样是普通的逐层堆叠，56 层网络
        的*训练误差*反而高于 20 层。他们把这个现象称为“退化”，残差网络正是为解决它而提出的。""",
    )


def _construct(page: Page) -> None:
    page.heading("The good deep network exists", "好的深层网络是存在的")
    page.say(
        f"""The argument can be run. In a plain{DEEP}, copy the layers of a plain{SHALLOW}, and make every other 3x3
        convolution the identity. Its kernel has a 1 in the middle of each channel's own kernel, and zeros elsewhere.
        ReLU changes nothing either, as its input here is nowhere negative. Below are such a kernel for 2 channels, and
        the largest absolute difference of the two networks' logits in evaluation mode.""",
        f"""这个论证可以直接运行。把 plain{SHALLOW} 的各层复制进 plain{DEEP}，其余的 3x3 卷积全部设为“什么也不改变”的卷
        积：每个通道自己的卷积核中心为 1，其余全为 0。这里 ReLU 的输入处处非负，所以它也不改变任何值。下面是 2 个通道时
        的卷积核，以及两个网络输出的差距（评估模式下 logits 的最大绝对差）。""",
    )
    page.array("identity_kernel(2)", identity_kernel(2))
    differences = {kind: _difference_of_deepened(kind) for kind in KINDS}
    page.values(*(f"|{kind}{DEEP} - {kind}{SHALLOW}| = {value:.1e}" for kind, value in differences.items()))
    page.record(**{f"{kind}_identity_difference": value for kind, value in differences.items()})
    page.say(
        f"""So both kinds have such a solution; the question is whether training finds it. The plain network must bring
        {DEEP - SHALLOW} more convolutions to kernels that together change nothing. In the residual network a block
        computes `relu(F(x) + x)`, so the added blocks only need F = 0. A scale of zero in each block's last BatchNorm
        does this (`zero_init_last`).""",
        f"""可见两种网络都存在这样的解，问题在于训练能不能找到它。普通网络必须把另外 {DEEP - SHALLOW} 个卷积调成合起来恰
        好什么也不改变的卷积核；而残差块计算的是 `relu(F(x) + x)`，新增的块只要 F = 0 就够了——这里只需把每个块最后一个批
        归一化的缩放系数置为 0（`zero_init_last`）。""",
    )


def _difference_of_deepened(kind: str) -> float:
    paddle.seed(0)
    shallow = create_model(f"{kind}{SHALLOW}")
    shallow.eval()
    images = paddle.randn([4, 3, 16, 16])
    with paddle.no_grad():
        difference = deepen(shallow, f"{kind}{DEEP}")(images) - shallow(images)
    return float(difference.abs().max().item())


def _describe_training(page: Page, config: Config, seeds: int) -> None:
    page.heading("Four networks, one recipe", "四个网络，同一套训练方法")
    page.say(
        f"""Plain and residual networks of {SHALLOW} and {DEEP} layers, as in section 4.2 of the paper. The residual
        ones use option A, whose shortcuts have no parameters. So both networks of one depth have the same layers and
        the same number of parameters ({_parameters(SHALLOW):,} and {_parameters(DEEP):,}). All are trained alike on
        {describe_images(config).en}, with {seeds} seed{"s" * (seeds > 1)} each. The recipe: SGD with momentum, batches
        of {config.train.batch_size}, learning rate up to {config.train.learning_rate:g} and back to 0 as a cosine,
        {config.train.epochs} epoch{"s" * (config.train.epochs > 1)}.""",
        f"""普通网络与残差网络，各取 {SHALLOW} 层和 {DEEP} 层，结构同论文 4.2 节。残差网络采用选项 A，捷径连接不带参数，
        因此同样深度的两个网络层数相同、参数量也相同（分别为 {_parameters(SHALLOW):,} 和 {_parameters(DEEP):,}）。四个网
        络用同样的方法在 {describe_images(config).zh}上训练，各用 {seeds} 个随机种子：带动量的 SGD，批大
        小 {config.train.batch_size}，学习率先升到 {config.train.learning_rate:g} 再按余弦降到 0，
        共 {config.train.epochs} 轮。""",
    )
    note_differences_from_paper(page, config)


def _parameters(depth: int) -> int:
    return count_parameters(create_model(f"plain{depth}"))


def _show_errors(page: Page, effort: Effort, results: dict[str, list[TrainingResult]]) -> None:
    page.heading("Errors after training", "训练结束后的误差")
    page.say(
        """Both errors are measured after training, with the last weights, in evaluation mode and without augmentation.
        The training error is over all training images, the test error over the whole test split. Mean and standard
        deviation over the seeds.""",
        """两种误差都在训练结束之后测量：用最后的权重，在评估模式下，不做数据增强。训练误差统计全部训练图像，测试误差统
        计整个测试集。表中为各随机种子的均值与标准差。""",
    )
    page.table(
        "network | layers | shortcut (option) | training error (%) | test error (%) | seeds",
        "网络 | 层数 | 捷径连接（选项） | 训练误差（%） | 测试误差（%） | 随机种子",
        [
            [
                f"{kind}{depth}",
                depth,
                KINDS[kind],
                format_percent([each.training_error for each in results[f"{kind}{depth}"]]),
                format_percent([each.test_error for each in results[f"{kind}{depth}"]]),
                ", ".join(str(each.config.train.seed) for each in results[f"{kind}{depth}"]),
            ]
            for kind in KINDS
            for depth in (SHALLOW, DEEP)
        ],
    )
    minutes = sum(training.seconds for trainings in results.values() for training in trainings) / 60
    page.say(
        f"The command; its trainings took {minutes:.1f} minutes in all:",
        f"对应的命令，其中训练共用时 {minutes:.1f} 分钟：",
    )
    page.values(lesson_command("degradation", effort))
    page.figure(
        "final_errors",
        partial(draw_final_errors, results),
        "Errors after training; a point for each seed, a line at the mean.",
        "训练结束后的误差；每个点是一个随机种子，横线为均值。",
    )


def _show_curves(page: Page, effort: Effort, results: dict[str, list[TrainingResult]]) -> None:
    page.heading("Errors during training", "训练过程")
    augmented = ", of augmented images" if effort.full else ""
    augmented_zh = "，图像经过数据增强" if effort.full else ""
    page.say(
        f"""The same trainings by epoch, as in figure 6 of the paper. The training curves are running means{augmented}:
        each image counts with the weights of its step, so the last point differs from the table. The dashed curves are
        of the validation images, which are neither trained on nor part of the test split.""",
        f"""下图按轮次展示同样的训练过程，形式同论文图 6。训练曲线是一轮之内的累计均值{augmented_zh}：每张图像按当时的网
        络计入，因此曲线的终点与表中的数字并不相同。虚线是验证集误差，验证图像既不参与训练，也不属于测试集。""",
    )
    page.figure(
        "curves",
        partial(draw_curves, results),
        "Error by epoch; lines are means over the seeds, bands span the lowest to the highest seed.",
        "各轮次的误差；曲线为各随机种子的均值，色带为最低到最高的范围。",
    )


def _conclude(page: Page, effort: Effort, results: dict[str, list[TrainingResult]]) -> None:
    page.heading("What this shows", "结论")
    rises = {kind: _rises(results, kind) for kind in KINDS}
    page.record(
        **{f"{kind}_training_error_rise": values.tolist() for kind, values in rises.items()},
        plain_degrades_with_every_seed=bool((rises["plain"] > 0).all()),
    )
    for kind, text in (("plain", Text("plain", "普通")), ("resnet", Text("residual", "残差"))):
        page.say(*_describe_change(text, rises[kind]))
    if (rises["plain"] > 0).all() and rises["resnet"].mean() < rises["plain"].mean():
        page.say(
            """The deeper plain network is worse on its own training images, so this is not overfitting. It could be as
            good, but training did not get there. The residual network of the same layers and parameters is not worse,
            or less so. The paper does not blame vanishing gradients, because BatchNorm keeps the signals from dying out
            (section 4.1; the lesson `gradients` measures them). It conjectures that deep plain networks converge very
            slowly.""",
            """普通网络在训练过的图像上就变差了，所以不是过拟合：更深的网络本可以同样好，只是训练没能到达。层与参数量都
            相同的残差网络则没有付出这个代价，或者代价更小。论文并不认为这是梯度消失造成的：批归一化使信号不至于衰减殆尽
            （4.1 节；`gradients` 一课对梯度做了测量）。论文推测，深的普通网络收敛得极慢。""",
        )
    _state_limits(page, effort, rises, results[f"plain{DEEP}"][0].steps)


def _rises(results: dict[str, list[TrainingResult]], kind: str) -> np.ndarray:
    """Return the deeper network's training error minus the shallower one's, by seed."""
    shallow, deep = (
        np.array([training.training_error for training in results[f"{kind}{depth}"]]) for depth in (SHALLOW, DEEP)
    )
    return deep - shallow


def _describe_change(kind: Text, rises: np.ndarray) -> tuple[str, str]:
    mean, by_seed = f"{100 * rises.mean():+.2f}", ", ".join(f"{100 * rise:+.2f}" for rise in rises)
    higher, lower = int((rises > 0).sum()), int((rises < 0).sum())
    return (
        f"""From {SHALLOW} to {DEEP} layers, the {kind.en} network's training error changed by {mean} percentage points
        on average ({by_seed} by seed). It is higher with {higher} of {len(rises)} seeds, lower with {lower}.""",
        f"""从 {SHALLOW} 层到 {DEEP} 层，{kind.zh}网络的训练误差平均变化 {mean} 个百分点（各随机种子分别为 {by_seed}）：
        {len(rises)} 个种子中有 {higher} 个升高、{lower} 个降低。""",
    )


def _state_limits(page: Page, effort: Effort, rises: dict[str, np.ndarray], steps: int) -> None:
    if effort.full:
        degrades, gains = bool((rises["plain"] > 0).all()), bool((rises["resnet"] < 0).all())
        page.say(
            f"""This {"reproduces" if degrades else "does not reproduce"} one result of the paper's figure 6: the deeper
            plain network is worse on its training images. It {"reproduces" if gains else "does not reproduce"} the
            other: the deeper residual network is better on
            them{"" if gains else ", which takes a longer training"}.""",
            f"""对照论文图 6：“更深的普通网络在训练集上更差”这一点{"得到了重现" if degrades else "没有重现"}；“更深的残
            差网络在训练集上更好”这一点{"也得到了重现" if gains else "没有重现，那需要更长的训练"}。""",
        )
        page.say(
            f"""Each training took {steps:,} steps, the paper's 64,000. There residual networks continued to gain from
            depth up to 110 layers: 8.75% test error with 20 layers, 6.97% with 56 (table 6). A training of this length
            shows how easily each network trains, not its final error.""",
            f"""这里每次训练为 {steps:,} 步；论文训练了 64,000 步，残差网络的收益一直延续到 110 层：20 层的测试误差
            为 8.75%，56 层为 6.97%（表 6）。这样长度的训练说明的是哪种网络更容易训练，而不是它们最终的水平。""",
        )
    else:
        page.say(
            f"""This was the quick form: small images, an easy task, {steps:,} steps. It shows how easily each network
            trains. The task is too easy to show that a residual network gains from depth, and the training too short to
            show the final error of the plain ones. `--full` trains on CIFAR-10.""",
            f"""以上是快速版：图像小、任务简单，只训练 {steps:,} 步。它能说明哪种网络更容易训练，但不能说明残差网络从深
            度中获益（任务太简单），也不能说明普通网络经过长时间训练会怎样。`--full` 在 CIFAR-10 上训练。""",
        )


def deepen(shallow: ResNet, name: str) -> ResNet:
    """Make the deeper network `name` with the same outputs as `shallow` in evaluation mode.

    The first blocks of each stage are copies. The others are the identity; their ReLU changes nothing, because the
    output of the block before them is not negative.
    """
    deep = create_model(name, shallow.num_classes)
    state = deep.state_dict()
    for key, value in shallow.state_dict().items():
        state[key].set_value(value)
    for stage in deep.stage_names:
        blocks = list(getattr(deep, stage))
        for block in blocks[len(getattr(shallow, stage)) :]:
            if isinstance(block, PlainBlock):
                _make_identity(block.conv1, block.bn1)
                _make_identity(block.conv2, block.bn2)
            else:
                block.zero_init_last()
    deep.eval()
    return deep


def identity_kernel(channels: int) -> np.ndarray:
    """Return the weight ``[C, C, 3, 3]`` of a 3x3 convolution that is the identity."""
    kernel = np.zeros((channels, channels, 3, 3), np.float32)
    kernel[np.arange(channels), np.arange(channels), 1, 1] = 1.0
    return kernel


def _make_identity(convolution: nn.Conv2D, norm: nn.BatchNorm2D) -> None:
    convolution.weight.set_value(identity_kernel(convolution.weight.shape[0]))
    # BatchNorm divides by sqrt(variance + epsilon).
    epsilon = paddle_compat.batch_norm_settings(norm).epsilon
    norm._variance.set_value(paddle.full_like(norm._variance, 1.0 - epsilon))
