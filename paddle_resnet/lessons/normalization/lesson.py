"""Batch, layer, instance and group normalisation: one formula, averaged over four different sets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import paddle
from paddle import nn

from paddle_resnet.lessons.common.small_cnn import ignore_batch_norm_warning
from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.lessons.normalization import training as normalization_training
from paddle_resnet.lessons.normalization.plots import draw_batch_sensitivity, draw_blocks

SHAPE = (4, 6, 2, 2)
"""N, C, H, W of the example tensors."""

GROUPS = 2
EPSILON = 1e-5
BATCH_SIZES = (2, 4, 8, 16, 32, 64)
BATCHES = 40
"""Number of different batches with one image, for each batch size."""


@dataclass(frozen=True)
class Norm:
    """One normalisation: as Paddle's layer and in numpy."""

    name: str
    shares: str
    axes: tuple[int, ...]

    def layer(self, shape: tuple[int, ...]) -> nn.Layer:
        channels = shape[1]
        match self.name:
            case "Batch":
                return nn.BatchNorm2D(channels, epsilon=EPSILON)
            case "Layer":
                return nn.LayerNorm(list(shape[1:]), epsilon=EPSILON)
            case "Instance":
                return nn.InstanceNorm2D(channels, epsilon=EPSILON)
            case _:
                return nn.GroupNorm(GROUPS, channels, epsilon=EPSILON)

    def by_numpy(self, x: np.ndarray) -> np.ndarray:
        batch, _, height, width = x.shape
        shape = (batch, GROUPS, -1, height, width) if self.name == "Group" else x.shape
        return _standardized(x.astype(np.float64).reshape(shape), self.axes).reshape(x.shape)


NORMS = (
    Norm("Batch", "N, H, W", (0, 2, 3)),
    Norm("Layer", "C, H, W", (1, 2, 3)),
    Norm("Instance", "H, W", (2, 3)),
    Norm("Group", "C / groups, H, W", (2, 3, 4)),
)


@ignore_batch_norm_warning()
def teach(page: Page, effort: Effort) -> None:
    """Draw the four sets, check each layer against numpy, and measure the influence of the batch."""
    _four_sets(page)
    _by_numpy(page)
    _special_cases(page)
    _batch_influence(page)
    normalization_training.teach(page, effort)


