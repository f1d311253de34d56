"""ResNet-18 layer by layer: how an image changes shape, where the parameters are, where the work is."""

from __future__ import annotations

import numpy as np

from paddle_resnet.lessons.common.network_costs import (
    PART_LABELS,
    convolutions,
    costs_by_part,
    format_shape,
    model_summary,
    part_of,
)
from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import Page, Text
from paddle_resnet.lessons.network_shapes.conv_biases import bias_effects, conv_biases, is_on_shortcut
from paddle_resnet.lessons.network_shapes.plots import draw_costs, draw_route, draw_sides
from paddle_resnet.models import create_model
from paddle_resnet.models.summary import ModelSummary
from paddle_resnet.zoo.registry import Stem

PUBLISHED_PARAMETERS = 11_689_512  # torchvision's resnet18, 1,000 classes
PUBLISHED_GMACS = 1.814  # torchvision's table of weights (there named GFLOPS), 224x224
STAGE_WIDTHS = (64, 128, 256, 512)
BLOCKS = 2  # in each stage
BOOK_SIZE = 96


def teach(page: Page, effort: Effort) -> None:
    """Count ResNet-18 by its layers and by hand, at several sizes, and the book's variant of it."""
    summary = model_summary("resnet18", 224)
    _walk(page, summary)
    _by_hand(page, summary)
    _costs(page, summary)
    _published(page)
    _eighteen(page, summary)
    _sizes(page)
    _book(page)


def _walk(page: Page, summary: ModelSummary) -> None:
    page.heading("The shapes of an image through the network", "一张图像的路线")
    page.say(
        """The table follows one RGB image of 224x224 pixels to ten classes. Each row is one layer of stem or head, or
        one whole residual block, in the order of the computation. A shape is channels x height x width; a MAC is one
        multiplication and one addition.""",
        """一张 224x224 的 RGB 图像，怎样一步步变成十个类别的得分？下表按计算顺序排列，每行是输入部分（stem）或分类头的
        一层，或一个完整的残差块。形状写作“通道 x 高 x 宽”；MAC 指一次乘法加一次加法（乘加）。""",
    )
    rows = [
        (row.name, row.kind, format_shape(row.output_shape[1:]), f"{row.parameters:,}", f"{row.macs / 1e6:,.1f}")
        for row in summary.walk()
        if row.kind not in ("Identity", "ReLU", "Flatten")
    ]
    page.table(
        "layer | kind | output | parameters | million MACs",
        "层 | 类型 | 输出 | 参数 | 百万 MAC",
        rows,
    )
    places = {row.name: row.output_shape for row in summary.walk()}
    stops = [
        ("image", summary.input_shape),
        ("7x7\nstride 2", places["conv1"]),
        ("max-pool\nstride 2", places["maxpool"]),
    ]
    stops += [(f"stage {number}\n2 blocks", places[f"layer{number}.1"]) for number in range(1, 5)]
    stops += [("mean over\nH and W", places["avgpool"])]
    slabs = [(name, (shape[1], shape[2], shape[3])) for name, shape in stops]
    page.figure(
        "route",
        lambda: draw_route(slabs, "ResNet-18, from 224x224 pixels to 512 features"),
        """The maps shrink and the channels grow. Bold is the number of channels, blue the side in pixels (both drawn as
        square roots). A linear layer computes ten scores from the last 512 values.""",
        """特征图越来越小，通道越来越多：粗体为通道数，蓝色为边长（像素），图中均按平方根绘制。最后的 512 个数经一个线性
        层得到十个得分。""",
    )
    page.record(
        parameters=summary.parameters,
        macs=summary.macs,
        stage_shapes=[list(places[f"layer{number}.1"][1:]) for number in range(1, 5)],
        stem_shapes=[list(places["conv1"][1:]), list(places["maxpool"][1:])],
    )


