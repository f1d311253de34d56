"""A service under load: throughput against the predictor's own, wrong predictions, memory, overload, and SIGTERM.

Not part of the suite: it takes minutes, and its numbers depend on the machine. The exit status is 1 if the service lost
a response, gave a wrong one, failed, or grew by 5% or more after the warm-up; a line then says which. Throughput is
only printed. With `--reload-every` the model is loaded anew all the time.

    python tests/soak/service_soak.py output/quickstart
    python tests/soak/service_soak.py output/quickstart --images 8 --seconds 60 -- --streams 1   (options of serve)
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

import paddle_resnet  # noqa: F401, I001  (prepares the process before paddle is imported)
import numpy as np

from paddle_resnet.benchmark.serve.load import Load, Target, load_service
from paddle_resnet.benchmark.serve.report import ResponseChecker, http_requests, read_pictures, synthetic_pictures
from service_fuzz import resident_megabytes

PROJECT = Path(__file__).resolve().parents[2]
TOLERATED_GROWTH = 0.05
EXPECTED_CODES = {200, 429}
PREDICTOR_SECONDS = 5.0
SECONDS_TO_START = 300


class ServiceProcess:
    """tools/serve.py in a process, on a free port."""

    def __init__(self, model: Path, *options: str, python: str = sys.executable) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = [python, str(PROJECT / "tools" / "serve.py"), str(model), "--port", str(self.port), *options]
        # A file: reading a pipe would take time of the cores, and an unread pipe would stop the service.
        self._log = tempfile.TemporaryFile("a+")  # noqa: SIM115 (open as long as this object)
        self.process = subprocess.Popen(command, stderr=self._log, cwd=PROJECT)
        started = time.monotonic()
        deadline = started + SECONDS_TO_START
        while self.status("/readyz") != 200:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise RuntimeError("the service did not start: " + "".join(self._lines()))
            time.sleep(0.1)
        self.seconds_to_ready = time.monotonic() - started

    def _lines(self) -> list[str]:
        self._log.seek(0)
        return self._log.readlines()

    def status(self, path: str) -> int:
        """Return the status of a GET; 0 if there is no response."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def resident_megabytes(self) -> float:
        """Return the memory of the process and its workers."""
        return resident_megabytes(self.process.pid)

    def processor_seconds(self) -> np.ndarray:
        """Return the processor time of the service itself and of its inference workers (with one service worker)."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return np.array([_processor_seconds(pid), sum(map(_processor_seconds, children))])

    def end(self, timeout: float = 60, number: int = signal.SIGTERM) -> int:
        """Send a signal; return the exit status."""
        self.process.send_signal(number)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def logged(self) -> list[dict]:
        """Return the log lines."""
        return [json.loads(line) for line in self._lines() if line.startswith("{") and line.endswith("}\n")]

    def reload_every(self, seconds: float, end: threading.Event) -> None:
        """Send SIGHUP every so many seconds."""
        while not end.wait(seconds):
            self.process.send_signal(signal.SIGHUP)


def _processor_seconds(pid: int | str) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def send_until_closed(port: int, number: int, request: bytes, answered: dict[str, int], cut: dict[str, str]) -> None:
    """Send one request after the other until the port is closed; store how each ended, by its id.

    A request without a byte of a response was perhaps not accepted: the service's log says whether it was.
    """
    count = 0
    while True:
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            while True:
                name = f"client{number}-{count}"
                count += 1
                cut[name] = "no response"
                connection.sendall(request.replace(b"\r\n\r\n", b"\r\nX-Request-ID: %s\r\n\r\n" % name.encode(), 1))
                received = b""
                while not _whole(received):
                    data = connection.recv(65536)
                    if not data:
                        break
                    received += data
                    cut[name] = "half a response"
                if not _whole(received):
                    break
                answered[name] = int(received.split(b" ", 2)[1])
                del cut[name]
                if b"connection: close" in received:
                    break


def _whole(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return False
    (length,) = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return len(body) >= int(length.split(b":")[1])


def end_under_load(service: ServiceProcess, request: bytes, clients: int, seconds: float) -> dict[str, object]:
    """Stop a service under load; return what became of the requests that it accepted."""
    answered: dict[str, int] = {}
    cut: dict[str, str] = {}
    with ThreadPoolExecutor(clients) as threads:
        for number in range(clients):
            threads.submit(send_until_closed, service.port, number, request, answered, cut)
        time.sleep(seconds)
        for _ in range(600):  # on a loaded machine, until each client has had more than a response
            if len(answered) > clients:
                break
            time.sleep(0.1)
        status = service.end()
    accepted = {line["request_id"] for line in service.logged() if line["event"] == "request"}
    ours = {name for name in accepted if name.startswith("client")}
    return {
        "exit status": status,
        "accepted": len(ours),
        "answered": dict(Counter(answered.values())),
        "accepted and lost": len(ours - answered.keys()),
        "never accepted": sum(name not in accepted for name in cut),
    }


def predictor_throughput(model: Path, threads: int, batch: int, **choice: str) -> float:
    """Return images/s of the predictor alone, called with whole batches from one thread."""
    from paddle_resnet.inference import Predictor

    with Predictor(model, device="cpu", threads=threads, batch_size=batch, **choice) as predictor:
        size = predictor.config.input.image_size
        pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
        for _ in range(5):
            predictor.scores(pixels)
        started, images = time.perf_counter(), 0
        while (seconds := time.perf_counter() - started) < PREDICTOR_SECONDS:
            predictor.scores(pixels)
            images += batch
        return images / seconds


def describe(load: Load, images: int) -> str:
    """Return a load as one line."""
    times = np.sort(load.latencies.get(200, [0.0])) * 1000
    p50, p95, p99 = (times[int(share * (len(times) - 1))] for share in (0.5, 0.95, 0.99))
    speed = images * load.successful / load.seconds
    return (
        f"{speed:.0f} images/s, p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms, "
        f"the clients took {load.cores:.2f} cores, answers {load.codes}, wrong {load.wrong}, lost {dict(load.lost)}"
    )


def failures_of(load: Load, what: str) -> list[str]:
    """Return what was wrong with the responses under a load, a line each."""
    failures = [f"{what}: {load.wrong} wrong predictions"] if load.wrong else []
    if others := {code: count for code, count in load.codes.items() if code not in EXPECTED_CODES}:
        failures.append(f"{what}: responses by status: {others}")
    return failures


def main() -> int:
    """Measure, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--backend", help="of the service and of the predictor alone; default: the faster one")
    parser.add_argument("--precision", help="of both; default: fp32")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--images", type=int, nargs="+", default=[1, 8], help="pictures in a request")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--warm-up", type=float, default=5)
    parser.add_argument("--overload", type=float, default=4, help="times what it answers, in requests offered; 0: none")
    parser.add_argument("--overload-seconds", type=float, default=10)
    parser.add_argument("--reload-every", type=float, default=0, help="seconds between two SIGHUPs under load; 0: none")
    parser.add_argument("--pictures", type=Path, help="a folder of them; default: drawn, of the model's size")
    parser.add_argument("--threads", type=int, default=2, help="of the predictor alone")
    # argparse would give what follows -- to the first of the arguments above.
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options, of_service = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]
    choice = {name: value for name in ("backend", "precision") if (value := getattr(options, name))}
    chosen = [part for name, value in choice.items() for part in (f"--{name}", value)]

    own = predictor_throughput(options.model, options.threads, 32, **choice)
    print(f"the predictor alone, batch 32, {options.threads} threads: {own:.0f} images/s", flush=True)
    service = ServiceProcess(options.model, *chosen, *of_service)
    print(f"ready {service.seconds_to_ready:.1f} s after its start")
    with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/model") as answer:
        size = json.load(answer)["image_size"]
    pictures = read_pictures(options.pictures) if options.pictures else synthetic_pictures(size)
    target, failures = Target("127.0.0.1", service.port), list[str]()
    for images in options.images:
        requests, checker = http_requests(target, pictures, images), ResponseChecker()

        def load(seconds: float, clients: int, rate: float | None = None, requests=requests, checker=checker) -> Load:
            return load_service(
                target, requests, checker.is_consistent, clients=clients, seconds=seconds, warm_up=0.0, rate=rate
            )

        load(options.warm_up, options.clients)
        time.sleep(1)  # for the requests of the warm-up that are under way
        before, taken = service.resident_megabytes(), service.processor_seconds()
        end, reloads = threading.Event(), ThreadPoolExecutor(1)
        if options.reload_every:
            reloads.submit(service.reload_every, options.reload_every, end)
        seen = load(options.seconds, options.clients)
        end.set()
        taken = (service.processor_seconds() - taken) / max(1, seen.successful)
        growth = service.resident_megabytes() / before - 1
        speed = images * seen.successful / seen.seconds
        print(f"{options.clients} clients, {images} a request, {seen.seconds:.0f} s: {describe(seen, images)}")
        print(f"  {speed / own:.1%} of the predictor alone; {before:.0f} MB, growth {growth:+.1%}", flush=True)
        shares = (*taken, seen.cores * seen.seconds / max(1, seen.successful))
        service_us, workers_us, clients_us = (round(1e6 * share) for share in shares)
        print(f"  us of a request: service {service_us}, inference workers {workers_us}, clients {clients_us}")
        failures += failures_of(seen, f"{images} a request")
        if seen.lost:
            failures.append(f"{images} a request: responses lost: {dict(seen.lost)}")
        if growth >= TOLERATED_GROWTH:
            failures.append(f"{images} a request: memory grew by {growth:.1%}, at most {TOLERATED_GROWTH:.0%} expected")
        if options.overload:
            rate = options.overload * speed / images
            seen = load(options.overload_seconds, 16 * options.clients, rate)
            offered = f"{rate:.0f} requests/s offered by {16 * options.clients} clients"
            print(f"  overload, {offered}: {describe(seen, images)}", flush=True)
            failures += failures_of(seen, f"{images} a request, overload")
    if options.reload_every:
        print("reloaded under load:", [line["event"] for line in service.logged()].count("reloaded"))
    ended = end_under_load(service, requests[0], options.clients, 2)
    print("SIGTERM under load:", ended)
    if ended["exit status"] != 0 or ended["accepted and lost"] or not ended["answered"].keys() <= EXPECTED_CODES:
        failures.append(f"SIGTERM under load: {ended}")
    for failure in failures:
        print("failed:", failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
