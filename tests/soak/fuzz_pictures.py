"""Ways to damage a picture, and the head of a safetensors file, that leave their frames whole."""

from __future__ import annotations

import re
import struct
import zlib

from fuzz_mutators import BYTES, Random, flip_bits, json_values, set_integer, text_tokens
from image_bytes import chunk


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
    return data[:8] + b"".join(chunk(*each) for each in chunks)


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


def safetensors_head(data: bytes, other: bytes, random_: Random) -> bytes:
    """Damage the table of names, types and shapes, whose length is set right."""
    (length,) = struct.unpack_from("<Q", data)
    head = random_.choice((json_values, json_values, text_tokens, flip_bits))(data[8 : 8 + length], b"", random_)
    return struct.pack("<Q", len(head)) + head + data[8 + length :]


SAFETENSORS = (*BYTES, *[safetensors_head] * 6)
