"""Gradients by layer in plain and residual networks, with and without BatchNorm."""

from __future__ import annotations

import math
from functools import partial

import paddle

from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import Page, Text
from paddle_resnet.lessons.gradients.layer_gradients import (
    BATCH_SIZE,
    IMAGE_SIZE,
    KINDS,
    LayerGradients,
    NetworkKey,
    image_loader,
    make_network,
    measure_gradients,
    record_gradients,
)
from paddle_resnet.lessons.gradients.plots import draw_by_layer
from paddle_resnet.lessons.gradients.training import WITH_WITHOUT, show_training

DEPTHS = (20, 56, 110)

BATCH_NORM_GROWTH = math.sqrt(math.pi / (math.pi - 1))
"""Growth of the gradient per layer of a plain network with BatchNorm and ReLU at initialisation, in theory."""

CHAIN_LENGTH = 20
CHAIN_WEIGHTS = (0.1, 0.5)


def teach(page: Page, effort: Effort) -> None:
    """Measure gradients with and without BatchNorm, at initialisation and after a few steps."""
    _explain_chain(page)
    loader = image_loader(effort)
    images, labels = next(iter(loader))
    _explain_measurement(page, effort)
    keys = [(kind, depth) for kind in KINDS for depth in DEPTHS]
    bare = {key: measure_gradients(make_network(key, batch_norm=False), images, labels) for key in keys}
    normalized = {key: measure_gradients(make_network(key), images, labels) for key in keys}
    _show_initial(page, bare, normalized)
    show_training(page, effort, loader, (images, labels), {True: normalized, False: bare})
    _conclude(page, normalized)


def _explain_chain(page: Page) -> None:
    page.heading("Products, and sums of products", "连乘，与连乘之和")
    page.say(
        f"""A gradient is propagated back through the layers by the chain rule, with one factor per layer. In a chain
        x(l+1) = w x(l) the factor is w; with a shortcut, x(l+1) = x(l) + w x(l), it is 1 + w. Below is autograd's
        result after {CHAIN_LENGTH} layers, the derivative of the last x by the first:""",
        f"""梯度按链式法则逐层传回，每层乘上一个因子。在 x(l+1) = w x(l) 这样的链上，因子是 w；加上捷径连接，
        即 x(l+1) = x(l) + w x(l)，因子就是 1 + w。下面是自动微分在 {CHAIN_LENGTH} 层之后给出的结果，即最后的 x 对最初
        的 x 的导数：""",
    )
    chains = {weight: (_derivative(weight, False), _derivative(weight, True)) for weight in CHAIN_WEIGHTS}
    page.table(
        "w | plain | w^20 | with shortcuts | (1 + w)^20",
        "w | 普通 | w^20 | 带捷径连接 | (1 + w)^20",
        [
            [weight, *(f"{x:.3e}" for x in (plain, weight**CHAIN_LENGTH, short, (1 + weight) ** CHAIN_LENGTH))]
            for weight, (plain, short) in chains.items()
        ],
    )
    page.record(
        chain_plain=[plain for plain, _ in chains.values()], chain_shortcut=[short for _, short in chains.values()]
    )
    page.say(
        """With shortcuts the gradient cannot vanish because of small weights. One term of the expanded product is 1,
        the path through all shortcuts (He et al. 2016, https://arxiv.org/abs/1603.05027, equation 5, for blocks without
        an operation after the addition). The table also shows the opposite risk: nothing keeps the sum of all terms
        from growing. The behaviour of real networks depends on their weights, on ReLU and on BatchNorm, so it has to be
        measured.""",
        """有了捷径连接，梯度不会因为权重小而消失：连乘展开的各项中总有一项是 1，即一路走捷径的那条路径（何恺明等
        人 2016，https://arxiv.org/abs/1603.05027 公式 5，针对相加之后没有其他运算的块）。但表格也显示了另一面：没有什么
        能阻止各项之和变大。真实网络的表现取决于权重、ReLU 和批归一化，所以必须测量。""",
    )


def _derivative(weight: float, shortcut: bool) -> float:
    start = paddle.to_tensor(1.0, dtype="float64", stop_gradient=False)
    x = start
    for _ in range(CHAIN_LENGTH):
        x = x + weight * x if shortcut else weight * x
    x.backward()
    return float(start.grad.item())