def _by_hand(page: Page, summary: ModelSummary) -> None:
    page.heading("The same, by hand", "手工再算一遍")
    page.say(
        """A convolution has out x in x k x k weights (no bias here, see the last section). BatchNorm has two numbers
        per channel, the linear layer in x out + out. A stage consists of two blocks of two 3x3 convolutions. Where the
        width changes, the shortcut is a 1x1 convolution with BatchNorm. The sum of these:""",
        """一个卷积有 输出 x 输入 x k x k 个权重（这里没有偏置，原因见最后一节），批归一化每个通道两个数，线性层为 输
        入 x 输出 + 输出。每个阶段由两个残差块组成，每块两个 3x3 卷积；宽度改变处，捷径连接是一个 1x1 卷积加批归一化。要
        数的就只有这些：""",
    )
    lines, total = ["stem    7*7*3*64 + 2*64" + f" = {stem_parameters():,}"], stem_parameters()
    in_width = STAGE_WIDTHS[0]
    for number, width in enumerate(STAGE_WIDTHS, start=1):
        lines.append(f"stage {number} {_stage_formula(in_width, width)} = {stage_parameters(in_width, width):,}")
        total += stage_parameters(in_width, width)
        in_width = width
    head = STAGE_WIDTHS[-1] * 10 + 10
    page.values(
        *lines, f"head    512*10 + 10 = {head:,}", f"sum     {total + head:,}", f"summary {summary.parameters:,}"
    )
    page.record(parameters_by_hand=total + head)


def stem_parameters() -> int:
    """Return the number of parameters of the 7x7 convolution on RGB and its BatchNorm."""
    return 7 * 7 * 3 * STAGE_WIDTHS[0] + 2 * STAGE_WIDTHS[0]


def stage_parameters(in_width: int, width: int) -> int:
    """Return the number of parameters of a stage of two basic blocks, with a shortcut where the width changes."""
    convolution_weights = 9 * in_width * width + (2 * BLOCKS - 1) * 9 * width * width
    shortcut = in_width * width + 2 * width if in_width != width else 0
    return convolution_weights + 2 * BLOCKS * 2 * width + shortcut


def _stage_formula(in_width: int, width: int) -> str:
    if in_width == width:
        return f"4*(9*{width}*{width} + 2*{width})"
    return f"9*{in_width}*{width} + 3*9*{width}*{width} + 4*2*{width} + ({in_width}*{width} + 2*{width})"


def _costs(page: Page, summary: ModelSummary) -> None:
    page.heading("Half the side, twice the channels", "边长减半，通道加倍")
    costs = costs_by_part(summary)
    inner = {part_of(row.name): row.macs for row in convolutions(summary) if row.name.endswith(".1.conv2")}
    page.say(
        """Each stage after the first halves height and width and doubles the channels. Then a 3x3 convolution has four
        times the weights and a quarter of the positions, so its multiply-adds stay the same. The paper builds its
        networks by this rule (He et al. 2015, https://arxiv.org/abs/1512.03385, section 3.3). The last convolution of
        each stage:""",
        """从第二个阶段起，每个阶段把高和宽减半、通道加倍。于是一个 3x3 卷积的权重变成四倍，而要计算的位置只剩四分之一，
        计算量不变。论文正是按这条规则搭网络的（何恺明等人 2015，https://arxiv.org/abs/1512.03385 ，3.3 节）。各阶段的最
        后一个卷积：""",
    )
    sides = {cost.name: cost.shape[1] for cost in costs if cost.name.startswith("layer")}
    page.values(
        *(
            f"{PART_LABELS[part]}: {side}*{side} places * 9*{width}*{width} weights = {inner[part]:,} MACs"
            for (part, side), width in zip(sides.items(), STAGE_WIDTHS, strict=True)
        )
    )
    page.figure(
        "costs",
        lambda: draw_costs(costs, "ResNet-18 at 224x224, one image, ten classes"),
        """The same network counted in three ways. Multiply-adds are spread evenly; most parameters are at the end, most
        outputs at the beginning.""",
        "同一个网络的三种数法：计算量分布均匀，参数集中在末尾，输出的数集中在开头。",
    )
    last, first = costs[4], costs[0]
    early = sum(cost.activations for cost in costs[:2]) / sum(cost.activations for cost in costs)
    page.say(
        f"""So three common questions have different answers. The last stage determines the size of the weights' file
        ({last.parameters / summary.parameters:.0%} of the parameters). All stages contribute equally to the
        multiply-adds. Stem and first stage determine the memory of training, which keeps every layer's output for the
        backward pass ({early:.0%} of these values).""",
        f"""因此，对网络的三个常见问题有三个不同的答案：权重文件的大小由最后一个阶段决定（占参数
        的 {last.parameters / summary.parameters:.0%}）；计算量由各阶段分担；而训练的内存要为反向传播保留每一层的输出，
        主要由 stem 和第一阶段决定（占这些数的 {early:.0%}）。""",
    )
    page.record(
        last_convolution_macs=[inner[part] for part in sides],
        parameter_shares=[cost.parameters / summary.parameters for cost in costs],
        mac_shares=[cost.macs / summary.macs for cost in costs],
        stem_macs=first.macs,
        early_activations=early,
        activations=sum(cost.activations for cost in costs),
    )


