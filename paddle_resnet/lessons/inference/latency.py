"""Latency of the exported network and of the dynamic graph, and pitfalls of measuring it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from paddle_resnet import runtime
from paddle_resnet.evaluation import NetworkScorer
from paddle_resnet.inference import Predictor
from paddle_resnet.lessons.common.timing import describe_machine, time_interleaved
from paddle_resnet.lessons.framework.page import Page
from paddle_resnet.plots.style import BLUE, GREEN, ORANGE, label_log_axis, plain_log_labels
from paddle_resnet.training import RunFolder

DYNAMIC, EXPORTED, ONE_THREAD = "dynamic graph", "exported", "exported, 1 thread"
CHINESE = {DYNAMIC: "动态图", EXPORTED: "导出的模型", ONE_THREAD: "导出的模型，单线程"}
COLOURS = {DYNAMIC: ORANGE, EXPORTED: BLUE, ONE_THREAD: GREEN}
MARKS = {DYNAMIC: "o", EXPORTED: "s", ONE_THREAD: "^"}
BATCHES = (1, 8, 32, 128)
FIRST_CALLS = 60
MARKER_STYLE: dict[str, Any] = {"markersize": 3, "linewidth": 1}


def show_times(page: Page, run: RunFolder, images: np.ndarray, rounds: int) -> None:
    """Time both forms on uint8 images ``[N, S, S, 3]``: the first calls, then `rounds` for each batch size."""
    page.heading("How fast is it, and how is that measured?", "有多快，又该怎么测？")
    threads = runtime.prepare_process().threads
    network = NetworkScorer(run.load_network(), run.normalize())
    with (
        Predictor(run.inference_path, batch_size=max(BATCHES)) as usual,
        Predictor(run.inference_path, threads=1, batch_size=max(BATCHES)) as single,
    ):
        forms = {DYNAMIC: network.scores, EXPORTED: usual.scores}
        if runtime.thread_count(threads) != 1:
            forms[ONE_THREAD] = single.scores

        def measure(batch: np.ndarray, rounds: int) -> dict[str, np.ndarray]:
            return time_interleaved({name: partial(scores, batch) for name, scores in forms.items()}, rounds)

        first = measure(images[:1], FIRST_CALLS)
        _show_first_calls(page, first, f"{threads.variable}={threads.value}")
        steady = {}
        for size in BATCHES:
            batch = np.resize(images, (size, *images.shape[1:]))
            measure(batch, 1)  # warm-up for the new shape
            steady[size] = measure(batch, rounds)
    _show_steady(page, steady, rounds)


def _show_first_calls(page: Page, first: Mapping[str, np.ndarray], threads: str) -> None:
    opening = {name: 1000 * float(seconds[0]) for name, seconds in first.items()}
    later = {name: 1000 * float(np.median(seconds[FIRST_CALLS // 2 :])) for name, seconds in first.items()}
    hasty = 1000 * float(np.mean(first[EXPORTED][:10]))
    page.say(
        f"""{FIRST_CALLS} interleaved calls of each form with a single image; the exported model has just been loaded
        (threads: {threads}). Its first call took {opening[EXPORTED]:.1f} ms; the median of the second half is
        {later[EXPORTED]:.2f} ms. A mean over the first ten calls would give {hasty:.2f} ms.""",
        f"""每种方式轮流调用 {FIRST_CALLS} 次，每次一张图像，导出的模型刚刚加载（线程：{threads}）。它的第一次调用用
        了 {opening[EXPORTED]:.1f} 毫秒，后一半的中位数是 {later[EXPORTED]:.2f} 毫秒；如果取前十次的平均，得到的会
        是 {hasty:.2f} 毫秒。""",
    )
    if opening[EXPORTED] > 2 * later[EXPORTED]:
        page.say(
            """The first call also prepares kernels and memory for this input shape. Exclude the first calls, and report
            the median, because a single interruption does not change it.""",
            """第一次调用还要为这种输入形状准备计算核与内存。最初几次不要计入，并且报告中位数：偶然的一次打断动不了
            它。""",
        )
    else:
        page.say(
            """In this run the first call is not slower. It also prepares kernels and memory, and is often slower.
            Exclude the first calls anyway, and report the median, because a single interruption does not change it.""",
            """这一次，第一次调用并不突出；但它要准备计算核与内存，常常会明显更慢。所以仍然不要计入最初几次，并且报告中
            位数：偶然的一次打断动不了它。""",
        )
    page.figure(
        "first_calls",
        lambda: _draw_first_calls(first),
        "Milliseconds of each call with one image, in order.",
        "每次调用（一张图像）的毫秒数，按先后次序。",
    )
    page.record(
        ways=list(first),
        first_call_ms=list(opening.values()),
        later_median_ms=list(later.values()),
        mean_of_first_ten_ms=hasty,
    )


def _draw_first_calls(first: Mapping[str, np.ndarray]) -> Figure:
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, seconds in first.items():
        axes.plot(
            np.arange(1, len(seconds) + 1),
            1000 * seconds,
            f"{MARKS[name]}-",
            color=COLOURS[name],
            **MARKER_STYLE,
            label=name,
        )
    axes.set_yscale("log")
    plain_log_labels(axes.yaxis)
    axes.set(xlabel="call", ylabel="time (ms)")
    axes.grid(True, axis="y")
    axes.legend(loc="upper right")
    return figure


def _show_steady(page: Page, steady: Mapping[int, Mapping[str, np.ndarray]], rounds: int) -> None:
    names = list(steady[BATCHES[0]])
    medians = {size: {name: float(np.median(each)) for name, each in taken.items()} for size, taken in steady.items()}
    page.say(
        f"""After the warm-up, {rounds} interleaved rounds for each batch size. The table shows the median milliseconds
        per call, from raw pixels to probabilities in numpy. {describe_machine().en}""",
        f"""预热之后，每种批大小轮流测 {rounds} 轮；从原始像素到 numpy 里的概率，每次调用的毫秒数（中位数）。
        {describe_machine().zh}""",
    )
    page.table(
        " | ".join(["batch", *(f"{name} (ms)" for name in names)]),
        " | ".join(["批大小", *(f"{CHINESE[name]}（毫秒）" for name in names)]),
        [[size, *[f"{1000 * medians[size][name]:.2f}" for name in names]] for size in steady],
    )
    for size in (BATCHES[0], BATCHES[-1]):
        page.say(*_verdict(size, steady[size]))
    page.figure(
        "throughput",
        lambda: _draw_throughput(steady),
        "Images per second by batch size: medians, and lines from the first to the third quartile.",
        "不同批大小下每秒处理的图像数：中位数，以及第一到第三四分位数的范围。",
    )
    for size in steady:
        page.record(**{f"median_ms_batch_{size}": [1000 * each for each in medians[size].values()]})


def _verdict(size: int, taken: Mapping[str, np.ndarray]) -> tuple[str, str]:
    """Say which form is faster at a batch size, or that the middle halves of their times overlap."""
    dynamic, exported = taken[DYNAMIC], taken[EXPORTED]
    ratio = float(np.median(dynamic) / np.median(exported))
    english, chinese = f"Batch {size}: the exported model", f"批大小 {size}：导出的模型"
    if np.percentile(exported, 75) < np.percentile(dynamic, 25):
        return (
            f"{english} took {1 / ratio:.2f} of the dynamic graph's time.",
            f"{chinese}用时是动态图的 {1 / ratio:.2f}。",
        )
    if np.percentile(dynamic, 75) < np.percentile(exported, 25):
        return (
            f"{english} took {1 / ratio:.2f} times the dynamic graph's time: here the export did not pay.",
            f"{chinese}用时是动态图的 {1 / ratio:.2f} 倍：在这里导出并不划算。",
        )
    return (
        f"""{english} and the dynamic graph do not differ clearly: the middle halves of their times overlap (ratio of
        medians {1 / ratio:.2f}).""",
        f"{chinese}与动态图分不出快慢：两者居中的一半互相重叠（中位数之比 {1 / ratio:.2f}）。",
    )


def _draw_throughput(steady: Mapping[int, Mapping[str, np.ndarray]]) -> Figure:
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    for name in steady[BATCHES[0]]:
        quartiles = np.array([size / np.percentile(taken[name], (75, 50, 25)) for size, taken in steady.items()]).T
        slow, middle, fast = quartiles
        style: dict[str, Any] = {"color": COLOURS[name], "marker": MARKS[name], "capsize": 3, "label": name}
        axes.errorbar(list(steady), middle, yerr=[middle - slow, fast - middle], **style)
    axes.set(xscale="log", yscale="log")
    plain_log_labels(axes.yaxis)
    label_log_axis(axes.xaxis, list(steady))
    axes.set(xlabel="images per call", ylabel="images / s")
    axes.grid(True, axis="y")
    axes.legend(loc="upper left")
    return figure


def show_pitfalls(page: Page) -> None:
    """Write the pitfalls of a latency measurement."""
    page.heading("Pitfalls", "相信一个时间之前")
    for english, chinese in PITFALLS:
        page.say(english, chinese)


PITFALLS: Sequence[tuple[str, str]] = (
    (
        """**Threads.** A Paddle predictor on the CPU uses one thread by default (`set_cpu_math_library_num_threads`
        changes it); `Predictor` uses the process's number. Compare equal numbers of threads, and state the number.""",
        """**线程。** Paddle 的 CPU 推理默认只用一个线程，除非另行设置（`set_cpu_math_library_num_threads`）；
        `Predictor` 用进程的线程数。比较时线程数要相同，并且写明是多少。""",
    ),
    (
        """**Interleaving.** A shared machine slows down for seconds at a time. If all calls of one form ran before all
        calls of the other, the slowdown would affect only one of them. With interleaved calls it affects both.""",
        """**轮流。** 与人共用的机器会一阵一阵地变慢。如果先测完一个再测另一个，这笔账就算到了当时在跑的那个头上；轮流
        测，则两边分摊。""",
    ),
    (
        """**Scope.** State what the time includes: decoding an image file, resizing, copies to the device and back.
        Here it is from pixels to numpy probabilities, without decoding.""",
        """**包含什么。** 解码图像文件、缩放、拷到设备再拷回来：要写明时间里包含哪些。这里是从像素到 numpy 概率，不含解
        码。""",
    ),
    (
        """**A GPU is asynchronous.** A call returns when its kernels are only queued. Timing `network(x)` alone
        measures the queueing. Call `paddle.device.synchronize()`, or copy the result to numpy as here, before stopping
        the clock. This lesson says nothing about a GPU's speed unless it ran on one.""",
        """**GPU 是异步的。** 调用返回时，计算核只是排进了队列。只给 `network(x)` 计时，测到的是排队；停表之前要调
        用 `paddle.device.synchronize()`，或像这里一样把结果取到 numpy。除非本课就在 GPU 上运行，否则它不能说明 GPU 的速
        度。""",
    ),
)
