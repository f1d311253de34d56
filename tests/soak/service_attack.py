"""What an honest client notices while others attack the service.

Not part of the suite, for it takes minutes and its figures are of the machine. Starts tools/serve.py; one client sends
a small picture ten times a second, on a new connection each, beside nothing, beside all attacks at once, and after
them. Ends with status 1 if its 99th percentile grew by more than 2 s, if it had a 5xx or lost an answer, if the
service's memory was more than 20% larger after the attacks, if the service logged a fault or did not come back whole.
Attackers take the processor with nice 10, as they would be on other machines; all stay on the loopback interface.

    python tests/soak/service_attack.py output/quickstart --seconds 60
    python tests/soak/service_attack.py output/quickstart --seconds 60 --same-address -- --streams 1
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import contextlib
import io
import math
import multiprocessing
import os
import random
import signal
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from service_soak import ServiceProcess

HONEST = "127.0.0.1"
PERIOD = 0.1
"""Seconds between two requests of the honest client."""
PATIENCE = 60.0
"""Seconds, after which a client gives an answer up."""
TOLERATED_DELAY = 2.0
TOLERATED_GROWTH = 0.2
SECONDS_TO_RECOVER = 60.0
MOST_SENT = 4 * 2**20
"""Bytes of what would be endless."""

HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\n"
CHUNKED = HEAD % b"image/png" + b"Transfer-Encoding: chunked\r\n\r\n"
SLOW_SECONDS = 40.0


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@cache
def small() -> bytes:
    """What the honest client sends."""
    return encoded(Image.frombytes("RGB", (64, 48), random.Random(0).randbytes(3 * 64 * 48)), "JPEG")


@cache
def slow_pictures() -> tuple[bytes, ...]:
    """Small files that take long: JPEGs of 4000 x 4000 with 99, 20 and 14 scans, and other formats."""
    black = Image.new("RGB", (4000, 4000))
    jpeg = encoded(black, "JPEG", progressive=True)
    scan, end = jpeg[jpeg.rindex(b"\xff\xda") : jpeg.rindex(b"\xff\xd9")], jpeg.rindex(b"\xff\xd9")
    jpegs = [jpeg[:end] + (scans - jpeg.count(b"\xff\xda")) * scan + b"\xff\xd9" for scans in (99, 20, 14)]
    return (*jpegs, encoded(black, "PNG"), encoded(black, "WEBP", lossless=True))


@cache
def form(number: int) -> bytes:
    """The request with up to 64 times the same slow picture."""
    data = slow_pictures()[number]
    part = b'--b\r\nContent-Disposition: form-data; name="i"; filename="i"\r\n\r\n' + data + b"\r\n"
    body = part * min(64, 15 * 2**20 // len(part)) + b"--b--\r\n"
    return HEAD % b"multipart/form-data; boundary=b" + b"Content-Length: %d\r\n\r\n" % len(body) + body


def one(picture: bytes, *headers: bytes) -> bytes:
    """The request with one picture."""
    lines = b"".join(header + b"\r\n" for header in headers)
    return HEAD % b"image/jpeg" + lines + b"Content-Length: %d\r\n\r\n" % len(picture) + picture


def connect(port: int, address: str, seconds: float = PATIENCE) -> socket.socket:
    """A connection from an address."""
    return socket.create_connection((HONEST, port), timeout=seconds, source_address=(address, 0))


def answer(connection: socket.socket) -> int:
    """Read one answer; return its status.

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
    return int(head.split(b" ", 2)[1])


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("closed")
    return data


def outcome(act: Callable[[], int | str]) -> int | str:
    """What came of a try: the status of its answer, or why there was none."""
    try:
        return act()
    except TimeoutError:
        return "no answer"
    except ConnectionError:
        return "closed"
    except OSError as error:
        return type(error).__name__


# The attacks: each is one try of one attacker, and returns how it ended.


def ask(port: int, address: str, *pieces: bytes, pause: float = 0.0, seconds: float = math.inf) -> int:
    """Send a request in pieces, as far as the service takes them; return the answer's status."""
    end = time.monotonic() + seconds
    with connect(port, address) as connection:
        with contextlib.suppress(ConnectionError):  # the refusal may have come all the same
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
                if time.monotonic() > end:
                    break
        return answer(connection)


