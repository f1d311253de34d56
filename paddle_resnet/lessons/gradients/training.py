"""How the first training steps change the gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import paddle

from paddle_resnet.data import TrainLoader
from paddle_resnet.lessons.common.training_loop import apply_cpu_backend, take_batches, train_batches
from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import Page, Text
from paddle_resnet.lessons.gradients.layer_gradients import (
    BATCH_SIZE,
    KINDS,
    LayerGradients,
    NetworkKey,
    format_factor,
    join_names,
    make_network,
    measure_gradients,
    record_gradients,
)
from paddle_resnet.lessons.gradients.plots import draw_before_and_after

TRAINED_DEPTHS = {True: (20, 56, 110), False: (20, 56)}
"""With BatchNorm and without."""

STEPS, FULL_STEPS = 20, 200
LEARNING_RATE = 0.1
MOMENTUM = 0.9
VANISHED = 0.1
"""Share of the last convolution's gradient below which the first one's has vanished."""

WITH_WITHOUT = {True: Text("with", "有"), False: Text("without", "无")}


@dataclass(frozen=True)
class BeforeAfter:
    """One network before and after a few steps; `stopped` is the step whose loss was not finite, if any."""

    before: LayerGradients
    after: LayerGradients
    stopped: int | None

    @property
    def lengthened(self) -> float:
        """Factor by which the norm of the first convolution's weights has grown."""
        return float(self.after.weight_norms[0] / self.before.weight_norms[0])

    @property
    def scale_free(self) -> float:
        """The first convolution's scale-free gradient over the last one's, after training."""
        return float(self.after.scale_free[0] / self.after.scale_free[-1])


Outcomes = Mapping[NetworkKey, BeforeAfter]
"""By kind and depth."""


def show_training(
    page: Page,
    effort: Effort,
    loader: TrainLoader,
    first_batch: tuple[paddle.Tensor, paddle.Tensor],
    initial: Mapping[bool, Mapping[NetworkKey, LayerGradients]],
) -> None:
    """Train the networks for a few steps, and show the gradients of `first_batch` before and after.

    `initial` holds the gradients before the first step, with BatchNorm (True) and without.
    """
    steps = effort.epochs(FULL_STEPS if effort.full else STEPS)
    page.heading(f"After {steps} step{'s' * (steps > 1)}", f"训练 {steps} 步之后")
    page.say(
        f"""The networks now train for {steps} step{"s" * (steps > 1)} on the same batches (batches of {BATCH_SIZE}, SGD
        with momentum {MOMENTUM}, learning rate {LEARNING_RATE}). Then the gradient of the first batch is computed
        again.""",
        f"""现在让这些网络在同样的批次上训练 {steps} 步（批大小 {BATCH_SIZE}，动量 {MOMENTUM} 的 SGD，学习
        率 {LEARNING_RATE}），然后用第一批图像再求一次梯度。""",
    )
    batches = list(take_batches(loader, steps))  # a list, so that every network sees the same
    outcomes = {
        batch_norm: {
            (kind, depth): _train((kind, depth), batch_norm, initial[batch_norm][kind, depth], batches, first_batch)
            for kind in KINDS
            for depth in depths
        }
        for batch_norm, depths in TRAINED_DEPTHS.items()
    }
    for batch_norm, networks in outcomes.items():
        for (kind, depth), trained in networks.items():
            name = f"{kind}{depth}_{WITH_WITHOUT[batch_norm].en}_batch_norm_trained"
            record_gradients(page, name, trained.after)
            for attribute in ("lengthened", "scale_free"):
                page.record(**{f"{name}_{attribute}": getattr(trained, attribute)})
    normalized = outcomes[True]
    page.figure(
        "trained",
        partial(
            draw_before_and_after,
            {key: trained.before for key, trained in normalized.items()},
            {key: trained.after for key, trained in normalized.items()},
        ),
        f"With BatchNorm, at initialisation (dashed) and after {steps} steps (solid).",
        f"有批归一化的网络：初始化时（虚线）与训练 {steps} 步后（实线）。",
    )
    _show_table(page, outcomes)
    _interpret_normalized(page, normalized)
    _interpret_bare(page, outcomes[False])


def _train(
    key: NetworkKey,
    batch_norm: bool,
    before: LayerGradients,
    batches: Sequence[list[paddle.Tensor]],
    first_batch: tuple[paddle.Tensor, paddle.Tensor],
) -> BeforeAfter:
    """Train on the batches, or until the loss is not finite."""
    network = make_network(key, batch_norm=batch_norm)
    if batch_norm:
        apply_cpu_backend(network)
    optimizer = paddle.optimizer.Momentum(LEARNING_RATE, MOMENTUM, parameters=network.parameters())
    stopped = None
    for step, batch in enumerate(batches, start=1):
        loss, _ = train_batches(network, optimizer, [batch])
        if not math.isfinite(loss):
            stopped = step
            break
    return BeforeAfter(before, measure_gradients(network, *first_batch), stopped)


