"""Ways to damage a file: any file's bytes, and what each format's checksums and tokens would otherwise hide."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import pickle
import pickletools
import random
import re
import struct
import tarfile
import zipfile
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


# --- pickles


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


# --- archives


def zip_members(data: bytes, other: bytes, random_: Random) -> bytes:
    """Damage a member, the pickle most often, and write its checksum anew; compress, rename, repeat or drop one."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:  # damaged before
        return pickle_instructions(data, other, random_)
    pickles = [at for at, (name, _) in enumerate(members) if name.endswith(".pkl")]
    at = random_.choice(pickles) if pickles and random_.random() < 0.7 else random_.randrange(len(members))
    name, content = members[at]
    damage = random_.choice(PICKLE if at in pickles else BYTES)
    members[at] = (name, damage(content, content, random_))
    extra = random_.randrange(12)
    if extra == 0:
        members.append((name, content))
    elif extra == 1:
        members[at] = (name + random_.choice(("x", "/../y", "\0")), content)
    elif extra == 2 and len(members) > 1:
        del members[at]
    written = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if extra == 3 else zipfile.ZIP_STORED
    with zipfile.ZipFile(written, "w", method) as archive:
        for each, value in members:
            archive.writestr(zipfile.ZipInfo(each or "x"), value, method)
    return written.getvalue()


def zip_headers(data: bytes, other: bytes, random_: Random) -> bytes:
    """Set a number in one of the archive's own records."""
    places = [found.start() for found in re.finditer(rb"PK[\1\3\5\6][\2\4\6\7]", data)]
    if not places:
        return set_integer(data, other, random_)
    place = random_.choice(places) + random_.randrange(4, 46)
    size = random_.choice((2, 4))
    value = (random_.choice(EXTREMES) % 256**size).to_bytes(size, "little")
    return (data[:place] + value + data[place + size :])[: len(data)]


ZIP = (*BYTES, zip_members, zip_members, zip_members, zip_members, zip_headers, zip_headers)

_TAR_FIELDS = ((0, 100), (100, 8), (124, 12), (156, 1), (157, 100), (257, 8), (345, 155), (386, 12), (482, 1))


def tar_headers(data: bytes, other: bytes, random_: Random) -> bytes:
    """Set a field of a member's header, its checksum computed anew: sizes, types (links, sparse, PAX), names."""
    changed = bytearray(data)
    places = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]
    if not places:
        return change_bytes(data, other, random_)
    for _ in range(random_.choice((1, 1, 2))):
        place = random_.choice(places)
        start, size = random_.choice(_TAR_FIELDS)
        if start == 156:
            value = random_.choice((b"0", b"1", b"2", b"5", b"7", b"K", b"L", b"S", b"g", b"x", b"X", b"D", b"\xff"))
        elif random_.random() < 0.5:
            value = b"%o" % random_.choice(EXTREMES)
        else:
            sign = random_.choice((b"\x80", b"\xff"))
            value = sign + random_.choice((b"", b"\0" * (size - 9) + b"\x7f" * 8, random_.randbytes(size)))
        changed[place + start : place + start + size] = value[:size].ljust(size, b"\0")
        header = changed[place : place + 512]
        header[148:156] = b" " * 8
        changed[place + 148 : place + 156] = b"%06o\0 " % sum(header)
    return bytes(changed)


def tar_members(data: bytes, other: bytes, random_: Random) -> bytes:
    """Write the archive anew with a damaged member, or one that is long, sparse, many, or has a PAX header."""
    if re.search(rb"\d{5000}", data):  # tarfile searches in quadratic time there
        return data
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            members = [(info, archive.extractfile(info).read()) for info in archive if info.isfile()]  # type: ignore[union-attr]
    except Exception:
        return data
    if not members:
        return data
    at = random_.randrange(len(members))
    info, content = members[at]
    members[at] = (info, random_.choice(PICKLE)(content, content, random_))
    extra = random_.randrange(6)
    if extra == 0:
        info.pax_headers = {
            random_.choice(("comment", "size", "path", "GNU.sparse.map", "GNU.sparse.realsize", "hdrcharset")): (
                random_.choice(("9" * 400_000, "-1", "1,2,3", "\udcff", "99999999999999999999"))
            )
        }
    elif extra == 1:
        info.name = "n" * random_.choice((99, 101, 300_000))
    elif extra == 2:
        members += [(tarfile.TarInfo(f"m{number}"), b"") for number in range(random_.choice((10, 600)))]
    written = io.BytesIO()
    style = random_.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
    with tarfile.open(fileobj=written, mode="w", format=style, errors="surrogateescape") as archive:
        for each, value in members:
            each.size = len(value)
            archive.addfile(each, io.BytesIO(value))
    return written.getvalue()


def _compressed(data: bytes, random_: Random) -> bytes:
    """Gzip, some damaged afterwards."""
    packed = gzip.compress(data, 1, mtime=0)
    return random_.choice(BYTES)(packed, packed, random_) if random_.random() < 0.3 else packed


TAR = (*BYTES, tar_headers, tar_headers, tar_headers, tar_members, tar_members, tar_members)


