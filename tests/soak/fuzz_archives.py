"""Ways to damage an archive, whose checksums and compression would otherwise hide what is inside."""

from __future__ import annotations

import gzip
import io
import re
import struct
import tarfile
import zipfile

from fuzz_mutators import BYTES, EXTREMES, Mutator, Random, change_bytes, set_integer
from fuzz_pickles import PICKLE, pickle_instructions


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
