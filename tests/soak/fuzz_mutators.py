"""Ways to damage a file: any file's bytes, and the tokens of texts and JSON."""

from __future__ import annotations

import json
import random
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

MOST_BYTES = 1 << 20
"""No mutation makes a file longer than this, unless its seed is."""
EXTREMES = (0, 1, -1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)

Random = random.Random
Mutator = Callable[[bytes, bytes, Random], bytes]
"""Takes a seed, another seed of the format, and the source of random numbers."""


def _slice(data: bytes, random_: Random, longest: int = 400) -> tuple[int, int]:
    start = random_.randrange(len(data) + 1)
    return start, min(len(data), start + random_.choice((1, 2, 4, 8, random_.randint(1, longest))))


def flip_bits(data: bytes, other: bytes, random_: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random_.choice((1, 1, 1, 2, 8))):
        if changed:
            changed[random_.randrange(len(changed))] ^= 1 << random_.randrange(8)
    return bytes(changed)


def change_bytes(data: bytes, other: bytes, random_: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random_.choice((1, 1, 2, 4, 16))):
        if changed:
            changed[random_.randrange(len(changed))] = random_.choice((0, 255, 127, random_.randrange(256)))
    return bytes(changed)


def truncate(data: bytes, other: bytes, random_: Random) -> bytes:
    return data[: random_.randint(0, len(data))]


def insert(data: bytes, other: bytes, random_: Random) -> bytes:
    place = random_.randint(0, len(data))
    piece = random_.choice((random_.randbytes(random_.randint(1, 40)), bytes([random_.randrange(256)]) * 3000))
    return data[:place] + piece + data[place:]


def delete(data: bytes, other: bytes, random_: Random) -> bytes:
    start, end = _slice(data, random_)
    return data[:start] + data[end:]


def duplicate(data: bytes, other: bytes, random_: Random) -> bytes:
    start, end = _slice(data, random_)
    times = random_.choice((1, 1, 2, 10, 1000))
    return data[:end] + data[start:end] * times + data[end:]


def set_integer(data: bytes, other: bytes, random_: Random) -> bytes:
    size = random_.choice((1, 2, 4, 8))
    if len(data) < size:
        return data
    # Half of them in the first bytes, where most formats have their sizes.
    place = random_.randrange(min(len(data), random_.choice((64, len(data)))) - size + 1) if len(data) > size else 0
    value = random_.choice(EXTREMES) % 256**size
    return data[:place] + value.to_bytes(size, random_.choice(("little", "big"))) + data[place + size :]


def splice(data: bytes, other: bytes, random_: Random) -> bytes:
    return data[: random_.randint(0, len(data))] + other[random_.randint(0, len(other)) :]


BYTES: tuple[Mutator, ...] = (flip_bits, change_bytes, truncate, insert, delete, duplicate, set_integer, splice)


_TOKENS = tuple(
    token.encode("utf-8", "surrogatepass")
    for token in (
        ": ", "- ", "\n", "\n  ", "&a ", "*a", "&a [*a, *a]", "<<: *a", "? ", "|\n", ">\n", "!!int ''", "!!bool maybe",
        "!!python/object/apply:os.system [ls]", "!!binary x", "!!timestamp 2026-99-99", "!!set {a}", "!!float x",
        "!!omap [a: 1]", "1:2:3:4" * 50, "190:20:30.15", "9" * 5000, "1e999", ".nan", "-.inf", "0x", "0o9", "yes", "~",
        "null", "true", "{", "}", "[" * 2000, "[", "]", "'", '"', "%YAML 9.9\n", "---\n", "...\n", "\t", "\r", "\0",
        "\ufeff", "\ud800", "\x1b[31m", "#", "@", "`", "2026-13-45", "a" * 70_000,
        "NaN", "Infinity", "-1", "1.5", "/dev/zero",
        "../../etc/passwd", "\\ud800", "\\u0000", "[1]", '{"a": 1}', ",", ",,,,", "\n\n", "1_000", "\uff11\uff12",
    )
)  # fmt: skip


