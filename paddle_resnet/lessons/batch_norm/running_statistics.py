"""The running statistics of batch normalisation: in training, in evaluation, and for a batch of one."""

from __future__ import annotations

from functools import partial

import numpy as np
import paddle
from paddle import nn

from paddle_resnet.lessons.batch_norm.plots import draw_running_statistics
from paddle_resnet.lessons.framework.page import Page, Text
from paddle_resnet.models.batch_norm import BatchNorm, batch_statistics

# Three samples of five features with different means and scales.
FEATURES = np.array(
    [[1.0, 10.0, -3.0, 0.2, 50.0], [2.0, 14.0, -1.0, 0.8, 20.0], [6.0, 12.0, -8.0, 0.5, 80.0]], np.float32
)
# Three images of three channels, 1 x 2 pixels.
IMAGES = np.array(
    [
        [[[1.0, 3.0]], [[10.0, 14.0]], [[-2.0, 2.0]]],
        [[[2.0, 6.0]], [[11.0, 19.0]], [[-1.0, 4.0]]],
        [[[4.0, 8.0]], [[12.0, 18.0]], [[0.0, 9.0]]],
    ],
    np.float32,
)
EPSILON = 1e-5
"""Paddle's default."""


def largest(values: np.ndarray | paddle.Tensor) -> float:
    """Return the largest absolute value."""
    return float(np.abs(np.asarray(values)).max())


MOMENTUM = 0.9
NEW = (0.0, 1.0)
"""Running mean and variance of a new layer."""


def teach(page: Page) -> None:
    """Follow the running statistics, evaluate with them, and pass a batch of one."""
    _running_statistics(page)
    _evaluation(page)
    _one_value(page)


def _running_statistics(page: Page) -> None:
    page.heading("Running statistics", "它记住了什么")
    page.say(
        """A prediction must not depend on the other samples in the batch. So the layer also keeps running statistics in
        training, and uses them in evaluation instead of the batch's. They start at mean 0 and variance 1. The forward
        pass updates them, not the optimizer.""",
        """对一个样本的预测不应取决于同一批里还有哪些样本。因此训练时这一层同时维护滑动统计量，评估时用它代替批次统计
        量。初值是均值 0、方差 1；它们在前向计算中更新，与优化器无关。""",
    )
    page.values(f"running = momentum * running + (1 - momentum) * batch        # momentum = {MOMENTUM}")
    random = np.random.default_rng(0)
    batches = [random.normal(5.0, 3.0, (8, 1)).astype(np.float32) for _ in range(60)]
    layer = nn.BatchNorm1D(1)
    measured, biased, unbiased = [], [np.array(NEW)], [np.array(NEW)]
    for batch in batches:
        layer(paddle.to_tensor(batch))
        measured.append((layer._mean.item(), layer._variance.item()))
        for history, divisor in ((biased, 0), (unbiased, 1)):
            new = np.array([batch.mean(dtype=np.float64), batch.var(ddof=divisor, dtype=np.float64)])
            history.append(MOMENTUM * history[-1] + (1 - MOMENTUM) * new)
    steps = np.array(measured)
    page.table(
        "step | batch mean | running mean, Paddle | formula "
        "| batch variance | running variance, Paddle | formula | with m - 1",
        "步 | 批次均值 | 滑动均值，Paddle | 公式 | 批次方差 | 滑动方差，Paddle | 公式 | 若除以 m - 1",
        [
            [
                step,
                *(f"{mean:.4f}" for mean in (batches[step - 1].mean(), steps[step - 1, 0], biased[step][0])),
                *(f"{variance:.4f}" for variance in (batches[step - 1].var(), steps[step - 1, 1], biased[step][1])),
                f"{unbiased[step][1]:.4f}",
            ]
            for step in range(1, 5)
        ],
    )
    page.record(
        running_error=largest(steps - np.array(biased[1:])),
        running_variance_from_unbiased=largest(steps[-1, 1] - unbiased[-1][1]),
        running_first_mean=float(steps[0, 0]),
        batch_first_mean=float(batches[0].mean()),
        running_last=steps[-1],
    )
    page.figure(
        "running_statistics",
        partial(draw_running_statistics, batches, steps),
        """60 batches of 8 samples of a feature with mean 5 and variance 9. In each step the running statistics move a
        tenth of the way towards the batch's.""",
        "均值为 5、方差为 9 的特征，60 个大小为 8 的批次。记住的值每一步向批次统计量走十分之一。",
    )
    _conventions(page, batches[0])


def _conventions(page: Page, batch: np.ndarray) -> None:
    """Compare the conventions with PyTorch's."""
    swapped = nn.BatchNorm1D(1, momentum=0.1)
    swapped(paddle.to_tensor(batch))
    page.record(swapped_first_mean=swapped._mean.item())
    page.table(
        " | Paddle | PyTorch",
        " | Paddle | PyTorch",
        [
            ["running =", "momentum * running + (1 - momentum) * batch", "(1 - momentum) * running + momentum * batch"],
            ["momentum", "0.9", "0.1"],
            [Text("variance", "方差"), "sum / m", "sum / (m - 1)"],
        ],
    )
    page.say(
        f"""Two conventions differ from PyTorch's, and confusing them raises no error. PyTorch's `momentum=0.1`, passed
        to Paddle, keeps a tenth of the old value and takes nine tenths of the new one. After the first batch the
        running mean is {swapped._mean.item():.4f} instead of {0.1 * batch.mean():.4f}. Paddle also stores the biased
        variance, which it divides by in training. The last column of the table of steps shows what PyTorch would store,
        from variances 8/7 as large. (This lesson does not need PyTorch. The column follows its documentation, and
        `tests/models/test_batch_norm.py` contains values that PyTorch printed.)""",
        f"""有两处约定与 PyTorch 不同，弄混了也不会报错。把 PyTorch 的 `momentum=0.1` 照抄进 Paddle，就成了保留十分之
        一、取用十分之九：第一个批次之后滑动均值是 {swapped._mean.item():.4f}，而不是 {0.1 * batch.mean():.4f}。另外，
        Paddle 记住的是有偏方差，也就是训练时用来归一化的那个；上面逐步表格的最后一列是 PyTorch 会记住的值，它所取的批次
        方差是这里的 8/7。（本课不需要安装 PyTorch；它那一列依据其文档，`tests/models/test_batch_norm.py` 里有它实际输出
        的数值。）""",
    )


