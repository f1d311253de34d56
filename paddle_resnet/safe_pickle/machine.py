"""The stack machine that a pickle is a program for, with the opcodes that are written for data."""

from __future__ import annotations

import codecs
import io
import math
import pickletools
import re
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np

from paddle_resnet.errors import shown
from paddle_resnet.safe_pickle.rules import (
    ArrayPlaceholder,
    Damaged,
    ElementType,
    Named,
    Opaque,
    Rule,
    filled,
    flat_key,
    is_flat,
    require,
    short_word,
)

_COPIES = 4  # bytes that may be copied, as a multiple of the file's length
_DEPTH = 64
_ARGUMENTS = 16
_LONGEST_GLOBAL = 200  # characters of module and name, which each call by an unknown name copies
_PYTHON_2_STRING = re.compile(rb"""(?:[^\\]|\\(?:[\\'"nrt]|x[0-9a-fA-F]{2}))*""")


class Refused(Exception):  # noqa: N818
    """A global that has no rule."""


class Machine:
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
            require(bool(code), "it ends too early")
            if code not in _OPERATIONS:
                raise Damaged(f"opcode {code!r} is in no file of data")
            read, operate = _OPERATIONS[code]
            operate(self, read(self.file) if read is not None else None)
        return self._finished(self._pop(), 0)

    def _spend(self, amount: int) -> None:
        self._budget -= amount
        require(self._budget >= 0, "it makes much more than the file holds")

    def _pop(self) -> Any:
        require(len(self._stack) > (self._marks[-1] if self._marks else 0), "its stack is empty")
        return self._stack.pop()

    def _top(self, kind: type) -> Any:
        value = self._pop()
        self._push(value)
        require(type(value) in (kind, Opaque), f"it fills something that is no {kind.__name__}")
        return value

    def _to_mark(self) -> list[Any]:
        require(bool(self._marks), "it has no mark")
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
        require(len(line) > 1 and line[:1] == line[-1:] and line[:1] in b"'\"", "a string has no quotes")
        require(_PYTHON_2_STRING.fullmatch(line[1:-1]) is not None, "a string has an unknown escape")
        self._python_2_text(codecs.escape_decode(line[1:-1])[0])

    def _global(self, module: Any, name: Any) -> None:
        require(type(module) is str and type(name) is str, "a global has no name")
        require(len(module) + len(name) <= _LONGEST_GLOBAL, "a global has a name of more than 200 characters")
        if (module, name) not in self._rules and not self._opaque:
            raise Refused(f"{shown(module)}.{shown(name)}")
        self._push(Named(module, name, self._rules.get((module, name))))

    def _call(self, _: None) -> None:
        called, arguments = self._popped(2)
        if type(called) is Opaque:
            self._push(Opaque(called.kind))
        elif type(called) is Named and (called.module, called.name) not in self._rules:  # let pass with `opaque` alone
            self._push(Opaque(f"{called.module}.{called.name}"))
        else:
            require(type(called) is Named and called.rule is not None, "it calls what is not a function")
            require(type(arguments) is tuple and len(arguments) <= _ARGUMENTS, "its arguments are not a short tuple")
            self._push(called.rule(self._spend, *arguments))

    def _build(self, _: None) -> None:
        target, state = self._popped(2)
        self._push(target)
        if type(target) not in (dict, Opaque):  # their attributes are not needed
            require(type(target) in (ArrayPlaceholder, ElementType), "it sets the state of what has none")
            require(type(state) is tuple and len(state) <= _ARGUMENTS, "a state is not a short tuple")
            self._fill(target, state)

    def _fill(self, target: ArrayPlaceholder | ElementType, state: tuple[Any, ...]) -> None:
        if isinstance(target, ArrayPlaceholder):
            require(len(state) == 5 and not target.number, "an array's state is not of five parts")
            _, shape, element_type, fortran, content = state
            require(type(fortran) in (bool, int), "an array's order is not a truth value")
            filled(self._spend, target, shape, element_type, "F" if fortran else "C", content)
        else:
            require(len(state) >= 8 and not target.built, "an element type's state is not of eight parts")
            order, parts = short_word(state[1]), state[2:5]
            one_byte = target.code.endswith("1")
            require(order in (("|", "<", ">") if one_byte else ("<", ">")), "an element type has no byte order")
            require(all(part is None for part in parts), "an element type has fields")
            require(all(type(part) is int for part in state[5:8]) and state[7] == 0, "an element type has flags")
            target.order, target.built = "|" if one_byte else order, True

    def _append(self, items: list[Any]) -> None:
        target = self._top(list)
        if type(target) is list:
            target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        require(len(items) % 2 == 0, "a key has no value")
        target = self._top(dict)
        target = target.items if type(target) is Opaque else target
        for key, value in zip(items[::2], items[1::2], strict=True):
            if is_flat(key) or not self._opaque:  # no reader looks for a key of another kind
                target[flat_key(self._spend, key)] = value

    def _new_dict(self, _: None) -> None:
        items = self._to_mark()
        self._push({})
        self._set_items(items)

    def _popped(self, number: int) -> list[Any]:
        return [self._pop() for _ in range(number)][::-1]

    def _remember(self, index: int) -> None:
        require(
            0 <= index < 1 << 32, "it counts what it remembers beyond 32 bits"
        )  # large ones could be made to collide
        self._memo[index] = self._pop()
        self._push(self._memo[index])

    def _persistent(self, _: None) -> None:
        require(self._persistent_load is not None, "it refers to data outside the pickle")
        self._push(self._persistent_load(self._pop()))  # type: ignore[misc]

    def _finished(self, value: Any, depth: int) -> Any:
        """Copy the result as a tree, with arrays for their placeholders; shared parts count each time."""
        kind = type(value)
        if kind is ArrayPlaceholder:
            if id(value) not in self._arrays:  # `value` is kept too, so that its id stays unique
                self._arrays[id(value)] = (self._array(value), value)
            return self._arrays[id(value)][0]
        if kind is Opaque and value.items:
            value, kind = value.items, dict
        if kind not in (list, tuple, dict):
            return value
        require(depth < _DEPTH, "its containers are nested too deep")
        self._spend(1 + len(value))
        if kind is dict:
            return {key: self._finished(item, depth + 1) for key, item in value.items()}
        items = [self._finished(item, depth + 1) for item in value]
        return tuple(items) if kind is tuple else items

    def _array(self, array: ArrayPlaceholder) -> Any:
        require(array.content is not None and array.element_type is not None, "an array has no content")
        assert array.content is not None and array.element_type is not None
        if isinstance(array.element_type, Opaque):
            return array.element_type
        element_type = array.element_type.numpy()
        fits = min(array.shape, default=0) >= 0 and math.prod(array.shape) * element_type.itemsize == len(array.content)
        require(fits, "an array's shape and its content differ in size")
        self._array_bytes -= len(array.content)
        require(self._array_bytes >= 0, "its arrays hold more than the file")
        numbers = np.frombuffer(array.content, element_type)
        return numbers[0].item() if array.number else numbers.reshape(array.shape, order=array.order)  # type: ignore[call-overload]


