"""Timing the forward and the backward pass of operations, the same way for each library."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

from paddle_resnet.benchmark.kernels.cases import Kernel
from paddle_resnet.benchmark.timing import seconds

WARM_UP = 3


def time_kernels(
    job: dict[str, Any],
    prepare: Callable[[Kernel], tuple[Callable[..., Any], list[Any]]],
    ones_like: Callable[[Any], Any],
    go_back: Callable[[Any, Any], object],
) -> dict[str, Any]:
    """Median speed of each kernel's two passes over ``job["repeats"]`` runs, in its own unit.

    Args:
        job: with the keys `kernels` and `repeats`.
        prepare: makes the operation and its inputs, which want gradients.
        ones_like: makes the result's gradient.
        go_back: runs the backward pass of a result with its gradient.
    """
    speeds = {}
    for kernel in (Kernel(*fields) for fields in job["kernels"]):
        operation, inputs = prepare(kernel)
        gradient = ones_like(operation(*inputs))
        results: list[Any] = []
        forward, backward = [], []
        for _ in range(WARM_UP + job["repeats"]):
            forward.append(seconds(lambda: results.append(operation(*inputs))))  # noqa: B023 (called at once)
            backward.append(seconds(lambda: go_back(results.pop(), gradient)))  # noqa: B023
        there, back = kernel.work()
        speeds[kernel.name] = {
            "forward": there / median(forward[WARM_UP:]),
            "backward": back / median(backward[WARM_UP:]),
        }
    return {"speeds": speeds}
