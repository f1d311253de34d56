"""Read a pickle as data: nothing in the file can run code.

A pickle is a program for a small stack machine whose opcodes may call any importable function. The machine here has no
opcode that calls, imports or changes an object of Python, numpy or torch, so no order of opcodes can:

- A global is a `Named` token: two strings. It is not looked up; no module, class or function is on the stack.
- REDUCE and NEWOBJ select one of this project's own rules by the token. A rule checks the type of each argument and
  returns plain data or a placeholder (type, shape, order, bytes). BUILD fills a placeholder once, or is ignored.
- A token without a rule is refused, or with `opaque` makes an `Opaque`, of which little more than its name is kept.
- numpy is not called before the program has ended. Then `np.frombuffer` makes each array from bytes of the file, with
  an element type from a short list without object types, and exactly as many bytes as its shape needs.
- Memory and time are bounded by the file's length: each opcode consumes bytes of the file, copies are counted against a
  budget, dictionary keys are flat, and the result is copied as a tree of bounded depth and size.
"""

from __future__ import annotations

import codecs
import io
import math
import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np

from paddle_resnet.errors import UsageError, shown

_ELEMENT_TYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
_COPIES = 4  # bytes that may be copied, as a multiple of the file's length
_DEPTH = 64
_AXES = 32
_ARGUMENTS = 16
_PYTHON_2_STRING = re.compile(rb"""(?:[^\\]|\\(?:[\\'"nrt]|x[0-9a-fA-F]{2}))*""")
_TEXT_ENCODINGS = {"latin1": "latin1", "latin-1": "latin1", "ascii": "ascii", "utf-8": "utf-8", "utf8": "utf-8"}

UNREAD_ARRAY = "numpy array of "
"""How the kind of an `Opaque` begins that is an array."""
_UNREAD_TYPES = {"O": "objects", "U": "text", "S": "text", "c": "complex numbers", "M": "dates", "V": "records"}

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
class _ElementType:
    code: str
    order: str = "<"
    built: bool = False

    def numpy(self) -> np.dtype:
        return np.dtype(self.order + self.code)


@dataclass(eq=False)
class _Array:
    """A placeholder for an array, or with `number` for its only element."""

    element_type: _ElementType | Opaque | None = None
    shape: tuple[int, ...] = ()
    order: str = "C"
    content: bytes | None = None
    number: bool = False


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise Damaged(what)


def _word(value: Any) -> str:
    """Check a short word, which Python 2 wrote as bytes."""
    _require(type(value) in (str, bytes) and len(value) <= _ARGUMENTS, "a word was expected")
    return value.decode("ascii") if isinstance(value, bytes) else value


def _bytes(spend: Spend, value: Any) -> bytes:
    """Check bytes, which Python 2's text holds as latin1."""
    if type(value) is str:
        spend(len(value))
        return value.encode("latin1")
    _require(type(value) is bytes, "an array's content is not bytes")
    return bytes(value)


def check_shape(value: Any) -> tuple[int, ...]:
    """Return a shape, strides or the like, checked to be a few integers of 63 bits.

    Raises:
        Damaged: it is something else.
    """
    _require(type(value) in (tuple, list) and len(value) <= _AXES, "a shape is not a short tuple")
    _require(all(type(size) is int and abs(size) < 1 << 63 for size in value), "a shape is not of numbers")
    return tuple(value)


def _reconstruct(_spend: Spend, kind: Any, _shape: Any, _code: Any) -> _Array:
    _require(type(kind) is Named and kind.name == "ndarray", "it makes an array of another class")
    return _Array()


def _filled(spend: Spend, array: _Array, shape: Any, element_type: Any, order: str, content: Any) -> _Array:
    _require(array.content is None, "it fills an array twice")
    if type(element_type) is Opaque:  # an array of text or objects
        array.element_type, array.content = element_type, b""
        return array
    _require(type(element_type) is _ElementType, "an array has no element type")
    array.element_type, array.shape, array.order = element_type, check_shape(shape), order
    array.content = _bytes(spend, content)
    return array


