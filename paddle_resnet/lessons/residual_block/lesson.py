"""The residual block: its shapes, the identity, negative residuals, and its three forms."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import paddle
from paddle import nn

from paddle_resnet.lessons.common.small_cnn import ignore_batch_norm_warning
from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import Page, Text
from paddle_resnet.lessons.residual_block import negative_residuals
from paddle_resnet.lessons.residual_block.diagrams import Diagram, diagram_of, draw_diagrams
from paddle_resnet.models.blocks import BasicBlock, Bottleneck, PlainBlock, ResidualBlock, projection_shortcut
from paddle_resnet.models.preact import PreActBasicBlock, PreActBottleneck
from paddle_resnet.models.summary import ModelSummary, Shape, summarize

INPUT = (4, 3, 6, 6)
STAGE = 56
"""Side of the maps in ResNet's first stage at 224 x 224."""

FORMS_ZH = {
    "basic": "基本块",
    "bottleneck": "瓶颈块",
    "pre-activation": "预激活块",
    "pre-activation bottleneck": "预激活瓶颈块",
    "basic, 256 channels": "基本块，256 个通道",
}


@ignore_batch_norm_warning()
def teach(page: Page, effort: Effort) -> None:
    """Show a block's shapes, set its branch to zero, let it learn negative residuals, and compare the forms."""
    _same_shape(page)
    _other_shape(page)
    _identity(page)
    negative_residuals.teach(page, effort)
    _forms(page)


def _same_shape(page: Page) -> None:
    page.heading("Two paths, one addition", "两条路径，一次相加")
    page.say(
        """A block of layers shall fit some mapping H(x). He et al. (2015, https://arxiv.org/abs/1512.03385, section
        3.1) let the layers compute F(x) = H(x) - x instead, and add x by a second path without layers: the shortcut. A
        ReLU follows the sum.""",
        """一组层要拟合某个映射 H(x)。何恺明等人（2015，https://arxiv.org/abs/1512.03385 ，3.1 节）让这些层改为计
        算 F(x) = H(x) - x，再由另一条不含任何层的路径把 x 加回来，这就是捷径连接。相加之后再过 ReLU。""",
    )
    page.values("out = relu(F(x) + x)            # F = bn2(conv2(relu(bn1(conv1(x)))))")
    block = BasicBlock(3, 3, 1, projection_shortcut)
    summary = summarize(block, INPUT)
    _show_layers(page, summary)
    page.record(same_shape_input=INPUT, same_shape_output=summary.output_shape)
    page.say(
        """Input and output have batch 4, 3 channels, 6 x 6 pixels; only equal shapes can be added element by element.
        The shortcut, `downsample`, is the identity and has no parameters.""",
        """批大小 4、3 个通道、6 × 6 像素，输入和输出完全一样：这样两者才能逐元素相加。捷径连接 `downsample` 是恒等映
        射，没有参数。""",
    )


def _other_shape(page: Page) -> None:
    page.heading("Where the shape changes", "形状改变时")
    block = BasicBlock(3, 6, 2, projection_shortcut)
    summary = summarize(block, INPUT)
    _show_layers(page, summary)
    projection = block.downsample[0].weight
    page.record(
        projected_output=summary.output_shape,
        projection_weight=projection.shape,
        projection_parameters=next(row.parameters for row in summary.layers if row.name == "downsample"),
        projected_parameters=summary.parameters,
    )
    seen_by_shortcut, seen_by_branch = _used_share(block.downsample), _used_share(block.conv1)
    page.record(seen_by_shortcut=seen_by_shortcut, seen_by_branch=seen_by_branch)
    page.say(
        f"""Between stages the channels double and height and width are halved: 3 x 6 x 6 becomes 6 x 3 x 3, and x
        cannot be added any more. So the shortcut gets a 1x1 convolution of stride 2, with BatchNorm (equation 2; option
        B of the paper). Its weight is {list(projection.shape)}: six outputs, each a mixture of three channels at every
        second pixel. By its gradient it uses {seen_by_shortcut:.0%} of the input's values, the branch's first
        convolution {seen_by_branch:.0%}.""",
        f"""阶段之间通道数加倍、高和宽减半：3 × 6 × 6 变成 6 × 3 × 3，x 就无法直接相加了。于是捷径上放一个步幅
        为 2 的 1×1 卷积和 BatchNorm（公式 2，论文的方案 B）。它的权重是 {list(projection.shape)}：六个输出，每个都是三
        个通道的混合，两个方向上都隔一个像素取一次。由梯度可知，它只看到输入中 {seen_by_shortcut:.0%} 的值，而分支的第一
        个卷积看到 {seen_by_branch:.0%}。""",
    )


