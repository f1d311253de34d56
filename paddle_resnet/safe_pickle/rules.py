"""What the stack of the machine holds instead of objects, names and placeholders; and what a pickle may call.

A rule of this project for each global returns data or a placeholder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from paddle_resnet.errors import shown

UNREAD_ARRAY = "numpy array of "  # how the kind of an `Opaque` begins that is an array
_AXES = 32
_COMPARED = 256  # characters that are compared in the time of copying an item

Spend = Callable[[int], None]
Rule = Callable[..., Any]
"""Called with (spend, *arguments); the rule calls `spend(n)` for n bytes or items that it copies or reads."""


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


def flat_key(spend: Spend, value: Any) -> Any:
    """Return the key of a dictionary, checked by `is_flat`; spend for comparing it with an equal one."""
    require(is_flat(value), "a dictionary's key is neither text nor a small number")
    if type(value) in (str, bytes):
        spend(len(value) // _COMPARED)
    return value


LONGEST_WORD = 16
_ELEMENT_TYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
_UNREAD_TYPES = {"O": "objects", "U": "text", "S": "text", "c": "complex numbers", "M": "dates", "V": "records"}
_TEXT_ENCODINGS = {"latin1": "latin1", "latin-1": "latin1", "ascii": "ascii", "utf-8": "utf-8", "utf8": "utf-8"}


def short_word(value: Any) -> str:
    """Check a short word, which Python 2 wrote as bytes."""
    require(type(value) in (str, bytes) and len(value) <= LONGEST_WORD, "a word was expected")
    return value.decode("ascii") if isinstance(value, bytes) else value


def _bytes(spend: Spend, value: Any) -> bytes:
    """Check bytes, which Python 2's text holds as latin1."""
    if type(value) is str:
        spend(len(value))
        return value.encode("latin1")
    require(type(value) is bytes, "an array's content is not bytes")
    return bytes(value)


def _reconstruct(_spend: Spend, kind: Any, _shape: Any, _code: Any) -> ArrayPlaceholder:
    require(type(kind) is Named and kind.name == "ndarray", "it makes an array of another class")
    return ArrayPlaceholder()


def filled(
    spend: Spend, array: ArrayPlaceholder, shape: Any, element_type: Any, order: str, content: Any
) -> ArrayPlaceholder:
    """Fill the placeholder of an array, once, and return it."""
    require(array.content is None, "it fills an array twice")
    if type(element_type) is Opaque:  # an array of text or objects
        array.element_type, array.content = element_type, b""
        return array
    require(type(element_type) is ElementType, "an array has no element type")
    array.element_type, array.shape, array.order = element_type, check_shape(shape), order
    array.content = _bytes(spend, content)
    return array


def _from_buffer(spend: Spend, content: Any, element_type: Any, shape: Any, order: Any) -> ArrayPlaceholder:
    order = short_word(order)
    require(order in ("C", "F"), "an array is neither in C's nor in Fortran's order")
    return filled(spend, ArrayPlaceholder(), shape, element_type, order, content)


def _scalar(spend: Spend, element_type: Any, content: Any) -> ArrayPlaceholder:
    return filled(spend, ArrayPlaceholder(number=True), (), element_type, "C", content)


def _dtype(_spend: Spend, code: Any, *_flags: Any) -> ElementType:
    code = short_word(code)
    require(code in _ELEMENT_TYPES, f"arrays of type {shown(code)} are not weights or pixels")
    return ElementType(code)


def dtype_or_opaque(spend: Spend, code: Any, *flags: Any) -> ElementType | Opaque:
    """Rule for `numpy.dtype` where objects may be `Opaque`: arrays of text or objects are then too."""
    code = short_word(code)
    if code in _ELEMENT_TYPES:
        return _dtype(spend, code, *flags)
    return Opaque(UNREAD_ARRAY + _UNREAD_TYPES.get(code[:1], f"type {shown(code)}"))


def _encode(spend: Spend, text: Any, encoding: Any = "utf-8") -> bytes:
    """Rule for `_codecs.encode`, by which protocols 0 to 2 write bytes."""
    encoding = _TEXT_ENCODINGS.get(short_word(encoding).lower().replace("_", "-"))
    require(type(text) is str and encoding is not None, "it encodes by another encoding than latin1, ascii, utf-8")
    spend(len(text))
    return text.encode(encoding)


def _ordered_dict(spend: Spend, pairs: Any = ()) -> dict[Any, Any]:
    require(type(pairs) in (list, tuple), "an OrderedDict is of no pairs")
    spend(len(pairs))
    require(all(type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs), "an OrderedDict is of no pairs")
    return {flat_key(spend, key): value for key, value in pairs}


def _no_bytes(_spend: Spend) -> bytes:
    """Rule for `bytes()`, by which protocols 0 to 2 write an empty array's content."""
    return b""


def as_tuple(spend: Spend, items: Any = ()) -> tuple[Any, ...]:
    """Rule for `tuple`."""
    require(type(items) in (list, tuple), "a tuple is of no list")
    spend(len(items))
    return tuple(items)


_NUMPY_RULES: Mapping[tuple[str, str], Rule | None] = {
    ("multiarray", "_reconstruct"): _reconstruct,
    ("multiarray", "scalar"): _scalar,
    ("numeric", "_frombuffer"): _from_buffer,
}
RULES: Mapping[tuple[str, str], Rule | None] = {
    # numpy.core before version 2, numpy._core since: a file of either is read under both.
    **{
        (f"numpy.{core}.{module}", name): rule
        for core in ("core", "_core")
        for (module, name), rule in _NUMPY_RULES.items()
    },
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): _ordered_dict,
    ("builtins", "tuple"): as_tuple,
    ("__builtin__", "tuple"): as_tuple,
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
}
"""The globals that files of Paddle and numpy may name."""