def tar_gz(data: bytes, other: bytes, random_: Random) -> bytes:
    """Damage within the compression, which else hides all but itself."""
    mutator = random_.choice(TAR)
    return _compressed(mutator(gzip.decompress(data), gzip.decompress(other), random_), random_)


def idx_gz(data: bytes, other: bytes, random_: Random) -> bytes:
    """Damage within the compression; rank, type and sizes of the head."""
    inside = gzip.decompress(data)
    if random_.random() < 0.5:
        rank = random_.choice((0, 1, 2, 3, 4, 65, 255))
        sizes = [random_.choice((0, 1, 20, 28, 784, 2**16, 2**31, 2**32 - 1)) for _ in range(rank)]
        head = bytes((0, 0, random_.choice((8, 8, 8, 9, 13, 14)), rank)) + struct.pack(f">{rank}I", *sizes)
        inside = head + inside[random_.choice((4, 8, 16)) :] * random_.choice((1, 1, 50))
    else:
        inside = random_.choice(BYTES)(inside, gzip.decompress(other), random_)
    return _compressed(inside, random_)


TAR_GZ: tuple[Mutator, ...] = (tar_gz,)
IDX_GZ: tuple[Mutator, ...] = (idx_gz,)


# --- text

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


# --- pictures


def _png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, place = [], 8
    while place + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks


def png_chunks(data: bytes, other: bytes, random_: Random) -> bytes:
    """Damage, repeat, swap, drop or add chunks, with checksums that are right."""
    chunks = _png_chunks(data)
    if not data.startswith(b"\x89PNG") or not chunks:
        return set_integer(data, other, random_)
    at = random_.randrange(len(chunks))
    name, content = chunks[at]
    kind = random_.randrange(7)
    if kind == 0:
        head = [random_.choice((1, 3, 255, 7999, 8000, 9000, 20_000, 2**31 - 1, 2**32 - 1)) for _ in range(2)]
        modes = [random_.choice(each) for each in ((1, 2, 4, 8, 16), (0, 2, 3, 4, 6), (0,), (0,), (0, 1))]
        chunks[0] = (b"IHDR", struct.pack(">2I5B", *head, *modes))
    elif kind == 1:
        chunks[at:at] = [chunks[at]] * random_.choice((1, 50))
    elif kind == 2:
        del chunks[at]
    elif kind == 3:
        zeros = zlib.compress(bytes(random_.choice((10**4, 10**6, 3 * 10**7))), 9)
        chunks.insert(
            random_.randint(1, len(chunks)),
            random_.choice(
                (
                    (b"zTXt", b"a\0\0" + zeros),
                    (b"iCCP", b"a\0\0" + zeros),
                    (b"iTXt", b"a\0\1\0\0\0" + zeros),
                    (b"eXIf", b"II*\0" + random_.randbytes(60)),
                    (b"tRNS", random_.randbytes(random_.choice((1, 2, 6, 256)))),
                    (b"acTL", struct.pack(">2I", random_.choice((0, 2, 2**31)), 0)),
                    (b"IDAT", zeros),
                )
            ),
        )
    elif kind == 4 and name == b"IDAT":
        try:
            rows = zlib.decompress(content)
        except zlib.error:
            return data
        chunks[at] = (name, zlib.compress(random_.choice(BYTES)(rows, rows, random_)))
    else:
        chunks[at] = (name, random_.choice(BYTES)(content, content, random_))
    return data[:8] + b"".join(
        struct.pack(">I", len(value)) + each + value + struct.pack(">I", zlib.crc32(each + value))
        for each, value in chunks
    )


def jpeg_segments(data: bytes, other: bytes, random_: Random) -> bytes:
    """Damage a segment before the scan: sizes, tables, EXIF; or repeat a scan."""
    places = [found.start() for found in re.finditer(rb"\xff[\xc0-\xfe]", data)]
    if not places:
        return set_integer(data, other, random_)
    place = random_.choice(places)
    if random_.random() < 0.2:
        end = random_.choice([each for each in places if each >= place])
        return data[:end] + data[place:end] * random_.choice((1, 2, 30)) + data[end:]
    start = place + random_.randrange(2, 40)
    value = random_.choice((struct.pack(">2H", *random_.choices((0, 1, 8, 7999, 65_535), k=2)), random_.randbytes(2)))
    return data[:start] + value + data[start + len(value) :]


PNG = (*BYTES, *[png_chunks] * 6)
JPEG = (*BYTES, *[jpeg_segments] * 4, set_integer)
PICTURE = (*BYTES, set_integer, set_integer)


# --- safetensors


def safetensors_head(data: bytes, other: bytes, random_: Random) -> bytes:
    """Damage the table of names, types and shapes, whose length is set right."""
    (length,) = struct.unpack_from("<Q", data)
    head = random_.choice((json_values, json_values, text_tokens, flip_bits))(data[8 : 8 + length], b"", random_)
    return struct.pack("<Q", len(head)) + head + data[8 + length :]


SAFETENSORS = (*BYTES, *[safetensors_head] * 6)


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
