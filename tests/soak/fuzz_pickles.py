"""Ways to damage a pickle that leave it one."""

from __future__ import annotations

import contextlib
import pickle
import pickletools

from fuzz_mutators import BYTES, EXTREMES, MOST_BYTES, Random, flip_bits


def _opcodes(data: bytes) -> list[bytes]:
    """The instructions of a pickle; of a damaged one those before the damage, and the rest in one."""
    starts: list[int] = []
    with contextlib.suppress(Exception):  # pickletools raises almost anything
        starts.extend(place for _, _, place in pickletools.genops(data) if place is not None)
    ends = [*starts[1:], len(data)]
    return [data[start:end] for start, end in zip(starts, ends, strict=True)]


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


_GLOBALS = tuple(
    _global(module, name)
    for module, name in (
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.numeric", "_frombuffer"),
        ("collections", "OrderedDict"),
        ("_codecs", "encode"),
        ("builtins", "eval"),
        ("os", "system"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch", "FloatStorage"),
        ("builtins", "bytearray"),
    )
)
_SMALL = tuple(
    pickle.dumps(value, protocol)[slice(2 if protocol else 0, -1)]
    for protocol in (0, 2)
    for value in (None, -1, 0, 1.5, 2**31, 2**70, "O8", "<f4", "hex", b"xxxxxxxx", (), (1,), (10**9, 10**9), [], {})
)
_PLAIN = tuple(bytes([code]) for code in b"R(.0be}]u2as1ct)l\x81\x85\x86\x87\x88\x89\x90\x91\x93\x94N")


def pickle_instructions(data: bytes, other: bytes, random_: Random) -> bytes:
    """Insert, repeat, swap, drop or borrow instructions."""
    ours, theirs = _opcodes(data), _opcodes(other)
    if not ours:
        return data
    for _ in range(random_.choice((1, 1, 2, 3, 8))):
        place = random_.randrange(len(ours))
        kind = random_.randrange(7)
        if kind == 0:
            ours.insert(place, random_.choice(_PLAIN))
        elif kind == 1:
            ours.insert(place, random_.choice(_SMALL))
        elif kind == 2:
            ours[place] = random_.choice((*_GLOBALS, *_SMALL))
        elif kind == 3:
            times = min(random_.choice((2, 3, 100, 5000)), MOST_BYTES // max(1, len(ours[place])))
            ours[place : place + 1] = [ours[place]] * max(2, times)
        elif kind == 4:
            there = random_.randrange(len(ours))
            ours[place], ours[there] = ours[there], ours[place]
        elif kind == 5 and len(ours) > 1:
            del ours[place]
        elif theirs:
            start = random_.randrange(len(theirs))
            ours[place:place] = theirs[start : start + random_.randint(1, 12)]
    return b"".join(ours)


def pickle_numbers(data: bytes, other: bytes, random_: Random) -> bytes:
    """Set a number or a text that an instruction carries."""
    ours = _opcodes(data)
    carriers = [at for at, each in enumerate(ours) if each[:1] in b"KMJ\x8a\x8bIGXU\x8cCTBhj" and len(each) > 1]
    if not carriers:
        return data
    for _ in range(random_.choice((1, 1, 2))):
        at = random_.choice(carriers)
        ours[at] = random_.choice(
            (
                pickle.dumps(random_.choice(EXTREMES), 2)[2:-1],
                random_.choice(_SMALL),
                ours[random_.choice(carriers)],
                ours[at][:1] + flip_bits(ours[at][1:], b"", random_),
            )
        )
    return b"".join(ours)


PICKLE = (*BYTES, pickle_instructions, pickle_instructions, pickle_instructions, pickle_numbers, pickle_numbers)


def one_pickle_of_several(data: bytes, other: bytes, random_: Random) -> bytes:
    """Damage one of the pickles that follow each other, the longest most often; the rest stays as it is."""
    ends = [0]
    with contextlib.suppress(Exception):  # pickletools raises almost anything
        while True:
            *_, (_, _, place) = pickletools.genops(data[ends[-1] :])
            ends.append(ends[-1] + place + 1)
    parts = [data[start:end] for start, end in zip(ends, [*ends[1:], len(data)], strict=True)]
    longest = max(range(len(parts) - 1), key=lambda at: len(parts[at]), default=0)
    at = longest if random_.random() < 0.7 else random_.randrange(len(parts))
    parts[at] = random_.choice(PICKLE)(parts[at], parts[at], random_)
    return b"".join(parts)


PICKLES = (*BYTES, *[one_pickle_of_several] * 8)
