"""Grouped convolution: what it computes, how ResNeXt uses it, and the limits of one channel per group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import paddle
from paddle import nn

from paddle_resnet.lessons.common.timing import describe_machine
from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import Page, Text
from paddle_resnet.lessons.grouped_convolution.costs import (
    ConvShape,
    block_cost,
    channel_dependencies,
    conv_by_slices,
    conv_chain,
    forward_times,
    resnext50,
    to_dense,
)
from paddle_resnet.lessons.grouped_convolution.plots import (
    draw_cardinality,
    draw_dependencies,
    draw_times,
    draw_weights,
)
from paddle_resnet.models import count_parameters
from paddle_resnet.models.summary import summarize

CARDINALITIES = ((1, 64), (2, 40), (4, 24), (8, 14), (32, 4))  # Xie et al. 2017, table 2
CHANNELS = 16
TIMED = ConvShape(channels=128, side=28, batch=8)
PAPER = {"1x64d": ("25.5", "4.1"), "32x4d": ("25.0", "4.2")}  # table 1: million parameters, billion multiply-adds


def teach(page: Page, effort: Effort) -> None:
    """Show a grouped convolution as slices and as blocks, count ResNeXt's costs, and measure times."""
    paddle.seed(0)
    _slices(page)
    _blocks(page)
    _cardinality(page)
    _networks(page)
    _mixing(page)
    _depthwise(page, repeats=max(3, round(15 * effort.scale)))


def _slices(page: Page) -> None:
    page.heading("Several small convolutions side by side", "并排的几个小卷积")
    layer = nn.Conv2D(8, 8, 3, padding=1, groups=2, bias_attr=False)
    x = paddle.randn([1, 8, 6, 6])
    with paddle.no_grad():
        grouped, sliced = layer(x).numpy(), conv_by_slices(x, layer.weight, 2).numpy()
        full = paddle.to_tensor(to_dense(layer.weight.numpy(), 2))
        dense = nn.functional.conv2d(x, full, padding=1).numpy()
    page.say(
        """In an ordinary convolution every output channel depends on every input channel. With g groups, input and
        output channels are cut into g equal parts, and each part of the output depends on one part of the input only.
        Here are 8 channels in 2 groups: the weight has 4 input channels for each output, not 8. `conv_by_slices` cuts
        the input and the weight in two, convolves twice, and concatenates the results:""",
        """普通卷积的每个输出通道都看所有输入通道。分成 g 组后，输入通道和输出通道各切成 g 等份，每份输出只看自己那一份
        输入。下例是 8 个通道分 2 组：每个输出通道的权重只有 4 个输入通道，而不是 8 个。`conv_by_slices` 把输入和权重各
        切成两半，分别做卷积，再把结果首尾拼接：""",
    )
    difference = float(np.abs(grouped - sliced).max())
    block_difference = float(np.abs(grouped - dense).max())
    page.values(
        f"Conv2D(8, 8, 3, groups=1).weight.shape          [8, 8, 3, 3]   {8 * 8 * 9} weights",
        f"Conv2D(8, 8, 3, groups=2).weight.shape          {list(layer.weight.shape)}   {layer.weight.size} weights",
        f"largest output                                  {np.abs(grouped).max():.4f}",
        f"largest |Conv2D(x) - conv_by_slices(x)|         {difference:.1e}",
        f"largest |Conv2D(x) - conv2d(x, to_dense(...))|  {block_difference:.1e}",
    )
    page.say(
        """The last line is a third view: an ordinary convolution most of whose weights are fixed at zero. The next
        picture shows it.""",
        "最后一行是第三种看法：它是一个普通卷积，只是大部分权重恒为零。下面的图画的就是这一点。",
    )
    page.record(
        slices_difference=difference,
        blocks_difference=block_difference,
        largest_output=float(np.abs(grouped).max()),
        grouped_weights=int(layer.weight.size),
    )