def _show_table(page: Page, outcomes: Mapping[bool, Outcomes]) -> None:
    page.table(
        "BatchNorm | network | loss before | loss after | first / last before | first / last after "
        "| first weights, times as long | first / last after, without the length",
        "批归一化 | 网络 | 训练前损失 | 训练后损失 | 训练前 第一个 / 最后一个 | 训练后 第一个 / 最后一个 "
        "| 第一个卷积的权重变长的倍数 | 训练后 第一个 / 最后一个，除去长度的影响",
        [
            [WITH_WITHOUT[batch_norm], f"{kind}{depth}", *_row(trained)]
            for batch_norm, networks in outcomes.items()
            for (kind, depth), trained in networks.items()
        ],
    )


def _row(trained: BeforeAfter) -> list[str | Text]:
    loss, ratio = f"{trained.before.loss:.3g}", f"{trained.before.first_to_last:.1e}"
    if trained.stopped is not None:
        stopped = Text(f"not finite at step {trained.stopped}", f"第 {trained.stopped} 步不再是有限值")
        return [loss, stopped, ratio, "", "", ""]
    after, growth = trained.after, format_factor(trained.lengthened)
    return [loss, f"{after.loss:.3g}", ratio, f"{after.first_to_last:.1e}", growth, f"{trained.scale_free:.1e}"]


def _interpret_normalized(page: Page, outcomes: Outcomes) -> None:
    small = _named(outcomes, lambda trained: trained.after.first_to_last < VANISHED)
    lost = _named(outcomes, lambda trained: trained.scale_free < VANISHED)
    page.record(small_after_training=small, small_without_length=lost)
    depth = TRAINED_DEPTHS[True][-1]
    plain, residual = (format_factor(outcomes[kind, depth].lengthened) for kind in KINDS)
    page.say(
        f"""With BatchNorm, the relative gradient of the first convolution is now less than a tenth of the last one's in
        {join_names(small)}. Large weights are one reason. Scaling a convolution before BatchNorm does not change the
        output, so its gradient is orthogonal to its weights, and each step increases their norm. Where the gradient
        explodes, the step is very large. The norm of the first convolution's weights grew to {plain} times its value in
        plain{depth}, and to {residual} times in resnet{depth}. Weights of a times the norm have 1/a of the gradient,
        and 1/a^2 of it in relation to their norm. Such a layer hardly changes any more, and its initial weights are
        lost.""",
        f"""有批归一化时，第一个卷积的相对梯度现在小于最后一个的十分之一的有：{join_names(small, zh=True)}。原因之一是权
        重变长：批归一化之前的卷积整体缩放不影响输出，所以梯度与权重垂直，每走一步都会使权重变长；梯度爆炸之处，这一步极
        大。第一个卷积的权重长度，在 plain{depth} 中变为原来的 {plain} 倍，在 resnet{depth} 中变为 {residual} 倍。权重长
        到 a 倍，梯度就变成 1/a，相对于权重长度则是 1/a^2：这样的层几乎不再变化，权重最初的内容也丢失了。""",
    )
    page.say(
        f"""Did the gradient vanish on its way back, or is it only small in relation to such weights?
        `norm(dL/dW) norm(W)` does not depend on the scale of weights before BatchNorm. By this measure, the table's
        last column, the first convolution has less than a tenth of the last one's in {join_names(lost)}.""",
        f"""梯度是在回传途中消失了，还是只是与这么长的权重相比才显得小？`norm(dL/dW) norm(W)` 除去了长度的影响：批归一化
        之前的权重整体缩放时它不变。按这个量（表的最后一列），第一个卷积小于最后一个的十分之一的有：
        {join_names(lost, zh=True)}。""",
    )


def _interpret_bare(page: Page, outcomes: Outcomes) -> None:
    stopped = _named(outcomes, lambda trained: trained.stopped is not None)
    page.record(stopped_without_batch_norm=stopped)
    if stopped:
        largest = {f"{kind}{depth}": outcomes[kind, depth].before.relative.max() for kind, depth in outcomes}
        steps = [format_factor(LEARNING_RATE * largest[name]) for name in stopped]
        page.say(
            f"""Without BatchNorm, the loss became non-finite in {join_names(stopped)}. There the first step was up to
            {join_names(steps)} times the norm of the weights that it changed.""",
            f"""没有批归一化时，损失不再是有限值的有：{join_names(stopped, zh=True)}。它们的第一步，最大处分别是所改变权
            重长度的 {join_names(steps, zh=True)} 倍。""",
        )


def _named(outcomes: Outcomes, chosen: Callable[[BeforeAfter], bool]) -> list[str]:
    return [f"{kind}{depth}" for (kind, depth), trained in outcomes.items() if chosen(trained)]