def trailers(port: int, address: str, random_: random.Random) -> int | str:
    """Endless trailers, many of them, or endless chunks of a byte."""
    line = random_.choice([b"X: y\r\n", b"1\r\na\r\n", b"X" * 1000, b"X-%d: y\r\n"])
    first = CHUNKED + b"1\r\na\r\n" + (b"" if line.startswith(b"1") else b"0\r\n")
    if b"%" in line:
        many = b"".join(line % number for number in range(500))
        return ask(port, address, first + many + b"\r\n")
    return ask(port, address, first, *[line * 1000] * (MOST_SENT // len(line * 1000)))


def slow_head(port: int, address: str, random_: random.Random) -> int | str:
    """A byte of a header now and then."""
    return ask(port, address, HEAD % b"image/png", *[b"X"] * 1000, pause=0.5, seconds=SLOW_SECONDS)


def slow_body(port: int, address: str, random_: random.Random) -> int | str:
    """A byte of a body now and then."""
    request = one(small())
    pieces = [request[:-1000], *[b"x"] * 999]
    return ask(port, address, *pieces, pause=0.5, seconds=SLOW_SECONDS)


def slow_to_decode(port: int, address: str, random_: random.Random) -> int | str:
    """Pictures that take long, 64 in a request or one."""
    number = random_.randrange(len(slow_pictures()))
    return ask(port, address, form(number) if random_.random() < 0.7 else one(slow_pictures()[number]))


def reset(port: int, address: str, random_: random.Random) -> int | str:
    """Part of a body, or all of it, and then a reset."""
    request = form(random_.randrange(len(slow_pictures())))
    with connect(port, address) as connection:
        connection.settimeout(5)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(request[: random_.choice([300, len(request) // 2, len(request)])])
    return "reset"


def connections(port: int, address: str, random_: random.Random) -> int | str:
    """Some hundred connections that say nothing."""
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(connect(port, address, 5))
        time.sleep(random_.random())
    return "300 opened"


def requests(port: int, address: str, random_: random.Random) -> int | str:
    """One picture after the other on one connection, or a pipeline of them."""
    at_once = random_.choice([1, 1, 12, 40])
    with connect(port, address) as connection:
        for _ in range(100 // at_once):
            connection.sendall(at_once * one(small()))
            for _ in range(at_once):
                status = answer(connection)  # of a pipeline, more than one may come at once
                if at_once > 1:
                    return status
    return status


class Attack(NamedTuple):
    """Who makes it: so many threads of a process."""

    act: Callable[[int, str, random.Random], int | str]
    threads: int
    pause: float = 0.05


ATTACKS = (
    Attack(trailers, 2),
    Attack(slow_head, 20),
    Attack(slow_body, 20),
    Attack(slow_to_decode, 6),
    Attack(reset, 2),
    Attack(connections, 4, 0.5),
    Attack(requests, 4),
)


def attack_until(end: Event, attack: Attack, port: int, address: str, ends: multiprocessing.Queue) -> None:
    """Be all attackers of one kind; each has `address`."""
    os.nice(10)
    found: Counter[int | str] = Counter()

    def go_on(seed: int) -> None:
        random_ = random.Random(seed)
        while not end.is_set():
            found[outcome(lambda: attack.act(port, address, random_))] += 1
            time.sleep(attack.pause)

    for seed in range(attack.threads):
        threading.Thread(target=go_on, args=(seed,), daemon=True).start()
    end.wait()
    time.sleep(2)  # what is under way may end
    ends.put((attack.act.__name__, dict(found)))
    ends.close()
    ends.join_thread()
    os._exit(0)


def children(pid: int) -> list[int]:
    """The processes that compute: those that multiprocessing has started for them."""
    with contextlib.suppress(OSError):
        found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [child for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return []


def kill_children(pid: int, every: float, end: threading.Event) -> int:
    """Kill one of them from time to time; return how many."""
    killed = 0
    while every and not end.wait(every):
        if found := children(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(random.choice(found), signal.SIGKILL)
                killed += 1
    return killed


class Seen(NamedTuple):
    """What the honest client saw."""

    name: str
    times: list[float]
    ends: Counter[int | str]

    @property
    def p99(self) -> float:
        """Seconds."""
        return self.quantile(0.99)

    def quantile(self, share: float) -> float:
        """Seconds, from when a request was due to its answer."""
        return self.times[int(share * (len(self.times) - 1))]

    def faults(self) -> int:
        """How many answers were 5xx, or did not come."""
        return sum(number for end, number in self.ends.items() if not isinstance(end, int) or end >= 500)

    def line(self) -> str:
        """In a line of a table."""
        p50, p99, most = (f"{1000 * value:,.0f} ms" for value in (self.quantile(0.5), self.p99, self.times[-1]))
        return f"| {self.name} | {p50} | {p99} | {most} | {self.faults()} | {counted(self.ends)} |"


def be_honest(port: int, name: str, seconds: float) -> Seen:
    """Send a picture each `PERIOD`, whether or not the last one is answered."""
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
    return Seen(name, sorted(times), ends)


def counted(ends: dict[int | str, int]) -> str:
    """Ends and their numbers."""
    return ", ".join(f"{number} x {end}" for end, number in sorted(ends.items(), key=lambda each: str(each[0])))


def under_attack(service: ServiceProcess, seconds: float, same_address: bool, kill_every: float) -> Seen:
    """Be honest beside all attacks; print what became of these."""
    context = multiprocessing.get_context("fork")
    end, ends, over = context.Event(), context.Queue(), threading.Event()
    pid = service.process.pid
    # slow_pictures() and small() are there before the processes are made.
    _ = [form(number) for number in range(len(slow_pictures()))], small()
    attackers = []
    for number, attack in enumerate(ATTACKS, 2):
        address = HONEST if same_address else f"127.0.0.{number}"
        attackers.append(context.Process(target=attack_until, args=(end, attack, service.port, address, ends)))
        attackers[-1].start()
    with ThreadPoolExecutor(1) as killer:
        killed = killer.submit(kill_children, pid, kill_every, over)
        try:
            seen = be_honest(service.port, "attacked", seconds)
        finally:
            over.set()
            end.set()
    for _ in attackers:
        name, found = ends.get(timeout=30)
        print(f"  {name}: {counted(found)}")
    for attacker in attackers:
        attacker.join(10)
    print(f"  processes killed: {killed.result()}", flush=True)
    return seen


def recover(service: ServiceProcess, streams: int) -> float:
    """Wait until the service is whole again; return for how long, or infinity."""
    started = time.monotonic()
    while (seconds := time.monotonic() - started) < SECONDS_TO_RECOVER:
        if service.status("/readyz") == 200 and len(children(service.process.pid)) >= streams:
            return seconds
        time.sleep(0.5)
    return math.inf


def main() -> int:
    """Measure; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=60, help="of the attack")
    parser.add_argument("--same-address", action="store_true", help="attackers have the honest client's own")
    parser.add_argument("--kill-every", type=float, default=5, help="seconds between two kills; 0: none")
    parser.add_argument("--calm", type=float, default=15, help="seconds before the attack, and after it")
    # argparse would give what stands behind -- to the first of the arguments above.
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options, of_service = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]

    service = ServiceProcess(options.model, *of_service)
    try:
        streams = len(children(service.process.pid))
        be_honest(service.port, "warm-up", 3)
        idle = be_honest(service.port, "idle", options.calm)
        before = service.resident_megabytes()
        attacked = under_attack(service, options.seconds, options.same_address, options.kill_every)
        recovered = recover(service, streams)
        time.sleep(options.calm)
        calm = be_honest(service.port, "calm", options.calm)
        after = service.resident_megabytes()
    finally:
        status = service.end()
    print("\n| the honest client | p50 | p99 | most | 5xx, lost | answers |\n|---|---|---|---|---|---|")
    print("\n".join(seen.line() for seen in (idle, attacked, calm)))
    growth = after / before - 1
    print(f"\nmemory: {before:.0f} MB before, {after:.0f} MB after ({growth:+.1%}); whole again in {recovered:.1f} s")
    faults = sum(seen.faults() for seen in (idle, attacked, calm))
    slower = max(attacked.p99, calm.p99) - idle.p99
    errors = [line for line in service.logged() if line["level"] in ("error", "critical")]
    bugs = [line for line in errors if not line["event"].startswith("a network process ")]
    print(f"exit status {status}; errors in the log: {counted(Counter(line['event'] for line in errors))}")
    if bugs:
        print(bugs[0])
    good = not faults and slower <= TOLERATED_DELAY and growth <= TOLERATED_GROWTH and recovered < math.inf
    good = good and status == 0 and not bugs
    print("held" if good else "BROKEN")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
