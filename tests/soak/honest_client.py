"""A client of the service that sends a small image at a steady pace, and requests as attackers make them too."""

from __future__ import annotations

import contextlib
import math
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from image_bytes import encoded

HONEST = "127.0.0.1"
PERIOD = 0.1
"""Seconds between two requests of the honest client."""
PATIENCE = 60.0
"""Seconds that a client waits for a response."""

HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\n"
COME_AGAIN = "503 or 504 with Retry-After"


@cache
def small() -> bytes:
    """Return the honest client's image."""
    return encoded(Image.frombytes("RGB", (64, 48), random.Random(0).randbytes(3 * 64 * 48)), format="JPEG")


def one(image: bytes, *headers: bytes) -> bytes:
    """Return a request with one image."""
    lines = b"".join(header + b"\r\n" for header in headers)
    return HEAD % b"image/jpeg" + lines + b"Content-Length: %d\r\n\r\n" % len(image) + image


def connect(port: int, address: str, seconds: float = PATIENCE) -> socket.socket:
    """Connect from an address."""
    return socket.create_connection((HONEST, port), timeout=seconds, source_address=(address, 0))


def read_status(connection: socket.socket) -> int | str:
    """Read one response; return its status, or `COME_AGAIN`.

    Raises:
        ConnectionError: there is none, or not all of it.
    """
    received = b""
    while b"\r\n\r\n" not in received:
        received += _more(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    (length,) = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < length:
        body += _more(connection)
    status = int(head.split(b" ", 2)[1])
    return COME_AGAIN if status in (503, 504) and b"\r\nretry-after: " in head.lower() else status


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("closed")
    return data


def outcome(act: Callable[[], int | str]) -> int | str:
    """Return the status that `act` returns, or why there was none."""
    try:
        return act()
    except TimeoutError:
        return "no response"
    except ConnectionError:
        return "closed"
    except OSError as error:
        return type(error).__name__


# The attacks. Each function is one try of one attacker, and returns how it ended.


def ask(port: int, address: str, *pieces: bytes, pause: float = 0.0, seconds: float = math.inf) -> int | str:
    """Send a request in pieces, as far as the service takes them; return the status."""
    end = time.monotonic() + seconds
    with connect(port, address) as connection:
        with contextlib.suppress(ConnectionError):  # the error response may be there all the same
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
                if time.monotonic() > end:
                    break
        return read_status(connection)


class ClientStats(NamedTuple):
    """Latencies and outcomes of the honest client, the latencies sorted."""

    name: str
    times: list[float]
    ends: Counter[int | str]

    @property
    def p99(self) -> float:
        """Seconds."""
        return self.quantile(0.99)

    def quantile(self, share: float) -> float:
        """Return seconds from when a request was due to its response."""
        return self.times[int(share * (len(self.times) - 1))]

    def errors(self) -> int:
        """Return how many responses did not come, or were 5xx without a word of when to come again."""
        return sum(
            number for end, number in self.ends.items() if end != COME_AGAIN and (isinstance(end, str) or end >= 500)
        )

    def line(self) -> str:
        """Return a line of the table."""
        p50, p99, most = (f"{1000 * value:,.0f} ms" for value in (self.quantile(0.5), self.p99, self.times[-1]))
        return f"| {self.name} | {p50} | {p99} | {most} | {self.errors()} | {counted(self.ends)} |"


def run_honest_client(port: int, name: str, seconds: float) -> ClientStats:
    """Send an image every `PERIOD`, whether or not the last one has its response."""
    ends: Counter[int | str] = Counter()
    times: list[float] = []
    request = one(small(), b"Connection: close")

    def send(due: float) -> None:
        end = outcome(lambda: ask(port, HONEST, request))
        times.append(time.monotonic() - due)
        ends[end] += 1

    start = time.monotonic()
    with ThreadPoolExecutor(200) as threads:
        for number in range(int(seconds / PERIOD)):
            due = start + number * PERIOD
            time.sleep(max(0.0, due - time.monotonic()))
            threads.submit(send, due)
    return ClientStats(name, sorted(times), ends)


def counted(ends: dict[int | str, int]) -> str:
    """Return outcomes and their numbers as text."""
    return ", ".join(f"{number} x {end}" for end, number in sorted(ends.items(), key=lambda each: str(each[0])))
