"""Latency and errors of an honest client while others attack the service.

Not part of the suite: it takes minutes, and its numbers depend on the machine. It starts tools/serve.py. One client
sends a small image ten times a second, each on a new connection: before, during and after all attacks at once. The exit
status is 1 if the client's 99th percentile grew by more than 2 s, if it lost a response or got a 5xx that does not say
when to come again, if the service's memory is more than 20% larger after the attacks, if the service logged an internal
error, or if a dead worker did not come back. Attackers run at nice 10, because they would be on other machines. All use
the loopback interface.

Inference workers are killed too, each time one while all are there: a service whose workers are killed faster than they
can load their model has none, however it replaces them.

    python tests/soak/service_attack.py output/quickstart --seconds 60
    python tests/soak/service_attack.py output/quickstart --seconds 60 --same-address -- --streams 1
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import contextlib
import math
import multiprocessing
import os
import random
import re
import signal
import socket
import struct
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import NamedTuple

from honest_client import (
    HEAD,
    HONEST,
    ClientStats,
    ask,
    connect,
    counted,
    one,
    outcome,
    read_status,
    run_honest_client,
    small,
)
from image_bytes import encoded
from PIL import Image
from service_soak import ServiceProcess

TOLERATED_DELAY = 2.0
TOLERATED_GROWTH = 0.2
SECONDS_TO_RECOVER = 60.0
MOST_SENT = 4 * 2**20
"""Bytes of an endless input that are sent."""
CHUNKED = HEAD % b"image/png" + b"Transfer-Encoding: chunked\r\n\r\n"
SLOW_SECONDS = 40.0


@cache
def slow_images() -> tuple[bytes, ...]:
    """Return small files that are slow to decode: JPEGs of 4000 x 4000 with 99, 20 and 14 scans, and other formats."""
    black = Image.new("RGB", (4000, 4000))
    jpeg = encoded(black, format="JPEG", progressive=True)
    scan, end = jpeg[jpeg.rindex(b"\xff\xda") : jpeg.rindex(b"\xff\xd9")], jpeg.rindex(b"\xff\xd9")
    jpegs = [jpeg[:end] + (scans - jpeg.count(b"\xff\xda")) * scan + b"\xff\xd9" for scans in (99, 20, 14)]
    return (*jpegs, encoded(black), encoded(black, format="WEBP", lossless=True))


@cache
def form(number: int) -> bytes:
    """Return a request with up to 64 copies of a slow image."""
    data = slow_images()[number]
    part = b'--b\r\nContent-Disposition: form-data; name="i"; filename="i"\r\n\r\n' + data + b"\r\n"
    body = part * min(64, 15 * 2**20 // len(part)) + b"--b--\r\n"
    return HEAD % b"multipart/form-data; boundary=b" + b"Content-Length: %d\r\n\r\n" % len(body) + body


def trailers(port: int, address: str, random_: random.Random) -> int | str:
    """Send endless trailers, many of them, or endless chunks of one byte."""
    line = random_.choice([b"X: y\r\n", b"1\r\na\r\n", b"X" * 1000, b"X-%d: y\r\n"])
    first = CHUNKED + b"1\r\na\r\n" + (b"" if line.startswith(b"1") else b"0\r\n")
    if b"%" in line:
        many = b"".join(line % number for number in range(500))
        return ask(port, address, first + many + b"\r\n")
    return ask(port, address, first, *[line * 1000] * (MOST_SENT // len(line * 1000)))


def slow_head(port: int, address: str, random_: random.Random) -> int | str:
    """Send a header byte by byte."""
    return ask(port, address, HEAD % b"image/png", *[b"X"] * 1000, pause=0.5, seconds=SLOW_SECONDS)


def slow_body(port: int, address: str, random_: random.Random) -> int | str:
    """Send a body byte by byte."""
    request = one(small())
    pieces = [request[:-1000], *[b"x"] * 999]
    return ask(port, address, *pieces, pause=0.5, seconds=SLOW_SECONDS)


def slow_to_decode(port: int, address: str, random_: random.Random) -> int | str:
    """Send images that are slow to decode, 64 in a request or one."""
    number = random_.randrange(len(slow_images()))
    return ask(port, address, form(number) if random_.random() < 0.7 else one(slow_images()[number]))


def reset(port: int, address: str, random_: random.Random) -> int | str:
    """Send a part of a body or all of it, then reset the connection."""
    request = form(random_.randrange(len(slow_images())))
    with connect(port, address) as connection:
        connection.settimeout(5)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(request[: random_.choice([300, len(request) // 2, len(request)])])
    return "reset"


def connections(port: int, address: str, random_: random.Random) -> int | str:
    """Open 300 connections that send nothing."""
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(connect(port, address, 5))
        time.sleep(random_.random())
    return "300 opened"


def requests(port: int, address: str, random_: random.Random) -> int | str:
    """Send one request after the other on one connection, or a pipeline."""
    at_once = random_.choice([1, 1, 12, 40])
    with connect(port, address) as connection:
        for _ in range(100 // at_once):
            connection.sendall(at_once * one(small()))
            for _ in range(at_once):
                status = read_status(connection)  # more than one response of a pipeline may come at once
                if at_once > 1:
                    return status
    return status


class Attack(NamedTuple):
    """An attack, and how many threads of a process make it."""

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
    """Run all attackers of one kind from `address`."""
    os.nice(10)
    found: Counter[int | str] = Counter()

    def repeat(seed: int) -> None:
        random_ = random.Random(seed)
        while not end.is_set():
            found[outcome(lambda: attack.act(port, address, random_))] += 1
            time.sleep(attack.pause)

    for seed in range(attack.threads):
        threading.Thread(target=repeat, args=(seed,), daemon=True).start()
    end.wait()
    time.sleep(2)  # for the tries that are under way
    ends.put((attack.act.__name__, dict(found)))
    ends.close()
    ends.join_thread()
    os._exit(0)


def inference_workers(pid: int) -> list[int]:
    """Return the processes that multiprocessing started for inference."""
    with contextlib.suppress(OSError):
        found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [child for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return []


def kill_workers(service: ServiceProcess, every: float, end: threading.Event) -> list[float]:
    """Kill a worker, wait until it is replaced, and so many seconds more, and again.

    Returns:
        The seconds that each replacement took; infinity, after which it kills no more: there was none.
    """
    took: list[float] = []
    while every and math.inf not in took and not end.wait(every):
        os.kill(random.choice(inference_workers(service.process.pid)), signal.SIGKILL)
        started = time.monotonic()
        while replaced(service) == len(took) and time.monotonic() - started < SECONDS_TO_RECOVER:
            time.sleep(0.5)
        seconds = time.monotonic() - started
        took.append(seconds if seconds < SECONDS_TO_RECOVER else math.inf)
    return took


def replaced(service: ServiceProcess) -> int:
    """Return how many workers the service has replaced; -1 if it does not say."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{HONEST}:{service.port}/metrics") as response:
        (number,) = re.findall(r"^paddle_resnet_restarts_total (\S+)", response.read().decode(), re.MULTILINE)
        return int(float(number))
    return -1