def _used_share(layer: nn.Layer) -> float:
    """Return the share of the input's values that the layer's output depends on."""
    random = np.random.default_rng(0)
    x = paddle.to_tensor(random.normal(size=INPUT).astype(np.float32), stop_gradient=False)
    output = layer(x)
    (output * paddle.to_tensor(random.normal(size=output.shape).astype(np.float32))).sum().backward()
    return float(np.mean(x.grad.numpy() != 0))


def _show_layers(page: Page, summary: ModelSummary) -> None:
    """List the shape after each layer, in order of execution."""
    page.values(
        f"{'input':<14}{'':<24}{list(summary.input_shape)}",
        *(
            f"{row.name:<14}{row.kind:<24}{list(row.output_shape)!s:<16}{row.parameters:>6} parameters".rstrip()
            for row in summary.leaves()
            if row.name != "stochastic_depth"
        ),
    )


def _identity(page: Page) -> None:
    page.heading("A branch at zero makes the block the identity", "分支为零，整个块就是恒等映射")
    random = np.random.default_rng(0)
    signed = paddle.to_tensor(random.normal(size=INPUT).astype(np.float32))
    rectified = nn.functional.relu(signed)
    paddle.seed(0)
    rows, differences = [], {}
    for name, block, x in (
        ("BasicBlock", BasicBlock(3, 3, 1, projection_shortcut), rectified),
        ("BasicBlock", BasicBlock(3, 3, 1, projection_shortcut), signed),
        ("PreActBasicBlock", PreActBasicBlock(3, 3, 1, projection_shortcut), signed),
        ("PlainBlock", PlainBlock(3, 3, 1, projection_shortcut), rectified),
    ):
        before = _distance(block(x), x)
        _zero_branch(block)
        after = _distance(block(x), x)
        source = "relu(N(0, 1))" if x is rectified else "N(0, 1)"
        rows.append([name, source, f"{before:.4f}", f"{after:.4f}"])
        differences[f"{name}, {source}"] = after
    page.record(
        identity_basic=differences["BasicBlock, relu(N(0, 1))"],
        identity_basic_signed=differences["BasicBlock, N(0, 1)"],
        identity_pre_activation=differences["PreActBasicBlock, N(0, 1)"],
        silenced_plain=differences["PlainBlock, relu(N(0, 1))"],
        largest_input=float(rectified.max().item()),
    )
    page.values("block.zero_init_last()      # zero_init_residual=True does it to every block: gamma of bn2 = 0")
    page.table(
        "block | input | max |out - x|, new | zero branch",
        "块 | 输入 | max |out - x|，新建 | 分支置零后",
        rows,
    )
    page.say(
        """A layer without a shortcut must learn the identity; a block is exactly the identity if its branch is zero.
        This is the paper's argument why more blocks need not make a network worse: the added ones can stay near zero.
        Inside a ResNet, the inputs come from a ReLU, and `relu(0 + x)` is x. For an input of both signs only the
        pre-activation block is the identity, because it has no ReLU after the addition. The plain block with a zero
        branch loses its input. Goyal et al. (2017, https://arxiv.org/abs/1706.02677, section 5.1) initialise their
        ResNets in this way.""",
        """没有捷径的层必须学出恒等映射；而残差块只要分支为零就恰好是恒等映射。所以多加几个块按理不该让网络变差：新加的
        块可以停留在零附近，这正是论文的论证。在 ResNet 内部，输入都经过了 ReLU，`relu(0 + x)` 就是 x；输入有正有负时，
        只有相加之后没有 ReLU 的预激活块才是恒等映射。普通块（没有捷径）置零后则完全丢掉了输入。Goyal 等人（2017，
        https://arxiv.org/abs/1706.02677 ，5.1 节）就是这样初始化 ResNet 的。""",
    )


def _zero_branch(block: ResidualBlock) -> None:
    """Set the branch to zero; the plain block has no method for it."""
    if isinstance(block, PlainBlock):
        block.bn2.weight.set_value(paddle.zeros_like(block.bn2.weight))
    else:
        block.zero_init_last()


def _distance(output: paddle.Tensor, x: paddle.Tensor) -> float:
    return float((output - x).abs().max().item())