def _blocks(page: Page) -> None:
    page.heading("Blocks on the diagonal", "对角线上的方块")
    weights = {}
    for groups in (1, 2, 4, CHANNELS):
        layer = nn.Conv2D(CHANNELS, CHANNELS, 3, padding=1, groups=groups, bias_attr=False)
        weights[groups] = to_dense(layer.weight.numpy(), groups)
    page.figure(
        "blocks",
        lambda: draw_weights(weights, f"A 3x3 convolution of {CHANNELS} channels, written as an ordinary one"),
        """Each square is a 3x3 kernel from one input channel to one output channel; white ones are fixed at zero. With
        as many groups as channels only the diagonal is left: the depthwise convolution.""",
        """每个小方格是一个输入通道到一个输出通道的 3x3 卷积核，白色的恒为零。组数等于通道数时只剩对角线，即逐通道
        （depthwise）卷积。""",
    )
    counts = {groups: int(np.count_nonzero(weight)) for groups, weight in weights.items()}
    page.say(
        f"""There are g blocks of 1/g of the height and 1/g of the width. So weights and multiply-adds are 1/g of the
        ordinary convolution's, here {", ".join(f"{count:,}" for count in counts.values())}. The price is that the
        groups exchange no information.""",
        f"""g 个方块，高和宽都是原来的 1/g：权重数和乘加次数都是普通卷积的 1/g，这里依次
        为 {"、".join(f"{count:,}" for count in counts.values())}。放弃的是组与组之间的交流。""",
    )
    page.record(block_weights=list(counts.values()))


def _cardinality(page: Page) -> None:
    page.heading("ResNeXt: the same cost, a wider middle", "ResNeXt：代价不变，中间更宽")
    blocks = [block_cost(groups, width) for groups, width in CARDINALITIES]
    depthwise = block_cost(_depthwise_width(blocks[0].weights), 1)
    page.say(
        """ResNeXt (Xie et al. 2017, https://arxiv.org/abs/1611.05431) spends the saved weights on width. Its block is
        the bottleneck (1x1, 3x3, 1x1 on 256 channels) with a 3x3 convolution of C groups of d channels; C is called
        cardinality. By equation 4 it has C * (256 * d + 3 * 3 * d * d + d * 256) weights. Table 2 chooses d so that
        this number stays near 70,000. Counted from this package's `Bottleneck`:""",
        """省下来的权重拿来做什么？ResNeXt（Xie 等 2017，https://arxiv.org/abs/1611.05431 ）把它们用在宽度上。它的残差块
        就是瓶颈块（在 256 个通道上做 1x1、3x3、1x1 卷积），其中 3x3 卷积分成 C 组、每组 d 个通道；C 称为基数
        （cardinality）。由式 4，权重数为 C * (256 * d + 3 * 3 * d * d + d * 256)；表 2 选取 d 使它保持在 70,000 左右。
        从本项目的 `Bottleneck` 数出来是：""",
    )
    page.table(
        "C groups | d channels each | width C*d | weights | in the 3x3 | million MACs at 56x56",
        "组数 C | 每组通道 d | 宽度 C*d | 权重 | 其中 3x3 | 56x56 时的百万 MAC",
        [
            [
                block.groups,
                block.group_width,
                block.width,
                f"{block.weights:,}",
                f"{block.grouped / block.weights:.1%}",
                f"{block.weights * 56 * 56 / 1000000.0:.0f}",
            ]
            for block in [*blocks, depthwise]
        ],
    )
    page.figure(
        "cardinality",
        lambda: draw_cardinality([*blocks, depthwise], "Table 2 of ResNeXt, and one step beyond it"),
        f"""From left to right more groups at the same cost. The last one, {depthwise.label}, has a group for each
        channel and is not the paper's.""",
        f"从左到右组数增加，代价不变。最后一个 {depthwise.label} 每个通道自成一组，不是论文里的。",
    )
    page.say(
        f"""The paper reports that accuracy grows along this row. On ImageNet the error of the network of 50 layers is
        23.9% as 1x64d and 22.2% as 32x4d (validation images, table 3; nothing is trained here). The figure also shows
        the limit. At 32x4d only {blocks[-1].grouped / blocks[-1].weights:.1%} of the weights are in the 3x3
        convolution, so more groups save almost nothing. Down to one channel per group, the width grows from
        {blocks[-1].width} to {depthwise.width}.""",
        f"""论文报告，沿着这一行准确率逐步提高：在 ImageNet 验证集上，50 层网络的错误率 1x64d 为 23.9%，32x4d 为 22.2%
        （表 3；本课不做训练）。图中也看得出这条路的尽头：到 32x4d，3x3 卷积里只
        剩 {blocks[-1].grouped / blocks[-1].weights:.1%} 的权重，再分更多组也几乎省不出什么；一直分到每组一个通道，宽度
        也只从 {blocks[-1].width} 增加到 {depthwise.width}。""",
    )
    page.record(
        block_labels=[block.label for block in blocks],
        block_widths=[block.width for block in blocks],
        block_costs=[block.weights for block in blocks],
        grouped_shares=[block.grouped / block.weights for block in blocks],
        depthwise_width=depthwise.width,
        depthwise_cost=depthwise.weights,
    )


