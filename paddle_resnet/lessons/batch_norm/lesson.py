"""Batch normalisation: what it computes, its running statistics, and its effect on training."""

from __future__ import annotations

from functools import partial

import numpy as np
import paddle
from paddle import nn

from paddle_resnet.lessons.batch_norm import running_statistics
from paddle_resnet.lessons.batch_norm import training as batch_norm_training
from paddle_resnet.lessons.batch_norm.plots import draw_features
from paddle_resnet.lessons.batch_norm.running_statistics import EPSILON, FEATURES, IMAGES, largest
from paddle_resnet.lessons.common.small_cnn import ignore_batch_norm_warning
from paddle_resnet.lessons.framework.effort import Effort
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.models.batch_norm import BatchNorm, batch_norm_gradients


@ignore_batch_norm_warning()
def teach(page: Page, effort: Effort) -> None:
    """Compute it by hand and with Paddle, follow its running statistics, and train with and without it."""
    _features(page)
    _images(page)
    _scale_and_shift(page)
    running_statistics.teach(page)
    _compare_with_paddle(page)
    batch_norm_training.teach(page, effort)


def _features(page: Page) -> None:
    page.heading("Five features, three samples", "五个特征，三个样本")
    page.say(
        """The mean and scale of a layer's inputs depend on all layers before it. Batch normalisation (Ioffe and Szegedy
        2015, https://arxiv.org/abs/1502.03167, algorithm 1) removes both. It computes each feature's mean and standard
        deviation over the batch, subtracts the mean, and divides by the deviation.""",
        """每层输入的中心与尺度取决于前面各层。批归一化（Ioffe 与 Szegedy 2015，https://arxiv.org/abs/1502.03167 ，算
        法 1）把两者的影响都去掉：对每个特征，在整个批次上求均值和标准差，减去均值，再除以标准差。""",
    )
    page.values(
        "mean     = x.mean(0)",
        "variance = ((x - mean) ** 2).mean(0)    # biased: divided by m, not by m - 1",
        "y        = gamma * (x - mean) / sqrt(variance + epsilon) + beta",
    )
    output = BatchNorm(FEATURES.shape[1])(paddle.to_tensor(FEATURES)).numpy()
    page.array("x, (3, 5)", FEATURES)
    page.array("BatchNorm(5)(x)", output)
    variance = _record_statistics(page, "features", FEATURES, output, axes=(0,))
    page.array("y.mean(0)", output.mean(0))
    page.values("y.var(0):", np.array2string(output.var(0, dtype=np.float64), precision=7, floatmode="fixed"))
    page.say(
        f"""Each column has mean 0 and variance 1. A row does not, because the statistics are not taken over a sample's
        features. The variance is not exactly 1: epsilon prevents a division by zero for a constant feature, and gives
        the output the variance v / (v + epsilon). The effect is largest for the fourth feature, whose v is only
        {variance.min():.4f}. With epsilon = 1e-12 all variances are 1 within 1e-6.""",
        f"""竖着看每一列：均值为 0，方差为 1。横着看每一行则不然，因为统计量并不是在同一个样本的各特征之间求的。方差也只
        是近似等于 1：epsilon 避免常数特征出现除以零，代价是输出方差等于 v / (v + epsilon)。第四个特征的 v 只
        有 {variance.min():.4f}，所以最明显。把 epsilon 换成 1e-12，各列方差与 1 的差都小于 1e-6。""",
    )
    page.figure(
        "features",
        partial(draw_features, FEATURES, output),
        """Each column is a feature, each marker shape a sample. Before normalisation there are five scales, afterwards
        one. The order of the samples stays.""",
        "每一列是一个特征，每种形状是一个样本。归一化之前五个尺度各不相同，之后只有一个；次序不变。",
    )


def _images(page: Page) -> None:
    page.heading("Images: one mean per channel", "图像：每个通道一个均值")
    page.say(
        """In a convolutional network a feature is a channel, and it is the same feature at every pixel. So a channel's
        mean and variance are taken over the batch and over all pixels (section 3.2): here 3 images x 1 x 2 pixels, 6
        values.""",
        """在卷积网络里，一个特征就是一个通道，它在每个像素上都是同一个特征。所以每个通道的均值和方差在批次和全部像素上
        一起求（论文 3.2 节）：这里是 3 张图像 × 1 × 2 个像素，共 6 个值。""",
    )
    output = BatchNorm(IMAGES.shape[1])(paddle.to_tensor(IMAGES)).numpy()
    page.array("x, (3, 3, 1, 2), first image", IMAGES[0])
    page.array("BatchNorm(3)(x), first image", output[0])
    _record_statistics(page, "images", IMAGES, output, axes=(0, 2, 3))
    page.table(
        "channel | mean of x | variance of x | mean of y | variance of y",
        "通道 | x 的均值 | x 的方差 | y 的均值 | y 的方差",
        [
            [channel, *(f"{abs(value) if abs(value) < 5e-7 else value:.6f}" for value in values)]
            for channel, values in enumerate(
                zip(*(f(a, (0, 2, 3), np.float64) for a in (IMAGES, output) for f in (np.mean, np.var)), strict=True)
            )
        ],
    )


