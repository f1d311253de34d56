"""A list of operations on numbered memories, planned in one piece, that runs with no Python between the operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from paddle_resnet.onednn.bindings import check
from paddle_resnet.onednn.primitives import BoundArguments, Primitive

ALIGNMENT = 64  # bytes of a cache line, and of the widest vector


class Call(NamedTuple):
    """An operation, called with the addresses of these memories."""

    operation: Callable[..., Any]
    numbers: Sequence[int]


class Program:
    """Operations in order, and the addresses of their memories.

    Attributes:
        size: bytes of the memories that lie in one piece.
    """

    def __init__(self, calls: Sequence[Call], sizes: Sequence[int], elsewhere: set[int], lasting: set[int]) -> None:
        """Plan the memories of these `sizes`, by number; see `plan_memory`."""
        self._offsets, self.size = plan_memory(calls, sizes, elsewhere, lasting)
        self._start = 0
        self._addresses = [0] * len(sizes)
        self._users: list[list[tuple[BoundArguments, int]]] = [[] for _ in sizes]
        self._calls = [self._prepare(call) for call in calls]

    def place_planned(self, start: int) -> None:
        """Let the planned memories lie in the `size` bytes from this address."""
        if start != self._start:
            self._start = start
            for number, offset in self._offsets.items():
                self.place(number, start + offset)

    def place(self, number: int, address: int) -> None:
        if address != self._addresses[number]:
            self._addresses[number] = address
            for arguments, index in self._users[number]:
                arguments.place(index, address)

    def offset(self, number: int) -> int:
        return self._offsets[number]

    def run(self, first: int = 0, end: int | None = None) -> None:
        for function, arguments in self._calls[first:end]:
            status = function(*arguments)
            if status:
                check(status, "primitive_execute")

    def _prepare(self, call: Call) -> tuple[Callable[..., int | None], tuple[Any, ...]]:
        """Return a function and its arguments; a primitive's are made once, with the addresses of their own."""
        operation, numbers = call
        if not isinstance(operation, Primitive):
            return _call, (operation, numbers, self._addresses)
        arguments = operation.make_arguments()
        for index, number in enumerate(numbers):
            self._users[number].append((arguments, index))
        return operation.execute, arguments.of_execute


def _call(operation: Callable[..., Any], numbers: Sequence[int], addresses: list[int]) -> None:
    operation(*[addresses[number] for number in numbers])


def plan_memory(
    calls: Sequence[Call], sizes: Sequence[int], elsewhere: set[int], lasting: set[int]
) -> tuple[dict[int, int], int]:
    """Give each memory an offset, so that no two overlap which hold something at the same time.

    The largest first, each as low as it can lie (Pisarchyk and Lee 2020, arXiv:2001.03288, "greedy by size").

    Args:
        calls: in order.
        sizes: in bytes, by number.
        elsewhere: the numbers of what lies elsewhere.
        lasting: the numbers of what holds something before the first call and after the last one.

    Returns:
        The offsets by number, and the size of the whole.
    """
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for time, call in enumerate(calls):
        for number in call.numbers:
            first.setdefault(number, time)
            last[number] = time
    first |= dict.fromkeys(lasting, 0)
    last |= dict.fromkeys(lasting, len(calls))
    numbers = sorted(first.keys() - elsewhere, key=lambda each: -sizes[each])
    starts, ends = np.zeros((2, len(numbers)), np.int64)
    begins, finishes = (np.array([times[number] for number in numbers], np.int64) for times in (first, last))
    for index, number in enumerate(numbers):
        size, offset = -(-sizes[number] // ALIGNMENT) * ALIGNMENT, 0
        at_once = (begins[:index] <= finishes[index]) & (finishes[:index] >= begins[index])
        for start, end in sorted(zip(starts[:index][at_once].tolist(), ends[:index][at_once].tolist(), strict=True)):
            if offset + size <= start:
                break
            offset = max(offset, end)
        starts[index], ends[index] = offset, offset + size
    return dict(zip(numbers, starts.tolist(), strict=True)), max(ends.tolist(), default=0)
