"""Send hostile requests to a running service. The exit status is 1 if it crashes, hangs, returns a 5xx or leaks memory.

Not part of the suite at this length: tests/service/test_service_hostile.py sends a few hundred.

    python tools/serve.py output/quickstart --log-level WARNING &
    python tests/soak/service_fuzz.py http://127.0.0.1:8000 --pid $! --requests 10000
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import base64
import contextlib
import functools
import io
import json
import os
import random
import socket
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from image_bytes import chunk, png_start

HANG_SECONDS = 20.0
"""Longer than any request here may take: the service ends an incomplete body after `body_timeout`."""
TOLERATED_GROWTH = 0.05
PICTURES = 100
MODELS = (b"resnet20", b"resnet18", b"colours", b"../etc")
KINDS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
NAMES = (
    b"../../etc/passwd",
    b"C:\\boot.ini",
    b"/dev/zero",
    b"a\0b",
    b"%2e%2e%2f",
    b"\xff\xfe",
    b"x" * 5000,
    b"\r\nX: y",
    b'";a="',
)
TYPES = (
    b"image/png",
    b"image/jpeg",
    b"application/json",
    b"text/html",
    b"multipart/form-data",
    b"",
    b"\xff",
    b"a" * 9000,
)


def picture(random_: random.Random) -> bytes:
    """Return a valid image, one of `PICTURES`: to encode one takes longer than to refuse it."""
    return _picture(random_.randrange(PICTURES))


@functools.cache
def _picture(number: int) -> bytes:
    random_ = random.Random(number)
    size = (random_.randint(1, 200), random_.randint(1, 200))
    image = Image.frombytes("RGB", size, random_.randbytes(3 * size[0] * size[1]))
    file = io.BytesIO()
    image.save(file, random_.choice(KINDS))
    return file.getvalue()


def truncated(random_: random.Random) -> bytes:
    """Return an image that is cut short."""
    data = picture(random_)
    return data[: random_.randint(0, len(data))]


def damaged(random_: random.Random) -> bytes:
    """Return an image with some bytes replaced."""
    data = bytearray(picture(random_))
    for _ in range(random_.randint(1, 20)):
        data[random_.randrange(len(data))] = random_.randrange(256)
    return bytes(data)


def png(width: int, height: int, pixels: bytes, *extra: bytes) -> bytes:
    """Return a PNG with this header, whatever its pixels are."""
    return b"".join([png_start(width, height), *extra, chunk(b"IDAT", pixels), chunk(b"IEND", b"")])


def bomb(random_: random.Random) -> bytes:
    """Return few bytes that decode to many (pixels, text, colour profile), or a false size."""
    zeros = zlib.compress(bytes(random_.choice([10**5, 10**7])), 9)
    return random_.choice(
        [
            lambda: png(random_.choice([4000, 60_000]), random_.choice([4000, 60_000]), zeros),
            lambda: png(3, 3, zeros, chunk(b"zTXt", b"Comment\0\0" + zeros)),
            lambda: png(3, 3, zeros, *[chunk(b"iTXt", b"a\0\1\0\0\0" + zeros)] * random_.choice([1, 30])),
            lambda: png(3, 3, zeros, chunk(b"iCCP", b"a\0\0" + zeros)),
            lambda: b"GIF89a\xff\xff\xff\xff\xf7\0\0" + bytes(768) + b",\0\0\0\0\xff\xff\xff\xff\0\2\2",
            lambda: b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, 2**30, 2**30, 1, 24, *[0] * 6),
        ]
    )()  # fmt: skip


def polyglot(random_: random.Random) -> bytes:
    """Return an image that is also a page, a script or an archive."""
    other = random_.choice(
        [b"<html><script>alert(1)</script>", b"PK\3\4" + bytes(60), b"%PDF-1.4\n", b"#!/bin/sh\n", b"%!PS\n"]
    )
    return random_.choice([lambda: picture(random_) + other, lambda: other + picture(random_)])()


def form(random_: random.Random, pictures: list[bytes]) -> tuple[bytes, bytes]:
    """Return a multipart body, mostly broken, and its type."""
    boundary = random_.choice([b"x7", b"-" * 60, b"a b", bytes([random_.randrange(33, 127)]) * 8])
    parts = []
    for data in pictures:
        headers = b'Content-Disposition: form-data; name="%s"; filename="%s"\r\n' % (
            random_.choice(NAMES),
            random_.choice(NAMES),
        )
        headers += random_.choice(
            [b"", b"Content-Type: image/png\r\n", b"X: y\r\n" * random_.choice([1, 5000]), b"no colon\r\n"]
        )
        parts.append(b"--" + boundary + b"\r\n" + headers + b"\r\n" + data + b"\r\n")
    body = b"".join([*parts, b"--" + boundary + b"--\r\n"])
    body = random_.choice(
        [body, body, body[: random_.randint(0, len(body))], body.replace(b"\r\n", b"\n"), body + body]
    )
    said = random_.choice([boundary, boundary, boundary, b"other", b"", b"y" * 3000])
    return body, b"multipart/form-data; boundary=" + said


def broken_json(random_: random.Random, pictures: list[bytes]) -> bytes:
    """Return JSON with base64, mostly broken."""
    texts = [base64.b64encode(data).decode() for data in pictures]
    depth = random_.choice([10, 1000, 100_000])
    return random_.choice(
        [
            lambda: json.dumps({"images": texts}),
            lambda: json.dumps({"images": [text[1:] + "*" for text in texts]}),
            lambda: json.dumps({"images": texts})[: random_.randint(0, 300)],
            lambda: '{"images": ' + "[" * depth + "]" * random_.choice([0, depth]) + "}",
            lambda: "{" * depth,
            lambda: '{"images": [' + "1" * depth + "]}",
            lambda: json.dumps({"images": [None, True, 1e308, {"a": texts[:1]}], "top": NAMES[0].decode()}),
            lambda: '{"images": "\\ud800"}',
        ]
    )().encode()  # fmt: skip


def open_inference(random_: random.Random, pictures: list[bytes]) -> tuple[bytes, int]:
    """Return a body of the Open Inference Protocol with encoded images, often damaged, and the length of its JSON."""
    binary = b"".join(struct.pack("<I", random_.choice([len(each)] * 9 + [2**32 - 1])) + each for each in pictures)
    shape = [random_.choice([len(pictures)] * 5 + [0, -1, 2**40, 10**30])]
    tensor = {"name": "images", "datatype": "BYTES", "shape": shape, "parameters": {"binary_data_size": len(binary)}}
    text = json.dumps({"inputs": [tensor] * random_.choice([1, 1, 1, 1, 0, 2])}).encode()
    if random_.random() < 0.3:
        text = damaged(random_) if random_.random() < 0.3 else text[: random_.randrange(len(text))]
    return text + binary, random_.choice([len(text)] * 9 + [0, 10**18])


def hostile_request(seed: int) -> tuple[list[bytes], bool]:
    """Return a whole request in pieces, and whether its sender closes its side then."""
    random_ = random.Random(seed)
    make = random_.choice([picture, truncated, damaged, bomb, polyglot, lambda r: r.randbytes(r.randrange(2000))])
    pictures = [make(random_) for _ in range(random_.choice([1, 1, 1, 2, 9, 70]))]
    kind = random_.choice(["image", "image", "form", "form", "json"])
    if kind == "form":
        body, type_ = form(random_, pictures)
    elif kind == "json":
        body, type_ = broken_json(random_, pictures), b"application/json"
    else:
        body, type_ = pictures[0], random_.choice([b"image/png", b"image/jpeg"])
    if random_.random() < 0.1:
        type_ = random_.choice(TYPES)
    path = random_.choice(
        [b"/predict"] * 8 + [b"/predict?top=-1", b"/predict?top=" + b"9" * 5000, b"/explain", b"/%00/../etc"]
    )
    tensor_headers: list[bytes] = []
    if random_.random() < 0.15:
        path = b"/v2/models/%s/infer" % random_.choice(MODELS)
        body, length = open_inference(random_, pictures)
        tensor_headers = [b"Inference-Header-Content-Length: %d" % length]
    headers = [b"Host: localhost", b"Content-Type: " + type_, b"Connection: close", *tensor_headers]
    headers += random_.choice(
        [[]] * 6 + [[b"X-Large: " + b"a" * 50_000], [b"X: y"] * 3000, [b"X-Request-ID: " + b"\xff" * 99]]
    )
    length = random_.choice([len(body)] * 12 + [len(body) // 2, len(body) + 5, 10**9, -1, 10**30])
    leaves = length > len(body) or random_.random() < 0.02
    if random_.random() < 0.15:
        headers.append(b"Transfer-Encoding: chunked")
        pieces = [body[start : start + 5000] for start in range(0, len(body), 5000)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        if random_.random() < 0.3:
            body, leaves = body[: len(body) // 2] + random_.choice([b"", b"zzz\r\n"]), True
    else:
        headers.append(b"Content-Length: %d" % length)
    head = b"POST %s HTTP/1.1\r\n%s\r\n\r\n" % (path, b"\r\n".join(headers))
    return [head, body], leaves


def send(host: str, port: int, seed: int) -> int | str:
    """Send the request of a seed; return the status, or how it ended without one."""
    pieces, leaves = hostile_request(seed)
    try:
        with socket.create_connection((host, port), timeout=HANG_SECONDS) as connection:
            with contextlib.suppress(OSError):  # refused meanwhile: the response may be there all the same
                for piece in pieces:
                    connection.sendall(piece)
                if leaves:
                    connection.shutdown(socket.SHUT_WR)
            head = b""
            while b"\r\n" not in head and (data := connection.recv(65536)):
                head += data
    except TimeoutError:
        return "hangs"
    except ConnectionError:
        return "reset"
    return int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/1.1 ") else "closed"


def resident_megabytes(pid: int) -> float:
    """Return the memory of a process and its children; shared memory counts in each."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20 + sum(resident_megabytes(int(child)) for child in children)