def _record_statistics(page: Page, name: str, x: np.ndarray, output: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Record the errors of the output's mean and variance; return the variance of x."""
    variance = x.var(axes, dtype=np.float64)
    nearly_without_epsilon = BatchNorm(x.shape[1], epsilon=1e-12)(paddle.to_tensor(x)).numpy()
    found = output.var(axes, dtype=np.float64)
    page.record(
        **{
            f"{name}_mean_error": largest(output.mean(axes, dtype=np.float64)),
            f"{name}_variance_below_1": largest(1 - found),
            f"{name}_variance_error": largest(found - variance / (variance + EPSILON)),
            f"{name}_variance_error_tiny_epsilon": largest(nearly_without_epsilon.var(axes, dtype=np.float64) - 1),
        }
    )
    return variance


def _scale_and_shift(page: Page) -> None:
    page.heading("Gamma and beta can restore mean and scale", "gamma 与 beta：去掉的可以还回来")
    layer = BatchNorm(FEATURES.shape[1])
    layer.weight.set_value(np.full(5, 2.0, np.float32))
    layer.bias.set_value(np.full(5, 3.0, np.float32))
    scaled = layer(paddle.to_tensor(FEATURES)).numpy()
    mean, variance = FEATURES.mean(0), FEATURES.var(0)
    layer.weight.set_value(np.sqrt(variance + EPSILON))
    layer.bias.set_value(mean)
    restored = layer(paddle.to_tensor(FEATURES)).numpy()
    page.record(
        scaled_mean=scaled.mean(0),
        scaled_deviation=scaled.std(0),
        restored_error=largest((restored - FEATURES) / np.sqrt(variance)),
    )
    page.values(
        f"gamma = 2, beta = 3:  y.mean(0) = {_short(scaled.mean(0))},  y.std(0) = {_short(scaled.std(0))}",
        f"gamma = sqrt(variance + epsilon), beta = mean:  y[0] = {_short(restored[0])},  x[0] = {_short(FEATURES[0])}",
    )
    page.say(
        """The network learns a scale and a shift for each feature, so the layer loses no expressive power. With the
        standard deviation as gamma and the mean as beta, it is the identity. What changes is the parametrisation: the
        mean and scale of a feature are now two parameters, and no longer the result of all earlier layers.""",
        """网络为每个特征学习一个缩放和一个平移，因此表达能力没有丢失：取 gamma 为标准差、beta 为均值，这一层就是恒等映
        射。变的是由谁来决定：特征的中心和尺度现在只是两个参数，不再是下面所有层共同作用的结果。""",
    )


def _compare_with_paddle(page: Page) -> None:
    page.heading("Forward and backward against Paddle's", "前向与反向：与 Paddle 对照")
    random = np.random.default_rng(1)
    x, slope = (random.normal(1.0, 2.0, (8, 5, 4, 6)).astype(np.float32) for _ in range(2))
    state = {name: random.uniform(0.5, 2.0, 5).astype(np.float32) for name in ("weight", "bias", "_mean", "_variance")}
    reference, ours = nn.BatchNorm2D(5), BatchNorm(5)
    for layer in (reference, ours):
        layer.set_state_dict(state)
    expected, found = _forward_and_backward(reference, x, slope), _forward_and_backward(ours, x, slope)
    closed = batch_norm_gradients(paddle.to_tensor(slope), paddle.to_tensor(x), reference.weight)
    names = ["y", "dL/dx", "dL/dgamma", "dL/dbeta"]
    ours_errors = [_relative(a, b) for a, b in zip(found, expected, strict=True)]
    closed_errors = [_relative(a.numpy(), b) for a, b in zip(closed, expected[1:], strict=True)]
    page.values(
        "g     = dL/dy",
        "dL/dx = gamma / sqrt(variance + epsilon) * (g - mean(g) - z * mean(g * z))      # z = the normalised x",
    )
    page.table(
        " | largest value | ours by autograd - Paddle's | closed form - Paddle's",
        " | 最大值 | 我们的实现（自动微分）与 Paddle 之差 | 闭式与 Paddle 之差",
        [
            [name, f"{largest(value):.4f}", f"{ours_error:.1e}", closed_error]
            for name, value, ours_error, closed_error in zip(
                names, expected, ours_errors, ["", *(f"{error:.1e}" for error in closed_errors)], strict=True
            )
        ],
    )
    x_gradient = expected[1].astype(np.float64)
    page.record(
        ours_relative_errors=ours_errors,
        closed_form_relative_errors=closed_errors,
        x_gradient_sum=largest(x_gradient.sum((0, 2, 3))) / largest(x_gradient),
    )
    page.say(
        """Differences are relative to the largest value in the row, and are float32's rounding error. Two terms of the
        gradient matter. Because x also changes the batch's mean and variance, the layer removes both directions from
        the gradient. Over a channel, dL/dx sums to 0, because a shift of the whole channel cannot change the output.
        The equations are in `models/batch_norm.py`.""",
        """表中的差是与该行最大值之比，即 float32 的舍入误差。梯度里的两项是关键：x 也会改变批次的均值和方差，因此这一层
        把这两个方向从梯度中去掉；在每个通道上 dL/dx 之和为 0，因为整个通道平移不会改变输出。公式
        见 `models/batch_norm.py`。""",
    )


def _forward_and_backward(layer: nn.Layer, x: np.ndarray, slope: np.ndarray) -> list[np.ndarray]:
    """Return the output, and the gradients of ``(output * slope).sum()`` by x, gamma and beta."""
    argument = paddle.to_tensor(x, stop_gradient=False)
    output = layer(argument)
    (output * paddle.to_tensor(slope)).sum().backward()
    return [each.numpy().copy() for each in (output, argument.grad, layer.weight.grad, layer.bias.grad)]


def _relative(found: np.ndarray, expected: np.ndarray) -> float:
    return largest(found - expected) / largest(expected)


def _short(values: np.ndarray) -> str:
    return np.array2string(values, precision=3, floatmode="fixed", suppress_small=True)
