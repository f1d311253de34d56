"""What a pickle may call: a rule of this project for each global, which returns data or a placeholder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paddle_resnet.errors import shown
from paddle_resnet.safe_pickle.values import (
    UNREAD_ARRAY,
    ArrayPlaceholder,
    ElementType,
    Named,
    Opaque,
    Rule,
    Spend,
    check_shape,
    flat_key,
    require,
)

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
    return {flat_key(key): value for key, value in pairs}


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