def _explain_measurement(page: Page, effort: Effort) -> None:
    pictures = Text("CIFAR-10 images", " CIFAR-10 图像") if effort.full else Text("digits", "手写数字")
    page.heading("What is measured", "测量的是什么")
    page.say(
        f"""Plain and residual networks of 20, 56 and 110 layers (He et al. 2015, https://arxiv.org/abs/1512.03385,
        section 4.2) with the paper's initialisation, which preserves the scale of the signal through ReLU. One batch of
        {BATCH_SIZE} {pictures.en} at {IMAGE_SIZE}x{IMAGE_SIZE} pixels gives a loss and its gradient. For every
        convolution we take `norm(dL/dW) / norm(W)`, the relative change of the weights by a step of learning rate 1.
        Then the same networks are measured with the identity in place of every BatchNorm.""",
        f"""取 20、56、110 层的普通网络和残差网络（何恺明等人 2015，https://arxiv.org/abs/1512.03385 第 4.2 节），初始权
        重与论文相同（使信号经过每层的 ReLU 后大小大致不变）。用一批 {BATCH_SIZE} 张{pictures.zh}
        （{IMAGE_SIZE}x{IMAGE_SIZE} 像素）算出损失及其梯度。对每个卷积计算 `norm(dL/dW) / norm(W)`，也就是学习率为 1 时
        权重会改变的比例。然后把所有批归一化换成恒等映射，再测一遍同样的网络。""",
    )


def _show_initial(
    page: Page, bare: dict[NetworkKey, LayerGradients], normalized: dict[NetworkKey, LayerGradients]
) -> None:
    page.heading("At initialisation", "训练开始之前")
    page.figure(
        "initial",
        partial(draw_by_layer, bare, normalized),
        "Gradient of each convolution relative to its weights, at initialisation; the input is on the left.",
        "初始化时各卷积的梯度（相对于权重的大小）；左边靠近输入图像。",
    )
    measured = {False: bare, True: normalized}
    page.table(
        "BatchNorm | network | loss | first convolution | last convolution | first / last | factor per layer",
        "批归一化 | 网络 | 损失 | 第一个卷积 | 最后一个卷积 | 第一个 / 最后一个 | 每层的倍数",
        [
            [WITH_WITHOUT[batch_norm], f"{kind}{depth}", f"{gradients.loss:.3g}"]
            + [f"{value:.1e}" for value in (*gradients.relative[[0, -1]], gradients.first_to_last)]
            + [f"{gradients.growth:.3f}"]
            for batch_norm, networks in measured.items()
            for (kind, depth), gradients in networks.items()
        ],
    )
    for batch_norm, networks in measured.items():
        for (kind, depth), gradients in networks.items():
            record_gradients(page, f"{kind}{depth}_{WITH_WITHOUT[batch_norm].en}_batch_norm", gradients)
    page.say(
        """The last column is the factor by which the gradient changes with each layer towards the input, from a
        straight line through the logarithms. Below 1 it vanishes on its way back, above 1 it explodes.""",
        """最后一列是每向输入靠近一层，梯度改变的倍数（由对数值的拟合直线得出）：小于 1 表示梯度在回传途中消失，大
        于 1 表示爆炸。""",
    )
    _interpret_bare(page, bare)
    _interpret_normalized(page, normalized)


def _interpret_bare(page: Page, bare: dict[NetworkKey, LayerGradients]) -> None:
    deepest = DEPTHS[-1]
    plain, residual = bare["plain", deepest], bare["resnet", deepest]
    page.say(
        f"""Without BatchNorm, the factor per layer is {plain.growth:.3f} in plain{deepest} and {residual.growth:.3f} in
        resnet{deepest}. From the last convolution to the first, the gradient {_changes(plain)[0]} in the plain network,
        and {_changes(residual)[0]} in the residual one. The losses show the forward pass: {plain.loss:.3g} and
        {residual.loss:.3g}, where guessing has ln 10 = 2.30. In the residual network every block adds its branch to the
        previous sum, and the sum grows from block to block, as in the chain above.""",
        f"""没有批归一化时，plain{deepest} 每层的倍数是 {plain.growth:.3f}，resnet{deepest} 是 {residual.growth:.3f}：从
        最后一个卷积到第一个卷积，普通网络的梯度{_changes(plain)[1]}，残差网络的梯度{_changes(residual)[1]}。损失反映前
        向的情况：分别为 {plain.loss:.3g} 和 {residual.loss:.3g}，而随机猜测是 ln 10 = 2.30。残差网络的每个块都把自己的
        分支加到已有的结果上，和就逐块变大，正如上面的链。""",
    )


