"""Read YAML as plain data: mappings, lists and scalars, in time and memory bounded by the file's length.

This module turns the parser's events into values itself, by YAML 1.2's core schema. PyYAML's constructors
take ``no`` for false, ``1:30`` for 90 and ``010`` for 8, keep the last of two equal keys, and may hang, take all memory
or raise anything on a hostile file. Tags, merge keys and more than one document are refused.
"""

from __future__ import annotations

import contextlib
import copy
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from paddle_resnet.errors import UsageError, shown
from paddle_resnet.text_files import decode_text

MAX_BYTES = 1 << 20  # of a file
MAX_EXPANSION = 100
"""How many times a text's length its values may have with all aliases expanded, and never more than `MAX_BYTES`."""
MAX_DEPTH = 20
MAX_NUMBER_LENGTH = 40
LONGEST_PATH = 240
NUMBER = re.compile(
    r"[-+]?(0x[0-9a-f_]+|0o[0-7_]+|(\.[0-9]+|(0|[1-9][0-9_]*)(\.[0-9]*)?)(e[-+]?[0-9]+)?)", re.IGNORECASE
)
NULLS = ("", "~", "null")
WORDS = {"true": True, "false": False, ".nan": math.nan, ".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf}

IsText = Callable[[str], bool]


class NotPlainYamlError(UsageError):
    """The text is not YAML, or more than plain data, in `line` (from 1; None: unknown)."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def read_yaml(path: Path, is_text: IsText = lambda key: False, remedy: str = "correct it") -> dict[str, Any]:
    """Read a file of keys and values, of at most 1 MiB, see `decode_text`; an empty file gives an empty dictionary.

    `is_text` says whether the value of a dotted key is a text, so that 007 and true stay as typed. `remedy` is what the
    user can do about a file that is wrong. No file, one that cannot be read, or other than plain keys and values, is a
    UsageError.
    """
    name = shown(str(path), LONGEST_PATH)
    try:
        if not path.is_file():
            what = "a folder" if path.is_dir() else "not a regular file" if path.exists() else "no such file"
            raise UsageError(f"{name}: {what}; {remedy}")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise UsageError(f"{name}: more than {MAX_BYTES >> 20} MiB, too large for such a file; {remedy}")
        values = parse_yaml(decode_text(data, name), is_text)
    except NotPlainYamlError as error:
        line = f", line {error.line}" if error.line else ""
        raise UsageError(f"{name}{line}: {error}; {remedy}") from None
    except OSError as error:
        raise UsageError(f"{name}: cannot be read ({error.strerror or error})") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        found = "a list" if isinstance(values, list) else "a single value"
        raise UsageError(f"{name}: expected keys and values at the top level, found {found}; {remedy}")
    return values


def parse_yaml(text: str, is_text: IsText = lambda key: False, key: str = "") -> Any:
    """Return the one value in `text`, which belongs to the dotted `key`; raise NotPlainYamlError for other text."""
    events = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    try:
        return _Values(events, is_text, min(MAX_BYTES, MAX_EXPANSION * len(text))).document(key)
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        why = f" ({shown(problem)})" if problem else ""
        raise NotPlainYamlError(f"not valid YAML{why}", mark.line + 1 if mark else None) from None
    except (ValueError, RecursionError):  # no UTF-8; a loader without libyaml on a line of brackets
        raise NotPlainYamlError("not valid YAML") from None


class _Values:
    """Build a document's value from the parser's events."""

    def __init__(self, events: Iterator[yaml.Event], is_text: IsText, most: int) -> None:
        self._events = events
        self._is_text = is_text
        self._most = most
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._size = 0

    def document(self, key: str) -> Any:
        next(self._events)
        event = next(self._events)  # the document, or the stream's end
        if isinstance(event, yaml.StreamEndEvent):
            return None
        value = self._value(next(self._events), key, 0)
        next(self._events)
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise _refused(event, "a second document (---) begins; expected one")
        return value

    def _value(self, event: Any, key: str, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise _refused(event, f"the alias *{shown(event.anchor)} has no complete value before it")
            earlier, size = self._anchors[event.anchor]
            self._count(event, size)
            return copy.deepcopy(earlier)
        before = self._size
        self._count(event, 1 + len(getattr(event, "value", "")))
        if depth > MAX_DEPTH:
            raise _refused(event, f"more than {MAX_DEPTH} levels of values within values")
        self._check_tag(event)
        if isinstance(event, yaml.MappingStartEvent):
            value: Any = self._mapping(key, depth)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = []
            while not isinstance(item := next(self._events), yaml.SequenceEndEvent):
                value.append(self._value(item, key, depth + 1))
        else:
            value = plain_scalar(event.value, self._is_text(key)) if event.implicit[0] else event.value
        if event.anchor is not None:
            self._anchors[event.anchor] = value, self._size - before
        return value

    def _mapping(self, key: str, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise _refused(event, "a key is a list, a mapping or an alias; expected a name")
            self._check_tag(event)
            self._count(event, len(event.value))
            name = event.value
            if name == "<<" and event.implicit[0]:
                raise _refused(event, "a merge key (<<) is not read; write its keys out")
            inner = f"{key}.{name}" if key else name
            if name in values:
                raise _refused(event, f'"{shown(inner)}" is set twice, first in line {lines[name]}; keep one of them')
            lines[name] = _line(event)
            values[name] = self._value(next(self._events), inner, depth + 1)
        return values

    def _count(self, event: yaml.Event, size: int) -> None:
        self._size += size
        if self._size > self._most:
            raise _refused(event, f"its aliases repeat values to more than {self._most:,} characters; write them out")

    def _check_tag(self, event: Any) -> None:
        if event.tag is not None:
            raise _refused(
                event, f"the tag {shown(event.tag, 60)} is not read; write the value alone, a text in quotes"
            )


class _Dumper(yaml.SafeDumper):
    """Put texts with unprintable characters in double quotes, as escapes.

    Between single quotes, PyYAML writes U+0085 as a line end, which readers take for a space.
    """


def _text_node(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _text_node)


def yaml_text(values: Mapping[str, Any]) -> str:
    """Return values as YAML that `parse_yaml` reads as the same values."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def plain_scalar(text: str, as_text: bool = False) -> Any:
    """Return the value of a scalar without quotes: None, a bool, a number or a text; with `as_text` None or a text.

    A number is decimal (``1_000``, ``1e-3``), ``0x`` or ``0o``; ``010`` and one of more than 40 characters are texts.
    """
    if text.lower() in NULLS:
        return None
    if as_text:
        return text
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    if len(text) <= MAX_NUMBER_LENGTH and NUMBER.fullmatch(text):
        with contextlib.suppress(ValueError):
            return int(text, 0)
        with contextlib.suppress(ValueError):
            return float(text)
    return text


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


def _refused(event: yaml.Event, message: str) -> NotPlainYamlError:
    return NotPlainYamlError(message, _line(event))