def _depthwise_width(weights: int) -> int:
    """Solve equation 4 with d = 1 for C."""
    return round(weights / (256 + 9 + 256))


def _networks(page: Page) -> None:
    page.heading("The whole network", "整个网络")
    page.say(
        """The same for whole networks of 50 layers at 224x224; d doubles with the width of each stage, C is
        constant.""",
        "50 层的整个网络在 224x224 下也是如此；d 随各阶段的宽度加倍，C 不变。",
    )
    rows, parameters, macs = [], [], []
    for groups, width in CARDINALITIES:
        network = resnext50(groups, width)
        parameters.append(count_parameters(network))
        macs.append(summarize(network, (1, 3, 224, 224)).macs)
        label = f"{groups}x{width}d"
        paper = "{} M, {} G".format(*PAPER[label]) if label in PAPER else ""
        rows.append((label, f"{parameters[-1]:,}", f"{macs[-1] / 1e9:.2f}", paper))
    page.table("block | parameters | GMACs | paper, table 1", "残差块 | 参数 | GMAC | 论文表 1", rows)
    page.say(
        """1x64d is `create_model("resnet50")`, and 32x4d is `create_model("resnext50_32x4d")`.""",
        """1x64d 就是 `create_model("resnet50")`，32x4d 就是 `create_model("resnext50_32x4d")`。""",
    )
    page.record(network_parameters=parameters, network_macs=macs)


def _mixing(page: Page) -> None:
    page.heading("Which channels are connected", "哪些通道相通")
    groups = 4
    matrices = {
        "one grouped 3x3": channel_dependencies(nn.Conv2D(CHANNELS, CHANNELS, 3, padding=1, groups=groups), CHANNELS),
        "three grouped 3x3": channel_dependencies(conv_chain(CHANNELS, groups, pointwise=False), CHANNELS),
        "grouped, 1x1, grouped": channel_dependencies(conv_chain(CHANNELS, groups, pointwise=True), CHANNELS),
    }
    page.say(
        f"""Change one input channel of {CHANNELS}, and see which output channels change. After a convolution of
        {groups} groups these are the channels of its own group. After three such convolutions they are the same,
        because a product of block-diagonal matrices is block-diagonal. Depth does not help: these are {groups} separate
        networks. With one 1x1 convolution between them, every output depends on every input. In ResNeXt's block the two
        1x1 convolutions do this, so they must not be grouped as well. Networks that group them shuffle the channels
        (ShuffleNet, Zhang et al. 2017, https://arxiv.org/abs/1707.01083).""",
        f"""改变 {CHANNELS} 个输入通道中的一个，看哪些输出通道随之变化。经过一个分 {groups} 组的卷积，只有同组的会变；经
        过三个仍是如此，因为分块对角矩阵的乘积还是分块对角的。加深没有用：这其实是 {groups} 个互不相干的网络。中间放一
        个 1x1 卷积，所有通道就都相通了。在 ResNeXt 的残差块里，这由两个 1x1 卷积完成，所以它们不能也分组（也分组的网络
        需要打乱通道：ShuffleNet，Zhang 等 2017，https://arxiv.org/abs/1707.01083 ）。""",
    )
    page.figure(
        "mixing",
        lambda: draw_dependencies(
            matrices, f"{CHANNELS} channels, {groups} groups: which output depends on which input"
        ),
        "Blue: the output channel changed when the input channel was changed.",
        "蓝色：改变该输入通道时，该输出通道随之变化。",
    )
    page.record(connected=[float(matrix.mean()) for matrix in matrices.values()])


