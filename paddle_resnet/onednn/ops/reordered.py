"""Buffers that a primitive wants in another layout than they have: copied through the thread's scratch memory."""

from __future__ import annotations

from typing import Any

from paddle_resnet.onednn.ops.primitives import Context, reorder, size_of


class ArrangedInput:
    """A buffer that a primitive reads; what it calls for is laid out anew before."""

    def __init__(self, context: Context, use: str, given: Any, wanted: Any) -> None:
        """`use` names the scratch buffer; `given` and `wanted` are memory descriptors."""
        self._scratch = context.scratch
        self._use = use
        self._size = size_of(wanted)
        self._arrange = reorder(context, given, wanted)

    def __call__(self, address: int) -> int:
        """The address at which the primitive finds what stands at `address`."""
        if self._arrange is None:
            return address
        arranged = self._scratch.address(self._use, self._size)
        self._arrange(address, arranged)
        return arranged


class ArrangedOutput:
    """A buffer that a primitive writes; the result is laid out anew afterwards."""

    def __init__(self, context: Context, use: str, written: Any, wanted: Any) -> None:
        """`use` names the scratch buffer; `written` and `wanted` are memory descriptors."""
        self._scratch = context.scratch
        self._use = use
        self._size = size_of(written)
        self._arrange = reorder(context, written, wanted)

    def place(self, address: int) -> int:
        """Where the primitive shall write what is meant for `address`."""
        return address if self._arrange is None else self._scratch.address(self._use, self._size)

    def deliver(self, place: int, address: int) -> None:
        """Bring what the primitive wrote to `address`."""
        if self._arrange is not None:
            self._arrange(place, address)