def _forms(page: Page) -> None:
    page.heading("Three forms", "三种形式")
    blocks: list[tuple[str, ResidualBlock, Shape]] = [
        ("basic", BasicBlock(64, 64, 1, projection_shortcut), (1, 64, STAGE, STAGE)),
        ("bottleneck", Bottleneck(256, 64, 1, projection_shortcut), (1, 256, STAGE, STAGE)),
        ("pre-activation", PreActBasicBlock(64, 64, 1, projection_shortcut), (1, 64, STAGE, STAGE)),
        ("pre-activation bottleneck", PreActBottleneck(256, 64, 1, projection_shortcut), (1, 256, STAGE, STAGE)),
        ("basic, 256 channels", BasicBlock(256, 256, 1, projection_shortcut), (1, 256, STAGE, STAGE)),
    ]
    summaries = {name: summarize(block, shape) for name, block, shape in blocks}
    diagrams = [diagram_of(name, summaries[name]) for name in ("basic", "bottleneck", "pre-activation")]
    page.figure(
        "forms",
        partial(draw_diagrams, diagrams),
        f"""Drawn from the layers in the order of execution, at {STAGE} x {STAGE} pixels. The curve is the shortcut, +
        the addition. Convolutions show kernel and channels in -> out.""",
        f"""按各层实际运行的次序画出，分辨率为 {STAGE} × {STAGE}。曲线是捷径连接，+ 是相加。卷积标有核大小和输入 -> 输出
        通道数。""",
    )
    _record_forms(page, summaries, diagrams)
    page.table(
        "block | in and out | parameters | multiply-adds",
        "块 | 输入与输出 | 参数量 | 乘加次数",
        [
            [Text(name, FORMS_ZH[name]), list(summary.output_shape[1:]), f"{summary.parameters:,}", f"{summary.macs:,}"]
            for name, summary in summaries.items()
        ],
    )
    basic, bottleneck, wide = (summaries[name] for name in ("basic", "bottleneck", "basic, 256 channels"))
    page.values(
        f"basic:      2 * 64*64*9               + 2 * (64 + 64)        = {basic.parameters:,}",
        f"bottleneck: 256*64 + 64*64*9 + 64*256 + 2 * (64 + 64 + 256)  = {bottleneck.parameters:,}",
    )
    page.say(
        f"""The bottleneck (figure 5, right) reduces 256 channels to 64 by a 1x1 convolution, computes its 3x3 there,
        and expands again. It has four times the channels of the basic block with
        {bottleneck.parameters / basic.parameters:.0%} of its parameters and {bottleneck.macs / basic.macs:.0%} of its
        multiply-adds. Two 3x3 convolutions of 256 channels would take {wide.parameters / bottleneck.parameters:.1f}
        times as many parameters.""",
        f"""瓶颈块（论文图 5 右）先用 1×1 卷积把 256 个通道压到 64，在那里做 3×3 卷积，再扩回去。它承载的通道数是基本块
        的四倍，参数量却是后者的 {bottleneck.parameters / basic.parameters:.0%}，乘加次数
        是 {bottleneck.macs / basic.macs:.0%}；若用两个 256 通道的 3×3 卷积，参数量会是它
        的 {wide.parameters / bottleneck.parameters:.1f} 倍。""",
    )
    page.say(
        """The pre-activation block (He et al. 2016, https://arxiv.org/abs/1603.05027, figure 4e) has the same layers in
        a different order: BatchNorm and ReLU precede their convolution, and nothing follows the addition. From block to
        block, x then passes through additions only.""",
        """预激活块（何恺明等人 2016，https://arxiv.org/abs/1603.05027 ，图 4e）用的是同样的层，只是换了次序：
        BatchNorm 和 ReLU 放在卷积之前，相加之后什么也没有。这样从一个块到下一个块，x 经过的只有加法。""",
    )


def _record_forms(page: Page, summaries: dict[str, ModelSummary], diagrams: Sequence[Diagram]) -> None:
    for name, summary in summaries.items():
        key = name.replace(", ", "_").replace("-", "_").replace(" ", "_")
        page.record(**{f"{key}_parameters": summary.parameters, f"{key}_macs": summary.macs})
    for diagram in diagrams:
        key = diagram.title.replace("-", "_")
        page.record(**{f"{key}_branch": diagram.branch, f"{key}_after_addition": diagram.after})