def _depthwise(page: Page, repeats: int) -> None:
    page.heading("Why not a group for each channel?", "为什么不让每个通道自成一组？")
    groups = [2**power for power in range(8)]
    work, moved = [TIMED.macs(number) for number in groups], [TIMED.numbers_moved(number) for number in groups]
    times = forward_times(TIMED, groups, repeats)
    pair = 1 / TIMED.channels + 1 / 9
    page.say(
        f"""By the counts alone, one should. At {TIMED.channels} channels, a depthwise 3x3 convolution and the 1x1
        convolution that it needs take 1/{TIMED.channels} + 1/9 = {pair:.3f} of an ordinary one's multiply-adds.
        MobileNet is built on this (Howard et al. 2017, https://arxiv.org/abs/1704.04861, section 3.1). But a processor
        does not only multiply. With any number of groups it moves input and output through memory. The fewer
        multiplications there are per value moved, the less the arithmetic determines the time. The table is for a 3x3
        convolution of {TIMED.channels} channels at {TIMED.side}x{TIMED.side}, a batch of {TIMED.batch}, forward pass
        only; times are medians of {repeats}. {describe_machine().en}""",
        f"""若只看计数，应当如此：通道数为 {TIMED.channels} 时，一个逐通道 3x3 卷积加上它所需要的 1x1 卷积，乘加次数只有
        普通卷积的 1/{TIMED.channels} + 1/9 = {pair:.3f}。MobileNet 就建立在这上面（Howard 等 2017，
        https://arxiv.org/abs/1704.04861 ，3.1 节）。但处理器不只是做乘法。不论分多少组，输入和输出都要经过内存搬运；每
        搬一个数所做的乘法越少，算术对时间的影响就越小。下面是 {TIMED.channels} 个通道、{TIMED.side}x{TIMED.side}、批大
        小 {TIMED.batch} 的 3x3 卷积，只做前向；时间是 {repeats} 次的中位数。{describe_machine().zh}""",
    )
    page.table(
        " | ".join(["groups | million MACs | MACs per number moved", *(f"ms, {backend}" for backend in times)]),
        " | ".join(["组数 | 百万 MAC | 每搬一个数的 MAC", *(f"毫秒，{_BACKENDS_ZH[backend]}" for backend in times)]),
        [
            [number, f"{work[index] / 1e6:.1f}", f"{work[index] / moved[index]:.1f}"]
            + [f"{1000 * seconds[index]:.2f}" for seconds in times.values()]
            for index, number in enumerate(groups)
        ],
    )
    page.figure(
        "times",
        lambda: draw_times(groups, work, times, f"3x3 convolution, {TIMED.channels} channels: work and time"),
        "If time were proportional to the multiply-adds, the lines would lie on the dashed one.",
        "若时间与计算量成正比，各条线都会落在虚线上。",
    )
    saved = work[0] / work[-1]
    outcome = _describe_times(times)
    page.say(
        f"""From 1 group to {groups[-1]} the multiply-adds fell to 1/{saved:.0f}. {outcome.en} A speed measured on one
        machine does not hold on another: multiply-adds can be counted, but time has to be measured on the target
        machine.""",
        f"""从 1 组到 {groups[-1]} 组，乘加次数降到 1/{saved:.0f}。{outcome.zh}在一台机器上测得的速度不是另一台的规律：
        计算量可以数，时间则要在实际运行的地方测。""",
    )
    page.record(
        timed_groups=groups,
        timed_macs=work,
        macs_per_number=[amount / numbers for amount, numbers in zip(work, moved, strict=True)],
        separable_share=pair,
        times=[[float(value) for value in seconds] for seconds in times.values()],
        backends=list(times),
    )


def time_per_mac_ratio(seconds: Sequence[float]) -> float:
    """Return the time per multiply-add with one channel per group, relative to one group."""
    return TIMED.channels * seconds[-1] / seconds[0]


def _describe_times(times: Mapping[str, Sequence[float]]) -> Text:
    english, chinese = [], []
    for backend, seconds in times.items():
        ratio, slower = seconds[0] / seconds[-1], time_per_mac_ratio(seconds)
        change = f"fell to 1/{ratio:.1f}" if ratio > 1 else f"did not fall: it is {1 / ratio:.1f} times as long"
        english.append(f"The time of {backend} {change}; a multiply-add took {slower:.1f} times as long as before.")
        change = f"降到 1/{ratio:.1f}" if ratio > 1 else f"没有下降，反而是原来的 {1 / ratio:.1f} 倍"
        chinese.append(f"{_BACKENDS_ZH[backend]}的时间{change}，平均每次乘加用时是原来的 {slower:.1f} 倍。")
    return Text(" ".join(english), "".join(chinese))


_BACKENDS_ZH = {"Paddle's own layer": "Paddle 自带的层", "oneDNN's layer": "oneDNN 的层"}