def _read_line(file: IO[bytes]) -> bytes:
    line = file.readline()
    require(line.endswith(b"\n"), "it ends too early")
    return line[:-1]


def _read_global(file: IO[bytes]) -> list[str]:
    return [_read_line(file).decode("utf-8") for _ in range(2)]


_READERS: Mapping[str, Callable[[IO[bytes]], Any]] = {
    "STRING": _read_line,
    "BINSTRING": pickletools.read_bytes4,
    "SHORT_BINSTRING": pickletools.read_bytes1,
    "BYTEARRAY8": pickletools.read_bytes8,  # numpy's content in protocol 5
    "GLOBAL": _read_global,
}
"""Of the arguments that `pickletools` reads in another form than is needed."""

_NUMBERS = ("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "FLOAT", "BINFLOAT")
_TEXTS = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
_ACTIONS: Mapping[str, Callable[[Machine, Any], Any]] = {
    **dict.fromkeys(("NONE", *_NUMBERS, *_TEXTS, *_BYTES), Machine._push),
    **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), Machine._python_2_text),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), Machine._call),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Machine._remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, index: m._push(m._memo[index])),
    **dict.fromkeys(("LIST", "FROZENSET"), lambda m, _: m._push(m._to_mark())),  # sets become lists
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), lambda m, _: m._push([])),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda m, _: m._append(m._to_mark())),
    "PROTO": lambda m, number: require(number <= 5, "its protocol is unknown"),
    "FRAME": lambda m, size: None,  # of use to streams
    "MARK": lambda m, _: m._marks.append(len(m._stack)),
    "NEWTRUE": lambda m, _: m._push(True),
    "NEWFALSE": lambda m, _: m._push(False),
    "STRING": Machine._quoted,
    "APPEND": lambda m, _: m._append([m._pop()]),
    "EMPTY_TUPLE": lambda m, _: m._push(()),
    "TUPLE": lambda m, _: m._push(tuple(m._to_mark())),
    "TUPLE1": lambda m, _: m._push(tuple(m._popped(1))),
    "TUPLE2": lambda m, _: m._push(tuple(m._popped(2))),
    "TUPLE3": lambda m, _: m._push(tuple(m._popped(3))),
    "EMPTY_DICT": lambda m, _: m._push({}),
    "DICT": Machine._new_dict,
    "SETITEM": lambda m, _: m._set_items(m._popped(2)),
    "SETITEMS": lambda m, _: m._set_items(m._to_mark()),
    "GLOBAL": lambda m, names: m._global(*names),
    "STACK_GLOBAL": lambda m, _: m._global(*m._popped(2)),
    "BUILD": Machine._build,
    "MEMOIZE": lambda m, _: m._remember(len(m._memo)),
    "BINPERSID": Machine._persistent,
}
"""What an opcode does, by its name in `pickletools`, with its argument.

All others are refused: extensions, classic instances, objects by keyword, buffers outside the file.
"""

_OPERATIONS: Mapping[bytes, tuple[Callable[[IO[bytes]], Any] | None, Callable[[Machine, Any], Any]]] = {
    each.code.encode("latin1"): (
        _READERS.get(each.name) or (each.arg.reader if each.arg else None),
        _ACTIONS[each.name],
    )
    for each in pickletools.opcodes
    if each.name in _ACTIONS
}