def _from_buffer(spend: Spend, content: Any, element_type: Any, shape: Any, order: Any) -> _Array:
    order = _word(order)
    _require(order in ("C", "F"), "an array is neither in C's nor in Fortran's order")
    return _filled(spend, _Array(), shape, element_type, order, content)


def _scalar(spend: Spend, element_type: Any, content: Any) -> _Array:
    return _filled(spend, _Array(number=True), (), element_type, "C", content)


def _dtype(_spend: Spend, code: Any, *_flags: Any) -> _ElementType:
    code = _word(code)
    _require(code in _ELEMENT_TYPES, f"arrays of type {shown(code)} are not weights or pixels")
    return _ElementType(code)


def _dtype_or_opaque(spend: Spend, code: Any, *flags: Any) -> _ElementType | Opaque:
    """Rule for `numpy.dtype` where objects may be `Opaque`: arrays of text or objects are then too."""
    code = _word(code)
    if code in _ELEMENT_TYPES:
        return _dtype(spend, code, *flags)
    return Opaque(UNREAD_ARRAY + _UNREAD_TYPES.get(code[:1], f"type {shown(code)}"))


def _encode(spend: Spend, text: Any, encoding: Any = "utf-8") -> bytes:
    """Rule for `_codecs.encode`, by which protocols 0 to 2 write bytes."""
    encoding = _TEXT_ENCODINGS.get(_word(encoding).lower().replace("_", "-"))
    _require(type(text) is str and encoding is not None, "it encodes by another encoding than latin1, ascii, utf-8")
    spend(len(text))
    return text.encode(encoding)


def _ordered_dict(spend: Spend, pairs: Any = ()) -> dict[Any, Any]:
    _require(type(pairs) in (list, tuple), "an OrderedDict is of no pairs")
    spend(len(pairs))
    _require(all(type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs), "an OrderedDict is of no pairs")
    return {_key(key): value for key, value in pairs}


def _no_bytes(_spend: Spend) -> bytes:
    """Rule for `bytes()`, by which protocols 0 to 2 write an empty array's content."""
    return b""


def as_tuple(spend: Spend, items: Any = ()) -> tuple[Any, ...]:
    """Rule for `tuple`."""
    _require(type(items) in (list, tuple), "a tuple is of no list")
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


def load(file: BinaryIO, name: str, **options: Any) -> Any:
    """Read the pickle in a file; see `load_at`."""
    return load_at(file.read(), 0, name, **options)[0]


def load_at(
    content: bytes,
    start: int,
    name: str,
    *,
    rules: Mapping[tuple[str, str], Rule | None] = RULES,
    encoding: str = "ASCII",
    persistent_load: Callable[[Any], Any] | None = None,
    opaque: bool = False,
) -> tuple[Any, int]:
    """Read one pickle: plain containers, text, numbers, bytes, arrays (read-only), and what `rules` make.

    Args:
        content: the file's bytes.
        start: the place of the pickle's first byte.
        name: the file's name in errors.
        rules: for each global that the file may name, (module, name), the rule for calling it.
        encoding: how the byte strings of Python 2 are read, as in `pickle.load`: ASCII, latin1 or bytes.
        persistent_load: returns the object of a persistent id; None: the pickle may have none.
        opaque: the file may name any global; without a rule, what it makes is an `Opaque`.

    Returns:
        The object, and the place behind the pickle.

    Raises:
        UsageError: the file asks for another global, or is damaged, cut short or no pickle at all.
    """
    if opaque:
        rules = {**rules, ("numpy", "dtype"): _dtype_or_opaque}
    machine = _Machine(content, start, rules, encoding, persistent_load, opaque)
    try:
        return machine.run(), machine.file.tell()
    except _Refused as error:
        raise UsageError(f"{name}: asks for {error}, which is not data: loading it could run code") from None
    except OSError:
        raise
    except Exception as error:  # wrong opcodes surface as almost any exception
        reason = shown(" ".join(str(error)[:300].split()) or type(error).__name__, 150)
        raise UsageError(
            f"{name}: cannot be read as a pickle ({reason}): the file is damaged, cut short or of another kind; "
            "get it again"
        ) from error


