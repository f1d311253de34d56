"""The speed of a matrix product and of a convolution, forward and backward, measured in about two seconds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from paddle_resnet import runtime, signals
from paddle_resnet.doctor.section import Section
from paddle_resnet.system import threads
from paddle_resnet.timing import seconds

if TYPE_CHECKING:
    from paddle import nn

PRODUCT_SIZE = 1024
BATCH, CHANNELS, SIDE, KERNEL = 32, 64, 16, 3
"""The convolution of a resnet18's first stage, on CIFAR's images enlarged to 64x64."""
SECONDS = 0.5
BILLION = 1e9


def examine_speed() -> Section:
    """Measure on the CPU, in float32; values are GFLOP/s. Call it if Paddle is usable (`examine_paddle`)."""
    import paddle

    device = paddle.device.get_device()
    paddle.device.set_device("cpu")
    try:
        section = Section("speed")
        _load(section)
        _measure(section, trains_on_cpu=device == "cpu")
    finally:
        paddle.device.set_device(device)
    return section


def _load(section: Section) -> None:
    """Add how busy the machine was before: threads that share cores wait for one another."""
    if not hasattr(os, "getloadavg"):
        return
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    section.add("load before", f"{load:.1f} on {processors} processors (mean of the last minute)", round(load, 2))
    if load > processors / 2:
        section.advice.append(
            f"the load was {load:.1f} on {processors} processors before the check: other programs make the figures "
            "lower, and training slower"
        )


def _measure(section: Section, trains_on_cpu: bool) -> None:
    from paddle import nn

    from paddle_resnet import onednn
    from paddle_resnet.onednn.layers import Convolution

    product = _product_rate()
    section.add("matrix product", f"{product:.0f} GFLOP/s on the CPU, float32", round(product, 1))
    native_step = _convolution_step(nn.Conv2D, [BATCH, CHANNELS, SIDE, SIDE])
    native = _convolution_rate(native_step)
    share = f"{native / product:.0%}"
    section.add(
        "convolution", f"{native:.0f} GFLOP/s by Paddle's own layer, {share} of the product's", round(native, 1)
    )
    reason = onednn.unavailable_reason("cpu")
    if reason is None:
        step = _convolution_step(Convolution, [BATCH, SIDE, SIDE, CHANNELS])
        fast = _convolution_rate(step)
        text = f"{fast:.0f} GFLOP/s by the training layers, {fast / native:.1f} times as fast"
        section.add("with oneDNN", text, round(fast, 1))
        _compare_threads(section, step)
    elif trains_on_cpu and onednn.platform_reason() is None:
        section.advice.append(
            f"training uses Paddle's own layers, as {reason}; their convolution reaches {share} of the speed of a "
            "matrix product here, and oneDNN's come close to it"
        )


def _compare_threads(section: Section, step: Callable[[], object]) -> None:
    """Add the speed by number of threads: beside other programs fewer may be faster."""
    before, (most, *fewer) = threads.count(), threads.usable()
    if not fewer or not threads.can_change():
        return
    others = threads.OtherPrograms()
    best, seconds = threads.fastest({number: threads.with_count(number, step) for number in (most, *fewer)})
    threads.use(before)
    load = others.cores()
    speeds = {number: round(seconds[most] / seconds[number], 2) for number in seconds}
    shares = ", ".join(f"{number}: {speed:.2f}" for number, speed in speeds.items())
    text = (
        f"relative speed of the convolution by number of threads, {shares}, while other programs use {load:.1f} cores"
    )
    section.add("threads", text, speeds)
    if best == most:
        return
    setting = runtime.prepare_process().threads
    remedy = "training and prediction choose the number by themselves (threads: auto)"
    if setting.preset:
        remedy = f"unset {setting.variable}, and training and prediction choose the number by themselves"
    are = "thread is" if best == 1 else "threads are"
    end = "end them; " if load >= threads.LEAST_LOAD else ""
    section.advice.append(
        f"{best} {are} {speeds[best]:.1f} times as fast as {most} now, while other programs use {load:.1f} cores: "
        f"{end}{remedy}"
    )


def _product_rate() -> float:
    import paddle

    left, right = paddle.rand([PRODUCT_SIZE, PRODUCT_SIZE]), paddle.rand([PRODUCT_SIZE, PRODUCT_SIZE])
    return 2 * PRODUCT_SIZE**3 / BILLION / _fastest(lambda: paddle.matmul(left, right))


def _convolution_step(kind: type[nn.Conv2D], shape: list[int]) -> Callable[[], None]:
    """Return a forward and backward pass of one layer."""
    import paddle

    layer = kind(CHANNELS, CHANNELS, KERNEL, padding=KERNEL // 2, bias_attr=False)
    images = paddle.rand(shape)
    images.stop_gradient = False

    def step() -> None:
        with signals.uninterrupted():
            layer(images).sum().backward()
        images.clear_gradient()
        layer.clear_gradients()

    return step


def _convolution_rate(step: Callable[[], None]) -> float:
    """Return the GFLOP/s of a step; the gradients of images and of weights each take as many as the forward pass."""
    return 3 * 2 * BATCH * (SIDE * CHANNELS * KERNEL) ** 2 / BILLION / _fastest(step)


def _fastest(work: Callable[[], object]) -> float:
    """Return the seconds of the fastest run after one warm-up run: other programs only make runs slower."""
    work()
    ends, fastest = time.perf_counter() + SECONDS, seconds(work)
    while time.perf_counter() < ends:
        fastest = min(fastest, seconds(work))
    return fastest