def _four_sets(page: Page) -> None:
    page.heading("One formula, four sets", "一个公式，四种范围")
    page.values("y = gamma * (x - mean(S)) / sqrt(variance(S) + epsilon) + beta")
    page.say(
        f"""All four compute this formula. They differ in S, the set of values that share one mean and one variance. The
        layer itself shows which values belong to S: the gradient of one output by an input is nonzero exactly if the
        input belongs to S. For a tensor of {SHAPE[0]} images and {SHAPE[1]} channels, the figure shows this set for one
        value of the first image's last channel.""",
        f"""四种归一化算的都是这个式子，区别只在 S：共用同一个均值和方差的是哪些值。哪些值属于 S，可以直接问这一层：取某
        一个输出对全部输入的梯度，参与了计算的输入处梯度不为零。对一个 {SHAPE[0]} 张图像、{SHAPE[1]} 个通道的张量，下图
        画出第一张图像最后一个通道里某个值所对应的 S。""",
    )
    masks = {norm.name: shared_statistics_mask(norm.layer(SHAPE), SHAPE) for norm in NORMS}
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    page.record(**{f"shared_{name.lower()}": count for name, count in counts.items()})
    axes = {norm.name: str(norm.axes) for norm in NORMS}
    axes["Group"] += " of [N, groups, C / groups, H, W]"
    page.table(
        "normalisation | S goes over | axes in numpy | values in S | how many S",
        "归一化 | S 的范围 | numpy 的轴 | S 中值的个数 | S 的个数",
        [
            [norm.name, norm.shares, axes[norm.name], counts[norm.name], math.prod(SHAPE) // counts[norm.name]]
            for norm in NORMS
        ],
    )
    page.figure(
        "four_sets",
        partial(draw_blocks, {name: mask.reshape(*SHAPE[:2], -1) for name, mask in masks.items()}),
        f"""The figure of Wu and He (2018, figure 2), drawn from the layers' gradients. Blue: the values that share one
        mean and variance. N is the batch, C the channels; height and width are one axis. Group: {GROUPS} groups.""",
        f"""Wu 与 He（2018，图 2）的示意图，由各层的梯度画出。蓝色：共用一个均值和方差的值。N 是批次，C 是通道，高和宽合
        成一个轴。Group：{GROUPS} 组。""",
    )
    page.say(
        """Only batch normalisation combines images; the other three treat each image separately. Layer normalisation
        (Ba et al. 2016, https://arxiv.org/abs/1607.06450) uses the whole image. Instance normalisation (Ulyanov et al.
        2016, https://arxiv.org/abs/1607.08022) uses each channel of it. Group normalisation (Wu and He 2018,
        https://arxiv.org/abs/1803.08494) combines some channels.""",
        """只有批归一化跨越不同图像，其余三种都只看单张图像。层归一化（Ba 等 2016，https://arxiv.org/abs/1607.06450 ）取
        整张图像，实例归一化（Ulyanov 等 2016，https://arxiv.org/abs/1607.08022 ）取其中每个通道，组归一化
        （Wu 与 He 2018，https://arxiv.org/abs/1803.08494 ）把若干通道放在一起。""",
    )


def shared_statistics_mask(layer: nn.Layer, shape: tuple[int, ...]) -> np.ndarray:
    """Return the mask of the inputs that affect the output of the first image, last channel, first pixel."""
    layer.train()
    x = paddle.to_tensor(_random_input(shape), stop_gradient=False)
    layer(x)[0, -1, 0, 0].backward()
    return x.grad.numpy() != 0


def _by_numpy(page: Page) -> None:
    page.heading("Each against numpy", "逐一与 numpy 对照")
    page.values(
        "def standardized(x, axes, epsilon=1e-5):",
        "    deviation = np.sqrt(x.var(axes, keepdims=True) + epsilon)",
        "    return (x - x.mean(axes, keepdims=True)) / deviation",
    )
    x = _random_input(SHAPE)
    rows = []
    for norm in NORMS:
        layer = norm.layer(SHAPE)
        layer.train()
        in_training = layer(paddle.to_tensor(x)).numpy()
        layer.eval()
        in_evaluation = layer(paddle.to_tensor(x)).numpy()
        error = float(np.abs(in_training - norm.by_numpy(x)).max())
        change = float(np.abs(in_evaluation - in_training).max())
        learned = [list(each.shape) for each in layer.parameters() if not each.stop_gradient]
        rows.append([norm.name, type(layer).__name__, f"{error:.1e}", f"{change:.4f}", *learned])
        page.record(**{f"error_{norm.name.lower()}": error, f"eval_change_{norm.name.lower()}": change})
    page.table(
        "normalisation | in paddle.nn | difference from numpy | train against eval | gamma | beta",
        "归一化 | paddle.nn 中 | 与 numpy 之差 | 训练与评估之差 | gamma | beta",
        rows,
    )
    page.say(
        """Only batch normalisation has a different output in evaluation than in training, because only it uses running
        statistics. Note the shape of layer normalisation's gamma. Paddle's layer learns one value for every position of
        every channel, so it accepts one image size only; the others learn one value per channel.""",
        """只有批归一化在评估时和训练时的答案不同，因为只有它要用滑动统计量来作答。注意层归一化的 gamma 的形状：
        Paddle 的实现对每个通道的每个位置都学一个值，因此只适用于一种图像尺寸；其余三种每个通道学一个。""",
    )


def _special_cases(page: Page) -> None:
    page.heading("Two of them are special cases of group normalisation", "其中两种是组归一化的两个极端")
    x = paddle.to_tensor(_random_input(SHAPE))
    channels = SHAPE[1]
    one_group, all_groups = (nn.GroupNorm(groups, channels, epsilon=EPSILON) for groups in (1, channels))
    layer_norm, instance_norm = NORMS[1].layer(SHAPE), NORMS[2].layer(SHAPE)
    one = float((one_group(x) - layer_norm(x)).abs().max().item())
    many = float((all_groups(x) - instance_norm(x)).abs().max().item())
    page.record(one_group_minus_layer=one, all_groups_minus_instance=many)
    page.values(
        f"GroupNorm(1, {channels})(x) - LayerNorm([{channels}, {SHAPE[2]}, {SHAPE[3]}])(x):   at most {one:.1e}",
        f"GroupNorm({channels}, {channels})(x) - InstanceNorm2D({channels})(x):      at most {many:.1e}",
    )
    page.say(
        """With one group it is layer normalisation, with as many groups as channels it is instance normalisation (gamma
        and beta at their initial values, 1 and 0). The paper uses 32 groups.""",
        "只有一组时就是层归一化，组数等于通道数时就是实例归一化（gamma 和 beta 取初值 1 和 0 时）。论文取 32 组。",
    )


def _batch_influence(page: Page) -> None:
    page.heading("How much the output depends on the other images", "同批的图像有多大影响")
    spreads = {norm.name: [batch_sensitivity(norm, size) for size in BATCH_SIZES] for norm in NORMS}
    page.record(**{f"spread_{name.lower()}": values for name, values in spreads.items()}, batch_sizes=BATCH_SIZES)
    by_batch = spreads["Batch"]
    slope = float(np.polyfit(np.log(BATCH_SIZES), np.log(by_batch), 1)[0])
    others = max(max(values) for name, values in spreads.items() if name != "Batch")
    page.record(spread_slope=slope)
    others_en, others_zh = (
        ("exactly 0", "恰好为 0") if others == 0 else (f"at most {others:.1e}", f"至多为 {others:.1e}")
    )
    page.say(
        f"""Put the same image into {BATCHES} random batches in training mode, and measure how much its output varies.
        For batch normalisation its standard deviation is {by_batch[0]:.3f} in batches of {BATCH_SIZES[0]} and
        {by_batch[-1]:.3f} in batches of {BATCH_SIZES[-1]}, where the output's own deviation is about 1. Over these
        sizes it is proportional to N to the power {slope:.2f}; the error of a mean over N images is proportional to N
        to the power -0.5. For the other three it is {others_en}, because they do not use the other images.""",
        f"""把同一张图像放进 {BATCHES} 个随机批次（训练模式），看它的输出波动多大。对批归一化，批大小
        为 {BATCH_SIZES[0]} 时波动为 {by_batch[0]:.3f}，为 {BATCH_SIZES[-1]} 时为 {by_batch[-1]:.3f}，而输出自身的标准差
        约为 1。在这些批大小上，它按 N 的 {slope:.2f} 次方变化；N 张图像的均值，其误差按 N 的 -0.5 次方变化。其余三种的
        波动：{others_zh}，因为它们根本不看同批的其他图像。""",
    )
    page.figure(
        "batch_influence",
        partial(draw_batch_sensitivity, BATCH_SIZES, spreads),
        """How much the output for one image varies with the rest of its batch: the standard deviation over batches,
        root mean square over the output. The dotted line falls as 1 / sqrt(N) from the first point.""",
        """同一张图像的输出因同批其他图像不同而产生的波动：对不同批次求标准差，再对各输出值取均方根。虚线从第一点起
        按 1 / sqrt(N) 下降。""",
    )


def batch_sensitivity(norm: Norm, batch_size: int) -> float:
    """Return the standard deviation of one image's output over random batches, root mean square over its values.

    Each channel of an image has its own level, because real images differ more than the pixels of one image.
    """
    random = np.random.default_rng(0)
    shape = (batch_size, *SHAPE[1:])
    layer = norm.layer(shape)
    layer.train()
    first = _images(random, (1, *SHAPE[1:]))
    outputs = []
    for _ in range(BATCHES):
        batch = np.concatenate([first, _images(random, (batch_size - 1, *SHAPE[1:]))])
        outputs.append(layer(paddle.to_tensor(batch)).numpy()[0])
    return float(np.sqrt(np.var(outputs, axis=0, dtype=np.float64).mean()))


def _images(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    levels = random.normal(size=(*shape[:2], 1, 1))
    return (levels + 0.5 * random.normal(size=shape)).astype(np.float32)


def _random_input(shape: tuple[int, ...]) -> np.ndarray:
    """Return random values with a mean and scale for each image and channel."""
    random = np.random.default_rng(0)
    centre, spread = random.normal(0, 2, (*shape[:2], 1, 1)), random.uniform(0.5, 2, (*shape[:2], 1, 1))
    return (centre + spread * random.normal(size=shape)).astype(np.float32)


def _standardized(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + EPSILON)