def under_attack(
    service: ServiceProcess, seconds: float, same_address: bool, kill_every: float
) -> tuple[ClientStats, list[float]]:
    """Run the honest client during all attacks, print their outcomes; return its own, and those of `kill_workers`."""
    context = multiprocessing.get_context("fork")
    end, ends, over = context.Event(), context.Queue(), threading.Event()
    # Make the images before the processes are forked.
    _ = [form(number) for number in range(len(slow_images()))], small()
    attackers = []
    for number, attack in enumerate(ATTACKS, 2):
        address = HONEST if same_address else f"127.0.0.{number}"
        attackers.append(context.Process(target=attack_until, args=(end, attack, service.port, address, ends)))
        attackers[-1].start()
    with ThreadPoolExecutor(1) as killer:
        killed = killer.submit(kill_workers, service, kill_every, over)
        try:
            stats = run_honest_client(service.port, "attacked", seconds)
        finally:
            over.set()
            end.set()
    for _ in attackers:
        name, found = ends.get(timeout=30)
        print(f"  {name}: {counted(found)}")
    for attacker in attackers:
        attacker.join(10)
    took = killed.result()
    print(f"  workers killed: {len(took)}, replaced within {max(took, default=0):.1f} s", flush=True)
    return stats, took


def settled_megabytes(service: ServiceProcess) -> float:
    """Return the memory when it has stopped growing: workers load the checkpoint for /explain in the background."""
    earlier = 0.0
    while (now := service.resident_megabytes()) > 1.01 * earlier:
        earlier = now
        time.sleep(8)
    return now


def recover(service: ServiceProcess, streams: int) -> float:
    """Wait until the service has all workers again; return the seconds, or infinity."""
    started = time.monotonic()
    while (seconds := time.monotonic() - started) < SECONDS_TO_RECOVER:
        if service.status("/readyz") == 200 and len(inference_workers(service.process.pid)) >= streams:
            return seconds
        time.sleep(0.5)
    return math.inf


def main() -> int:
    """Measure, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=60, help="duration of the attack")
    parser.add_argument("--same-address", action="store_true", help="attackers use the honest client's address")
    parser.add_argument(
        "--kill-every", type=float, default=5, help="seconds between a worker's replacement and the next kill; 0: none"
    )
    parser.add_argument("--calm", type=float, default=15, help="seconds before the attack, and after it")
    # argparse would give what follows -- to the first of the arguments above.
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options, of_service = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]

    service = ServiceProcess(options.model, *of_service)
    try:
        streams = len(inference_workers(service.process.pid))
        run_honest_client(service.port, "warm-up", 3)
        idle = run_honest_client(service.port, "idle", options.calm)
        before = settled_megabytes(service)
        attacked, replacements = under_attack(service, options.seconds, options.same_address, options.kill_every)
        recovered = recover(service, streams)
        time.sleep(options.calm)
        calm = run_honest_client(service.port, "calm", options.calm)
        after = settled_megabytes(service)
    finally:
        status = service.end()
    print("\n| honest client | p50 | p99 | max | 5xx, lost | responses |\n|---|---|---|---|---|---|")
    print("\n".join(stats.line() for stats in (idle, attacked, calm)))
    growth = after / before - 1
    print(f"\nmemory: {before:.0f} MB before, {after:.0f} MB after ({growth:+.1%}); recovered in {recovered:.1f} s")
    faults = sum(stats.errors() for stats in (idle, attacked, calm))
    slower = max(attacked.p99, calm.p99) - idle.p99
    errors = [line for line in service.logged() if line["level"] in ("error", "critical")]
    bugs = [line for line in errors if not line["event"].startswith("inference worker ")]
    print(f"exit status {status}; errors in the log: {counted(Counter(line['event'] for line in errors))}")
    if bugs:
        print(bugs[0])
    good = not faults and slower <= TOLERATED_DELAY and growth <= TOLERATED_GROWTH and recovered < math.inf
    good = good and math.inf not in replacements
    good = good and status == 0 and not bugs
    print("held" if good else "BROKEN")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
