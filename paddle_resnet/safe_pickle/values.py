"""What the stack of the machine holds instead of objects: names and placeholders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from paddle_resnet.errors import shown

UNREAD_ARRAY = "numpy array of "  # how the kind of an `Opaque` begins that is an array
_AXES = 32

Spend = Callable[[int], None]
Rule = Callable[..., Any]
"""Called with (spend, *arguments); the rule calls `spend(n)` for n bytes or items that it copies."""


class Damaged(Exception):  # noqa: N818 (a state of the file)
    """The pickle holds something that programs do not write for data."""


class Named(NamedTuple):
    """A global as the file names it, and the rule for calling it; None: it cannot be called."""

    module: str
    name: str
    rule: Rule | None


@dataclass(eq=False)
class Opaque:
    """A placeholder for an object of an unknown class, or for the result of an unknown function."""

    kind: str  # the name of the class or function
    items: dict[Any, Any] = field(default_factory=dict)  # of a dictionary of an unknown class


@dataclass(eq=False)
class ElementType:
    """A placeholder for a `numpy.dtype`."""

    code: str
    order: str = "<"
    built: bool = False

    def numpy(self) -> np.dtype:
        return np.dtype(self.order + self.code)


@dataclass(eq=False)
class ArrayPlaceholder:
    """A placeholder for an array, or with `number` for its only element."""

    element_type: ElementType | Opaque | None = None
    shape: tuple[int, ...] = ()
    order: str = "C"
    content: bytes | None = None
    number: bool = False


def require(condition: bool, what: str) -> None:
    """Raise `Damaged` unless `condition` holds."""
    if not condition:
        raise Damaged(what)


def check_shape(value: Any) -> tuple[int, ...]:
    """Return a shape, strides or the like; raise `Damaged` unless they are a few integers of 63 bits."""
    require(type(value) in (tuple, list) and len(value) <= _AXES, "a shape is not a short tuple")
    require(all(type(size) is int and abs(size) < 1 << 63 for size in value), "a shape is not of numbers")
    return tuple(value)


def kind_of(value: Any) -> str:
    """Return the words for a value of the wrong type in an error: ``an empty dict``, ``a list``."""
    if isinstance(value, Opaque):
        return f"a {shown(value.kind)}"
    empty = isinstance(value, dict | list | tuple) and not value
    return f"{'an empty' if empty else 'a'} {type(value).__name__}"


def is_flat(value: Any) -> bool:
    """Return whether a key's hash needs no recursion and cannot be made to collide with many others."""
    return value is None or type(value) in (str, bytes, bool) or (type(value) is int and abs(value) < 1 << 63)


def flat_key(value: Any) -> Any:
    """Return the key of a dictionary, checked by `is_flat`."""
    require(is_flat(value), "a dictionary's key is neither text nor a small number")
    return value