def _published(page: Page) -> None:
    page.heading("Is it the published network?", "与公布的数字一致吗？")
    summary = model_summary("resnet18", 224, classes=1000)
    with_statistics = sum(int(np.prod(tensor.shape)) for tensor in create_model("resnet18").parameters())
    page.say(
        "Published counts are for ImageNet's 1,000 classes. Against torchvision's:",
        "公布的数字是针对 ImageNet 的 1,000 类的。与 torchvision 对照：",
    )
    page.table(
        " | counted here | published",
        " | 这里数得 | 公布",
        [
            (Text("parameters", "参数量"), f"{summary.parameters:,}", f"{PUBLISHED_PARAMETERS:,}"),
            ("GMACs", f"{summary.macs / 1e9:.3f}", f"{PUBLISHED_GMACS:.3f}"),
        ],
    )
    page.say(
        f"""The paper's table 1 has 1.8 x 10^9 and calls a MAC one FLOP. There are two traps. Counting a MAC as two
        operations gives twice the number for the same network. Paddle's `parameters()` also lists BatchNorm's running
        means and variances: {with_statistics:,} numbers in all, of which {with_statistics - summary.parameters:,} are
        not trained.""",
        f"""论文表 1 写的是 1.8 x 10^9，并把一次 MAC 记作一次 FLOP。这里有两个陷阱：若把一次 MAC 算作两次运算，同一个网
        络的数字就会翻倍；另外 Paddle 的 `parameters()` 还包含批归一化的滑动均值和方差，共 {with_statistics:,} 个数，其
        中 {with_statistics - summary.parameters:,} 个并不参与训练。""",
    )
    page.record(
        imagenet_parameters=summary.parameters, imagenet_macs=summary.macs, parameters_with_statistics=with_statistics
    )


def _eighteen(page: Page, summary: ModelSummary) -> None:
    page.heading("Why 18", "为什么是 18")
    on_the_way = [row for row in convolutions(summary) if "downsample" not in row.name]
    shortcuts = len(convolutions(summary)) - len(on_the_way)
    page.say(
        f"""The number in the name counts layers with weights along the longest path: {len(on_the_way)} convolutions and
        one linear layer give {summary.depth}. It excludes the {shortcuts} convolutions on shortcuts, which are beside
        this path, and BatchNorm, ReLU and pooling.""",
        f"""名字里的数字是最长路径上带权重的层数：{len(on_the_way)} 个卷积加 1 个线性层，共 {summary.depth} 层。捷径连接
        上的 {shortcuts} 个卷积在旁路上，不计入；批归一化、ReLU 和池化也不计。""",
    )
    page.record(depth=summary.depth, convolutions_on_the_way=len(on_the_way), shortcut_convolutions=shortcuts)