def text_tokens(data: bytes, other: bytes, random_: Random) -> bytes:
    """Put a token in the place of a word, or before it."""
    words = list(re.finditer(rb"[^\s:,\[\]{}\"]+", data))
    for _ in range(random_.choice((1, 1, 1, 2, 4))):
        if not words:
            return random_.choice(_TOKENS)
        word = random_.choice(words)
        end = random_.choice((word.start(), word.end()))
        data = data[: word.start()] + random_.choice(_TOKENS) + data[end:]
        words = list(re.finditer(rb"[^\s:,\[\]{}\"]+", data[:20_000]))
    return data


def text_lines(data: bytes, other: bytes, random_: Random) -> bytes:
    """Repeat, swap, drop, indent or borrow lines."""
    lines = data.splitlines(keepends=True) or [b""]
    place, kind = random_.randrange(len(lines)), random_.randrange(5)
    if kind == 0:
        lines[place:place] = [lines[place]] * random_.choice((1, 2, 500))
    elif kind == 1:
        there = random_.randrange(len(lines))
        lines[place], lines[there] = lines[there], lines[place]
    elif kind == 2:
        del lines[place]
    elif kind == 3:
        lines[place] = random_.choice((b"  ", b"\t", b" " * 5000)) + lines[place]
    else:
        lines[place:place] = random_.sample(other.splitlines(keepends=True) or [b""], 1)
    return b"".join(lines)


TEXT = (*BYTES, text_tokens, text_tokens, text_tokens, text_tokens, text_lines, text_lines)

_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1.5, 1e308, 2**31, 2**63, 10**400, float("nan"), float("inf"), "", "x", "../../x",
    "/dev/zero",
    "\0", "x" * 50_000, "\ud800", [], [[]], [1, 2, 3], [None] * 50, {}, {"a": {"a": {}}}, {"": 0}, "1", "0x1",
    "model.pdparams",
)  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in list(inner)[:60] for place in _places(each, (*path, key)))]


def json_values(data: bytes, other: bytes, random_: Random) -> bytes:
    """Put another value in the place of one, drop a key, or add one."""
    try:
        content = json.loads(data)
    except ValueError:
        return text_tokens(data, other, random_)
    for _ in range(random_.choice((1, 1, 1, 2, 5))):
        *groups, last = random_.choice(_places({"": content})[1:])
        if not groups:
            content = random_.choice(_VALUES)
            continue
        inner = content
        for key in groups[1:]:
            inner = inner[key]
        kind = random_.randrange(5)
        if kind == 0:
            del inner[last]
        elif kind == 1 and isinstance(inner, dict):
            inner[random_.choice((str(last) + "x", "", "../x", "states", "epoch"))] = random_.choice(_VALUES)
        else:
            inner[last] = random_.choice(_VALUES)
    return json.dumps(content).encode("utf-8", "surrogatepass")


def json_depth(data: bytes, other: bytes, random_: Random) -> bytes:
    """Put a deep or long value somewhere."""
    value = random_.choice(
        (b"[" * 100_000, b'{"a":' * 50_000, b"[" * 900 + b"]" * 900, b"1" * 5000, b'"' + b"\\u0000" * 9999)
    )
    place = random_.randint(0, len(data))
    return data[:place] + value + data[place:]


JSON = (*BYTES, text_tokens, text_lines, json_depth, *[json_values] * 6)


def mutated(seeds: list[bytes], mutators: tuple[Mutator, ...], random_: Random) -> bytes:
    """A seed with one to three mutations."""
    seed, other = random_.choice(seeds), random_.choice(seeds)
    data = seed
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        try:
            changed = random_.choice(mutators)(data, other, random_)
        except (ValueError, EOFError, OSError, struct.error, zlib.error, RecursionError):
            continue  # it was damaged before, so that its structure cannot be read any more
        if len(changed) <= max(MOST_BYTES, 2 * len(seed)):
            data = changed
    return data
