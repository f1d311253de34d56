"""The graph inside an ONNX file, read as data: its operations, and constants as arrays.

Fields are numbered as in ``onnx.proto`` (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

MOST_NUMBERS = 1_000_000
"""Of keys, sizes and integers in one file: they bound time and memory. An exported resnet152 has 20,000."""
VARINT, EIGHT_BYTES, SIZED, FOUR_BYTES = 0, 1, 2, 5
ARRAY_TYPES = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8"}  # ``TensorProto.DataType``

Fields = dict[int, list[Any]]


class Node(NamedTuple):
    """An operation: its type, the names of its tensors, and its attributes that are numbers or text."""

    operation: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]


class Graph(NamedTuple):
    """Nodes in the order of computation, constants by name, the names of the first input and output."""

    nodes: list[Node]
    constants: dict[str, np.ndarray]
    input: str
    output: str


def read_graph(data: bytes) -> Graph:
    """Read an ONNX file's graph; raise `ValueError` if it is none, damaged, or has tensors not of `ARRAY_TYPES`."""
    try:
        return _Reader().graph(memoryview(data))
    except (IndexError, KeyError, OverflowError, StopIteration, TypeError, struct.error) as error:
        raise ValueError(f"not a complete ONNX graph ({type(error).__name__} {error})") from None


class _Reader:
    def __init__(self) -> None:
        self._budget = iter(range(MOST_NUMBERS))

    def graph(self, data: memoryview) -> Graph:
        graph = self._fields(self._fields(data)[7][0])
        nodes = [self._node(self._fields(each)) for each in graph[1]]
        constants = dict(self._constant(self._fields(each)) for each in graph[5])
        source, result = (_text(self._fields(graph[number][0])[1][0]) for number in (11, 12))
        return Graph(nodes, constants, source, result)

    def _node(self, fields: Fields) -> Node:
        inputs, outputs = ([_text(name) for name in fields.get(number, ())] for number in (1, 2))
        attributes = dict(self._attribute(self._fields(each)) for each in fields.get(5, ()))
        return Node(_text(fields[4][0]), inputs, outputs, attributes)

    def _attribute(self, fields: Fields) -> tuple[str, Any]:
        value: Any = None
        if 2 in fields:
            (value,) = struct.unpack("<f", fields[2][0])
        elif 3 in fields:
            value = _signed(fields[3][0])
        elif 4 in fields:
            value = _text(fields[4][0])
        elif 8 in fields:
            value = list(self._integers(fields[8]))
        return _text(fields[1][0]), value

    def _constant(self, fields: Fields) -> tuple[str, np.ndarray]:
        kind = np.dtype(ARRAY_TYPES[fields[2][0]])
        if 9 in fields:
            values = np.frombuffer(fields[9][0], kind)
        elif kind == np.float32:
            values = np.frombuffer(b"".join(fields.get(4, ())), kind)
        else:
            values = np.array(list(self._integers(fields.get(7 if kind == np.int64 else 5, []))), np.int64).astype(kind)
        return _text(fields[8][0]), values.reshape(list(self._integers(fields.get(1, []))))

    def _integers(self, values: list[Any]) -> Iterator[int]:
        """Yield repeated integers, each in a field of its own or all in one."""
        for value in values:
            position = 0
            while not isinstance(value, int) and position < len(value):
                number, position = self._varint(value, position)
                yield _signed(number)
            if isinstance(value, int):
                yield _signed(value)

    def _fields(self, data: memoryview) -> Fields:
        """Return the values in a message by the number of their field."""
        fields: Fields = {}
        position = 0
        while position < len(data):
            key, position = self._varint(data, position)
            kind, size = key & 7, {EIGHT_BYTES: 8, FOUR_BYTES: 4}.get(key & 7, 0)
            if kind in (VARINT, SIZED):
                size, position = self._varint(data, position)
            value: Any = size if kind == VARINT else data[position : position + size]
            if kind != VARINT:
                position += size
            if position > len(data) or kind not in (VARINT, EIGHT_BYTES, SIZED, FOUR_BYTES):
                raise ValueError("a field ends outside its message, or is of an unknown kind")
            fields.setdefault(key >> 3, []).append(value)
        return fields

    def _varint(self, data: memoryview, position: int) -> tuple[int, int]:
        """Return the number at `position`, 7 bits a byte, the lowest first, and the position after it."""
        next(self._budget)
        number = shift = 0
        while True:
            byte = data[position]
            number |= (byte & 127) << shift
            position, shift = position + 1, shift + 7
            if byte < 128 or shift >= 64:
                return number, position


def _text(value: Any) -> str:
    return str(value, "utf-8", "replace")


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