def fuzz(host: str, port: int, seeds: range, at_once: int = 8) -> Counter[int | str]:
    """Send the requests of all seeds; count the outcomes."""
    with ThreadPoolExecutor(at_once) as threads:
        return Counter(threads.map(lambda seed: send(host, port, seed), seeds))


def faults(ends: Counter[int | str]) -> dict[int | str, int]:
    """Return the outcomes that are faults of the service."""
    return {end: number for end, number in ends.items() if end == "hangs" or (isinstance(end, int) and end >= 500)}


def main() -> int:
    """Send the requests, watch the memory, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--pid", type=int, help="the service's process: its memory is watched")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    parts = urlsplit(options.url)
    host, port = str(parts.hostname), parts.port or 80
    ends: Counter[int | str] = Counter()
    held, peak, watching = [], 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not watching.wait(0.05):
            peak = max(peak, resident_megabytes(options.pid))

    if options.pid:
        threading.Thread(target=watch, daemon=True).start()
    started = time.monotonic()
    step = max(1, options.requests // 10)
    for first in range(0, options.requests, step):
        ends += fuzz(host, port, range(options.seed + first, options.seed + min(first + step, options.requests)))
        held.append(resident_megabytes(options.pid) if options.pid else 0.0)
        print(
            f"{sum(ends.values())} requests, {time.monotonic() - started:.0f} s, {held[-1]:.0f} MB resident", flush=True
        )
    watching.set()
    with socket.create_connection((host, port), timeout=HANG_SECONDS) as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        ready = connection.recv(100).startswith(b"HTTP/1.1 200 ")
    # The first tenths warm up: allocators keep what the largest picture took.
    growth = held[-1] / held[len(held) // 2] - 1 if options.pid else 0.0
    print("ends:", dict(sorted(ends.items(), key=str)))
    print(f"ready: {ready}; memory peaked at {peak:.0f} MB, and grew by {growth:.1%} in the second half")
    return 0 if ready and not faults(ends) and growth < TOLERATED_GROWTH else 1


if __name__ == "__main__":
    sys.exit(main())