def _evaluation(page: Page) -> None:
    page.heading("In evaluation the output is not the input", "评估模式下输出不等于输入")
    layer = nn.BatchNorm1D(FEATURES.shape[1])
    x = paddle.to_tensor(FEATURES)
    layer.eval()
    while_new = layer(x).numpy()
    layer.train()
    layer(x)
    layer.eval()
    after_a_step = layer(x).numpy()
    alone = layer(x[:1]).numpy()
    mean, variance = (1 - MOMENTUM) * FEATURES.mean(0), MOMENTUM + (1 - MOMENTUM) * FEATURES.var(0)
    by_formula = (FEATURES - mean) / np.sqrt(variance + EPSILON)
    page.array("x[0]", FEATURES[0])
    page.array("new layer, eval", while_new[0])
    page.array("after one step of training, eval", after_a_step[0])
    page.array("the same, the first sample alone", alone[0])
    page.array("(x - running mean) / sqrt(running variance + epsilon)", by_formula[0])
    page.record(
        new_eval_error=largest(while_new - FEATURES / np.sqrt(1 + EPSILON)),
        alone_minus_in_batch=largest(alone[0] - after_a_step[0]),
        trained_eval_error=largest(after_a_step - by_formula),
        trained_eval_distance_from_input=largest(after_a_step - FEATURES),
    )
    page.say(
        """A new layer has running mean 0 and variance 1, so it returns its input, up to the factor 1 / sqrt(1 +
        epsilon). Tutorials that stop here conclude that evaluation passes the input through. After one step in training
        mode it does not, because the running statistics have changed. They have moved only a tenth of the way, so the
        output also differs from training's; after many steps it comes close. Evaluation needs no batch: the first
        sample alone has the same output as among the three.""",
        """新建的层记着均值 0、方差 1，因此除了系数 1 / sqrt(1 + epsilon) 之外原样返回输入。有的教程到此为止，就说评估模
        式会让输入原样通过。其实只要在训练模式下走过一步就不是了：滑动统计量已经变了。又因为只走了十分之一，输出也还不是
        训练时的结果；走过许多步之后才会接近。这里不需要批次：第一个样本单独输入，得到的答案与三个样本一起时相同。""",
    )


def _one_value(page: Page) -> None:
    page.heading("A batch of one", "批大小为 1")
    sample = FEATURES[:1]
    beta = np.arange(1, 6, dtype=np.float32)
    x = paddle.to_tensor(sample)
    mean, variance = batch_statistics(x)
    by_equations = ((x - mean) / paddle.sqrt(variance + EPSILON) + paddle.to_tensor(beta)).numpy()
    outputs = {}
    for name, layer in (("paddle.nn.BatchNorm1D", nn.BatchNorm1D(5)), ("our BatchNorm", BatchNorm(5))):
        layer.bias.set_value(beta)
        layer.train()
        outputs[name] = layer(x).numpy()
        page.record(**{f"one_value_running_mean_{'paddle' if 'paddle' in name else 'ours'}": largest(layer._mean)})
    pair = nn.BatchNorm2D(3)(paddle.to_tensor(IMAGES[:1])).numpy()
    page.array("x, (1, 5)", sample)
    page.array("the equations, beta = 1, 2, 3, 4, 5", by_equations)
    for name, output in outputs.items():
        page.array(f"{name}, train", output)
    page.array("paddle.nn.BatchNorm2D(3), train, on the first image alone (two pixels per channel)", pair[0])
    page.record(
        one_value_equations_minus_beta=largest(by_equations - beta),
        one_value_paddle_minus_input=largest(outputs["paddle.nn.BatchNorm1D"] - sample),
        one_value_ours_minus_input=largest(outputs["our BatchNorm"] - sample),
        two_values=np.abs(pair).ravel(),
    )
    page.say(
        """With one value per feature, the mean is that value and the variance is 0. By the equations the output is beta
        for every input, and nothing can be learnt. Paddle does not follow the equations here. It returns the input
        without gamma and beta, and leaves the running statistics unchanged. Ours does the same, to match Paddle
        (PyTorch raises an error). Evaluation is not affected, because it needs no batch.""",
        """每个特征只有一个值时，均值就是它自己，方差为 0：按公式，无论输入什么，答案都是 beta，什么也学不到。Paddle 在
        这里没有照公式做：它原样返回输入，连 gamma 和 beta 都不用，滑动统计量也不动；为了与 Paddle 一致，我们的实现也这
        样（PyTorch 会报错）。评估模式不受影响，因为它不需要批次。""",
    )
    page.say(
        """A single image has more than one value per channel if the channel has more than one pixel, and then the
        equations apply again. With two pixels the output is -1 and 1 for every channel, independent of the pixels:
        statistics of a small batch carry little information. The lesson `normalization` continues here.""",
        """只要通道里不止一个像素，单张图像就不止一个值，公式又成立了。只有两个像素时，每个通道得到的都是 -1 和 1，与像
        素值无关：批次太小，统计量就没有意义。`normalization` 一课会继续讨论。""",
    )