class _Refused(Exception):  # noqa: N818
    """A global that has no rule."""


def _is_flat(value: Any) -> bool:
    """Return whether a key's hash needs no recursion and cannot be made to collide with many others."""
    return value is None or type(value) in (str, bytes, bool) or (type(value) is int and abs(value) < 1 << 63)


def _key(value: Any) -> Any:
    _require(_is_flat(value), "a dictionary's key is neither text nor a small number")
    return value


def _name_of(called: Named | Opaque) -> str:
    return called.kind if isinstance(called, Opaque) else f"{called.module}.{called.name}"


class _Machine:
    """The stack machine, with the opcodes that are written for data; its stack holds data and placeholders only."""

    def __init__(
        self,
        content: bytes,
        start: int,
        rules: Mapping[tuple[str, str], Rule | None],
        encoding: str,
        persistent_load: Callable[[Any], Any] | None,
        opaque: bool,
    ) -> None:
        self.file = io.BytesIO(content)
        self.file.seek(start)
        self._rules, self._encoding, self._persistent_load, self._opaque = rules, encoding, persistent_load, opaque
        self._budget = _COPIES * len(content) + 1000
        self._array_bytes = len(content)
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._arrays: dict[int, Any] = {}

    def run(self) -> Any:
        while (code := self.file.read(1)) != b".":
            _require(bool(code), "it ends too early")
            if code not in _OPERATIONS:
                raise Damaged(f"opcode {code!r} is in no file of data")
            read, operate = _OPERATIONS[code]
            operate(self, read(self.file) if read is not None else None)
        return self._finished(self._pop(), 0)

    def _spend(self, amount: int) -> None:
        self._budget -= amount
        _require(self._budget >= 0, "it makes much more than the file holds")

    def _pop(self) -> Any:
        _require(len(self._stack) > (self._marks[-1] if self._marks else 0), "its stack is empty")
        return self._stack.pop()

    def _top(self, kind: type) -> Any:
        value = self._pop()
        self._push(value)
        _require(type(value) in (kind, Opaque), f"it fills something that is no {kind.__name__}")
        return value

    def _to_mark(self) -> list[Any]:
        _require(bool(self._marks), "it has no mark")
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _python_2_text(self, content: bytes) -> None:
        self._push(content if self._encoding == "bytes" else content.decode(self._encoding))

    def _quoted(self, line: bytes) -> None:
        line = line.strip()
        _require(len(line) > 1 and line[:1] == line[-1:] and line[:1] in b"'\"", "a string has no quotes")
        _require(_PYTHON_2_STRING.fullmatch(line[1:-1]) is not None, "a string has an unknown escape")
        self._python_2_text(codecs.escape_decode(line[1:-1])[0])

    def _global(self, module: Any, name: Any) -> None:
        _require(type(module) is str and type(name) is str, "a global has no name")
        if (module, name) not in self._rules and not self._opaque:
            raise _Refused(f"{shown(module)}.{shown(name)}")
        self._push(Named(module, name, self._rules.get((module, name))))

    def _call(self, _: None) -> None:
        called, arguments = self._popped(2)
        if self._is_unknown(called):
            self._push(Opaque(_name_of(called)))
        else:
            _require(type(called) is Named and called.rule is not None, "it calls what is not a function")
            _require(type(arguments) is tuple and len(arguments) <= _ARGUMENTS, "its arguments are not a short tuple")
            self._push(called.rule(self._spend, *arguments))

    def _is_unknown(self, called: Any) -> bool:
        """Return whether calling this makes an `Opaque`: an unknown global, or what one has returned."""
        return type(called) is Opaque or (
            self._opaque and type(called) is Named and (called.module, called.name) not in self._rules
        )

    def _build(self, _: None) -> None:
        target, state = self._popped(2)
        self._push(target)
        if type(target) not in (dict, Opaque):  # their attributes are not needed
            _require(type(target) in (_Array, _ElementType), "it sets the state of what has none")
            _require(type(state) is tuple and len(state) <= _ARGUMENTS, "a state is not a short tuple")
            self._fill(target, state)

    def _fill(self, target: _Array | _ElementType, state: tuple[Any, ...]) -> None:
        if isinstance(target, _Array):
            _require(len(state) == 5 and not target.number, "an array's state is not of five parts")
            _, shape, element_type, fortran, content = state
            _require(type(fortran) in (bool, int), "an array's order is not a truth value")
            _filled(self._spend, target, shape, element_type, "F" if fortran else "C", content)
        else:
            _require(len(state) >= 8 and not target.built, "an element type's state is not of eight parts")
            order, parts = _word(state[1]), state[2:5]
            one_byte = target.code.endswith("1")
            _require(order in (("|", "<", ">") if one_byte else ("<", ">")), "an element type has no byte order")
            _require(all(part is None for part in parts), "an element type has fields")
            _require(all(type(part) is int for part in state[5:8]) and state[7] == 0, "an element type has flags")
            target.order, target.built = "|" if one_byte else order, True

    def _append(self, items: list[Any]) -> None:
        target = self._top(list)
        if type(target) is list:
            target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        _require(len(items) % 2 == 0, "a key has no value")
        target = self._top(dict)
        target = target.items if type(target) is Opaque else target
        for key, value in zip(items[::2], items[1::2], strict=True):
            if _is_flat(key) or not self._opaque:  # no reader looks for a key of another kind
                target[_key(key)] = value

    def _new_dict(self, _: None) -> None:
        items = self._to_mark()
        self._push({})
        self._set_items(items)

    def _popped(self, number: int) -> list[Any]:
        return [self._pop() for _ in range(number)][::-1]

    def _remember(self, index: int) -> None:
        self._memo[index] = self._pop()
        self._push(self._memo[index])

    def _recall(self, index: int) -> None:
        self._push(self._memo[index])

    def _persistent(self, _: None) -> None:
        _require(self._persistent_load is not None, "it refers to data outside the pickle")
        self._push(self._persistent_load(self._pop()))  # type: ignore[misc]

    def _protocol(self, number: int) -> None:
        _require(number <= 5, "its protocol is unknown")

    def _finished(self, value: Any, depth: int) -> Any:
        """Copy the result as a tree, with arrays for their placeholders; shared parts count each time."""
        kind = type(value)
        if kind is _Array:
            if id(value) not in self._arrays:  # `value` is kept too, so that its id stays unique
                self._arrays[id(value)] = (self._array(value), value)
            return self._arrays[id(value)][0]
        if kind is Opaque and value.items:
            value, kind = value.items, dict
        if kind not in (list, tuple, dict):
            return value
        _require(depth < _DEPTH, "its containers are nested too deep")
        self._spend(1 + len(value))
        if kind is dict:
            return {key: self._finished(item, depth + 1) for key, item in value.items()}
        items = [self._finished(item, depth + 1) for item in value]
        return tuple(items) if kind is tuple else items

    def _array(self, array: _Array) -> Any:
        _require(array.content is not None and array.element_type is not None, "an array has no content")
        assert array.content is not None and array.element_type is not None
        if isinstance(array.element_type, Opaque):
            return array.element_type
        element_type = array.element_type.numpy()
        fits = min(array.shape, default=0) >= 0 and math.prod(array.shape) * element_type.itemsize == len(array.content)
        _require(fits, "an array's shape and its content differ in size")
        self._array_bytes -= len(array.content)
        _require(self._array_bytes >= 0, "its arrays hold more than the file")
        numbers = np.frombuffer(array.content, element_type)
        return numbers[0].item() if array.number else numbers.reshape(array.shape, order=array.order)  # type: ignore[call-overload]