def _interpret_normalized(page: Page, normalized: dict[NetworkKey, LayerGradients]) -> None:
    vanishing = [f"{kind}{depth}" for (kind, depth), gradients in normalized.items() if gradients.first_to_last < 0.1]
    page.record(vanishing_with_batch_norm=vanishing)
    deepest = DEPTHS[-1]
    plain, residual = normalized["plain", deepest], normalized["resnet", deepest]
    en = f"In {', '.join(vanishing)} it does" if vanishing else "In none of the six networks does it"
    zh = f"在 {'、'.join(vanishing)} 中会" if vanishing else "六个网络中都没有"
    page.say(
        f"""With BatchNorm, does the gradient vanish on its way back, to less than a tenth of its value in the last
        convolution? {en}. Towards the input it {_changes(plain)[0]} in plain{deepest}, {plain.growth:.3f} per layer,
        and {_changes(residual)[0]} in resnet{deepest}, {residual.growth:.3f} per layer. In theory, plain networks with
        BatchNorm start with gradients that *explode* (Yang et al. 2019, https://arxiv.org/abs/1902.08129). ReLU passes
        half of the squared gradient. BatchNorm divides it by the variance of ReLU's output, (pi - 1) / (2 pi) for
        normally distributed input. Together that is pi / (pi - 1) per layer, for the norm a factor of
        {BATCH_NORM_GROWTH:.3f}, if layers are wide and batches large.""",
        f"""有批归一化时，梯度在回传途中会消失吗（小于最后一个卷积的十分之一）？{zh}。传向输入的途中，plain{deepest} 的
        梯度{_changes(plain)[1]}（每层 {plain.growth:.3f} 倍），resnet{deepest} 的梯度{_changes(residual)[1]}（每
        层 {residual.growth:.3f} 倍）。理论指出，带批归一化的普通网络在初始化时梯度是*爆炸*的（Yang 等 2019，
        https://arxiv.org/abs/1902.08129 ）：ReLU 让梯度平方的一半通过，而批归一化再把它除以 ReLU 输出的方差，输入服从正
        态分布时该方差为 (pi - 1) / (2 pi)。合起来每层为 pi / (pi - 1)，若层足够宽、批足够大，范数每层变
        为 {BATCH_NORM_GROWTH:.3f} 倍。""",
    )


def _changes(gradients: LayerGradients) -> tuple[str, str]:
    """Describe in English and Chinese how the gradient changes from the last convolution to the first."""
    ratio = gradients.first_to_last
    if ratio >= 1:
        return f"grows to {ratio:.2g} times", f"增大到 {ratio:.2g} 倍"
    return f"shrinks to {ratio:.2g} times", f"减小到 {ratio:.2g} 倍"


def _conclude(page: Page, normalized: dict[NetworkKey, LayerGradients]) -> None:
    page.heading("What this says about degradation", "这对退化说明了什么")
    vanishing = any(gradients.first_to_last < 0.1 for gradients in normalized.values())
    if not vanishing:
        page.say(
            """The lesson `degradation` trains networks with BatchNorm. Before the first step no gradient vanishes in
            such networks, plain or residual. So vanishing gradients at initialisation are not the reason why the deeper
            plain network is worse; He et al. say the same (section 4.1). At initialisation, the relative gradients
            differ between the layers of a plain network, the more the deeper it is; those of a residual network are
            almost equal. The first steps then leave the first layers of the deep plain network with such large weights
            that they hardly learn. This describes the first steps at one learning rate, without warm-up. It does not
            explain the result of a long training.""",
            """`degradation` 一课训练的是带批归一化的网络。训练开始之前，这样的网络无论普通还是残差都没有梯度消失，所以
            更深的普通网络变差并非由此而来，何恺明等人也这样说（4.1 节）。初始化时测到的是：普通网络越深，各层对“一步该
            走多大”的分歧越大，残差网络各层则比较一致；随后的最初几步又使很深的普通网络前几层的权重变得很长，几乎学不动
            了。这只是在一个学习率下、没有预热时对最初几步的观察，并不能解释长时间训练的结局。""",
        )
    else:
        page.say(
            """In this run some networks with BatchNorm had gradients that shrink towards the input at initialisation.
            So this measurement does not exclude them as a cause. He et al. (section 4.1) argue that they are none.""",
            """在本次运行的初始状态下，部分带批归一化的网络梯度向输入方向缩小，因此仅凭这里的测量不能排除这一原因。何恺
            明等人（4.1 节）认为它不是原因。""",
        )