INPUTS: tuple[tuple[int, Stem], ...] = ((224, "imagenet"), (BOOK_SIZE, "imagenet"), (32, "imagenet"), (32, "cifar"))
"""Sides of images, and the stems for them."""


def _sizes(page: Page) -> None:
    page.heading("Other images, same weights", "换个尺寸，权重不变")
    page.say(
        """No weight depends on the size of the image: convolutions slide over any map, and the head averages the
        remaining positions. So the parameters stay the same, and the multiply-adds are proportional to the area. But
        the stem, made for photographs, keeps one pixel of sixteen before the first block, and a small image runs out of
        pixels:""",
        """没有哪个权重依赖图像尺寸：卷积可以滑过任意大小的特征图，分类头对剩下的位置取平均。所以参数不变，计算量随面积
        变化。不过为照片设计的 stem 在第一个残差块之前就只留下十六分之一的像素，小图很快就没有像素可用了：""",
    )
    summaries = {f"{size}x{size}, {stem} stem": model_summary("resnet18", size, stem=stem) for size, stem in INPUTS}
    sides = {label: _sides(summary) for label, summary in summaries.items()}
    page.table(
        "image and stem | last maps | parameters | million MACs",
        "图像与 stem | 最后的特征图 | 参数 | 百万 MAC",
        [
            (label, f"{sides[label][-1]}x{sides[label][-1]}", f"{summary.parameters:,}", f"{summary.macs / 1e6:,.0f}")
            for label, summary in summaries.items()
        ],
    )
    page.figure(
        "sides",
        lambda: draw_sides(
            sides, ("image", "conv1", "max-pool", *(f"stage {n}" for n in range(1, 5))), "Side of the maps"
        ),
        "ResNet-18 on four inputs. Each step down is a stride of 2; the cifar stem takes none.",
        "四种输入下的 ResNet-18。每下降一级是一次步幅 2；cifar stem 没有这样的步骤。",
    )
    *_, small, cifar_stem = summaries.values()
    single = [row for row in convolutions(small) if "3x3" in row.kind and row.input_shape[2:] == (1, 1)]
    unused = sum(row.parameters * 8 // 9 for row in single)
    page.say(
        f"""At 32x32 with the stem for photographs, {len(single)} of the 3x3 convolutions see a single pixel: eight of
        their nine weights only meet the zero padding. These are {unused:,} parameters, {unused / small.parameters:.0%}
        of the network, that do not affect the scores and get no gradient. The cifar stem (a 3x3 convolution, no
        pooling; section 4.2) keeps 4x4 pixels to the end, for {cifar_stem.macs / small.macs:.0f} times the
        multiply-adds.""",
        f"""在 32x32 图像上使用照片的 stem 时，有 {len(single)} 个 3x3 卷积只看到一个像素：九个权重中的八个永远只碰到填
        充的零。这样的参数有 {unused:,} 个，占网络的 {unused / small.parameters:.0%}，既不影响得分，也得不到梯度。
        cifar stem（一个 3x3 卷积，没有池化；4.2 节）直到最后都保有 4x4 像素，代价
        是 {cifar_stem.macs / small.macs:.0f} 倍的计算量。""",
    )
    page.record(
        sides=[list(values) for values in sides.values()],
        setting_parameters=[summary.parameters for summary in summaries.values()],
        setting_macs=[summary.macs for summary in summaries.values()],
        one_pixel_convolutions=[row.name for row in single],
        unused_parameters=unused,
    )


def _sides(summary: ModelSummary) -> list[int]:
    places = {row.name: row.output_shape[2] for row in summary.walk() if len(row.output_shape) == 4}
    stages = [places[f"layer{number}.{BLOCKS - 1}"] for number in range(1, 5)]
    return [summary.input_shape[2], places["conv1"], places["maxpool"], *stages]


def _book(page: Page) -> None:
    page.heading("The book's network, one channel at 96x96", "书中的网络：单通道 96x96")
    network = create_model("resnet18_d2l")
    book, ours = model_summary("resnet18_d2l", BOOK_SIZE), model_summary("resnet18", BOOK_SIZE, in_channels=1)
    page.say(
        f"""The book "Dive into Deep Learning" (https://d2l.ai, section on ResNet) trains a ResNet-18 on the grey images
        of Fashion-MNIST, enlarged to 96x96: `create_model("resnet18_d2l")`. Its shapes are those of ResNet-18:
        {_route_of(book)}. Its number of parameters differs: {book.parameters:,} instead of {ours.parameters:,} for
        resnet18 with one channel and ten classes.""",
        f"""《动手学深度学习》（https://d2l.ai ，ResNet 一节）用 ResNet-18 训练放大到 96x96 的 Fashion-MNIST 灰度图，
        即 `create_model("resnet18_d2l")`。它的形状与 ResNet-18 相同：{_route_of(book)}。参数量却不同：
        {book.parameters:,}，而单通道、十类的 resnet18 是 {ours.parameters:,}。""",
    )
    biases = conv_biases(network)
    shortcut_norms = sum(2 * width for width in STAGE_WIDTHS[1:])
    page.values(
        f"resnet18, one channel:                      {ours.parameters:>12,}",
        f"+ a bias for each convolution's channel:    {sum(biases.values()):>12,}",
        f"- no BatchNorm on the three shortcuts:      {-shortcut_norms:>12,}",
        f"resnet18_d2l:                               {book.parameters:>12,}",
    )
    effect = bias_effects(network, BOOK_SIZE)
    before_norm = sum(size for name, size in biases.items() if not is_on_shortcut(name))
    page.say(
        f"""Most of these biases have no effect. BatchNorm subtracts each channel's mean over the batch, and with it the
        constant that a bias has added (Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167, section 3.2). Set the
        {before_norm:,} biases before a BatchNorm to random numbers of deviation 1, and in training mode the scores
        change by {effect.before_norm:.0e} of their spread, a rounding error. The same for the biases on the shortcuts,
        which no BatchNorm follows, changes them by {effect.on_shortcuts:.2f} of the spread. So ResNets have no bias in
        their convolutions. The book's biases are only the default of the layer.""",
        f"""这些偏置大多不起作用。批归一化会减去每个通道在批内的均值，偏置加上去的常数也就一并被减掉了
        （Ioffe 与 Szegedy 2015，https://arxiv.org/abs/1502.03167 ，3.2 节）。把批归一化之前的 {before_norm:,} 个偏置换
        成标准差为 1 的随机数，训练模式下得分的变化只有其离散程度的 {effect.before_norm:.0e}，即舍入误差；对捷径连接上
        （其后没有批归一化）的偏置做同样的事，变化是 {effect.on_shortcuts:.2f} 倍。所以 ResNet 的卷积不带偏置；书中的偏
        置只是层的默认设置。""",
    )
    page.record(
        book_parameters=book.parameters,
        book_macs=book.macs,
        book_sides=_sides(book),
        book_biases=sum(biases.values()),
        biases_before_norm=before_norm,
        bias_effect_before_norm=effect.before_norm,
        bias_effect_on_shortcuts=effect.on_shortcuts,
    )


def _route_of(summary: ModelSummary) -> str:
    places = {row.name: row.output_shape for row in summary.walk()}
    stages = [format_shape(places[f"layer{number}.{BLOCKS - 1}"][1:]) for number in range(1, 5)]
    return ", ".join(
        [format_shape(summary.input_shape[1:]), format_shape(places["maxpool"][1:]), *stages, str(places["fc"][1])]
    )