def _read_line(file: IO[bytes]) -> bytes:
    line = file.readline()
    _require(line.endswith(b"\n"), "it ends too early")
    return line[:-1]


def _read_global(file: IO[bytes]) -> list[str]:
    return [_read_line(file).decode("utf-8") for _ in range(2)]


_OPERATIONS: Mapping[bytes, tuple[Callable[[IO[bytes]], Any] | None, Callable[[_Machine, Any], Any]]] = {
    b"\x80": (pickletools.read_uint1, _Machine._protocol),
    b"\x95": (pickletools.read_uint8, lambda m, size: None),  # a frame's length, of use to streams
    b"(": (None, lambda m, _: m._marks.append(len(m._stack))),
    b"N": (None, _Machine._push),
    b"\x88": (None, lambda m, _: m._push(True)),
    b"\x89": (None, lambda m, _: m._push(False)),
    b"I": (pickletools.read_decimalnl_short, _Machine._push),
    b"L": (pickletools.read_decimalnl_long, _Machine._push),
    b"J": (pickletools.read_int4, _Machine._push),
    b"K": (pickletools.read_uint1, _Machine._push),
    b"M": (pickletools.read_uint2, _Machine._push),
    b"\x8a": (pickletools.read_long1, _Machine._push),
    b"F": (pickletools.read_floatnl, _Machine._push),
    b"G": (pickletools.read_float8, _Machine._push),
    b"S": (_read_line, _Machine._quoted),
    b"T": (pickletools.read_bytes4, _Machine._python_2_text),
    b"U": (pickletools.read_bytes1, _Machine._python_2_text),
    b"V": (pickletools.read_unicodestringnl, _Machine._push),
    b"X": (pickletools.read_unicodestring4, _Machine._push),
    b"\x8c": (pickletools.read_unicodestring1, _Machine._push),
    b"\x8d": (pickletools.read_unicodestring8, _Machine._push),
    b"B": (pickletools.read_bytes4, _Machine._push),
    b"C": (pickletools.read_bytes1, _Machine._push),
    b"\x8e": (pickletools.read_bytes8, _Machine._push),
    b"\x96": (pickletools.read_bytes8, _Machine._push),  # numpy's content in protocol 5
    b"]": (None, lambda m, _: m._push([])),
    b"l": (None, lambda m, _: m._push(m._to_mark())),
    b"a": (None, lambda m, _: m._append([m._pop()])),
    b"e": (None, lambda m, _: m._append(m._to_mark())),
    b")": (None, lambda m, _: m._push(())),
    b"t": (None, lambda m, _: m._push(tuple(m._to_mark()))),
    b"\x85": (None, lambda m, _: m._push(tuple(m._popped(1)))),
    b"\x86": (None, lambda m, _: m._push(tuple(m._popped(2)))),
    b"\x87": (None, lambda m, _: m._push(tuple(m._popped(3)))),
    b"}": (None, lambda m, _: m._push({})),
    b"d": (None, _Machine._new_dict),
    b"s": (None, lambda m, _: m._set_items(m._popped(2))),
    b"u": (None, lambda m, _: m._set_items(m._to_mark())),
    b"c": (_read_global, lambda m, names: m._global(*names)),
    b"\x93": (None, lambda m, _: m._global(*m._popped(2))),
    b"R": (None, _Machine._call),
    b"\x81": (None, _Machine._call),
    b"\x8f": (None, lambda m, _: m._push([])),  # sets become lists
    b"\x90": (None, lambda m, _: m._append(m._to_mark())),
    b"\x91": (None, lambda m, _: m._push(m._to_mark())),
    b"b": (None, _Machine._build),
    b"p": (pickletools.read_decimalnl_short, _Machine._remember),
    b"q": (pickletools.read_uint1, _Machine._remember),
    b"r": (pickletools.read_uint4, _Machine._remember),
    b"\x94": (None, lambda m, _: m._remember(len(m._memo))),
    b"g": (pickletools.read_decimalnl_short, _Machine._recall),
    b"h": (pickletools.read_uint1, _Machine._recall),
    b"j": (pickletools.read_uint4, _Machine._recall),
    b"Q": (None, _Machine._persistent),
}
"""All others are refused: extensions, classic instances, objects by keyword, buffers outside the file."""


def kind_of(value: Any) -> str:
    """Return the words for a value of the wrong type in an error: ``an empty dict``, ``a list``."""
    if isinstance(value, Opaque):
        return f"a {shown(value.kind)}"
    empty = isinstance(value, dict | list | tuple) and not value
    return f"{'an empty' if empty else 'a'} {type(value).__name__}"
