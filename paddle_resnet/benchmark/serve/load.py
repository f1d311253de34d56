"""Clients that load a service: each keeps its connection and sends the next request after each response.

Built on httptools and bare asyncio protocols, as a usual HTTP client would take more of the cores than the service.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, NamedTuple, cast

import httptools


class Target(NamedTuple):
    """The address of the service."""

    host: str
    port: int


@dataclass
class Load:
    """What the clients measured after the warm-up."""

    seconds: float = 0.0
    latencies: dict[int, list[float]] = field(default_factory=dict)
    """Seconds from sending a request to the end of its response, by the response's status."""
    wrong: int = 0
    cores: float = 0.0  # cores that the clients themselves used, and the service could not
    lost: Counter[str] = field(default_factory=Counter)  # requests without a whole response, by the reason

    @property
    def codes(self) -> Counter[int]:
        return Counter({status: len(times) for status, times in sorted(self.latencies.items())})

    @property
    def successful(self) -> int:
        return len(self.latencies.get(200, []))


@dataclass
class _Run:
    """What the clients share."""

    target: Target
    requests: Sequence[bytes]
    is_correct: Callable[[int, bytes], bool]
    interval: float | None  # seconds between the requests of a client; None for no waiting
    indices: Iterator[int]  # of the next requests, whichever client sends them
    going: bool = True
    load: Load = field(default_factory=Load)


def load_service(
    target: Target,
    requests: Sequence[bytes],
    is_correct: Callable[[int, bytes], bool],
    *,
    clients: int,
    seconds: float,
    warm_up: float = 1.0,
    rate: float | None = None,
) -> Load:
    """Send `requests` again and again from `clients` connections.

    They are whole HTTP/1.1 requests, heads and bodies. Each connection waits for a response before its next request;
    with a `rate`, all clients together offer so many requests per second if responses come in time. `is_correct` checks
    the body of a 200 to the request of an index. It is also called during the `warm_up` seconds before the measurement.

    Raises:
        OSError: the service cannot be reached.
    """
    run = _Run(target, requests, is_correct, None if rate is None else clients / rate, cycle(range(len(requests))))
    loop: Any = importlib.import_module("uvloop" if importlib.util.find_spec("uvloop") else "asyncio")  # not on Windows
    return loop.run(_load(run, clients, seconds, warm_up))


async def _load(run: _Run, clients: int, seconds: float, warm_up: float) -> Load:
    connections = [_Client(run, number / clients) for number in range(clients)]
    await asyncio.gather(*(client.connect() for client in connections))
    await asyncio.sleep(warm_up)
    run.load = Load()
    started, worked = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    run.going = False
    run.load.seconds = time.perf_counter() - started
    run.load.cores = (time.process_time() - worked) / run.load.seconds
    load, run.load = run.load, Load()
    for client in connections:
        client.abort()
    await asyncio.sleep(0)
    return load


class _Client(asyncio.Protocol):
    """One connection, opened again when the service closes it."""

    def __init__(self, run: _Run, phase: float) -> None:
        """Send the first request after the fraction `phase` of the interval, so that the clients spread out."""
        self._run = run
        self._phase = phase
        self._due: float | None = None
        self._transport: asyncio.Transport | None = None
        self._index: int | None = None
        self._sent = 0.0

    async def connect(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, *self._run.target)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._begin()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        """Record the response, for the parser, and begin the next request."""
        now = time.perf_counter()
        status, index = self._parser.get_status_code(), self._index
        body, self._body = b"".join(self._body), []
        self._index = None
        if index is None:
            return
        self._run.load.latencies.setdefault(status, []).append(now - self._sent)
        if status == 200 and not self._run.is_correct(index, body):
            self._run.load.wrong += 1
        if self._parser.should_keep_alive():
            self._begin()
        elif self._transport is not None:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._run.going:
            return
        if self._index is not None:
            self._run.load.lost[type(error).__name__ if error else "closed"] += 1
            self._index = None
        self._reconnecting = asyncio.ensure_future(self._reconnect())

    async def _reconnect(self) -> None:
        while self._run.going:
            try:
                await self.connect()
                return
            except OSError as error:
                self._run.load.lost[type(error).__name__] += 1
                await asyncio.sleep(0.1)

    def _begin(self) -> None:
        """Send the next request when it is due."""
        if not self._run.going:
            return
        if self._run.interval is None:
            self._send()
            return
        now = time.perf_counter()
        self._due = now + self._phase * self._run.interval if self._due is None else self._due + self._run.interval
        if self._due <= now:
            self._due = now  # the response was late; requests that were not sent are not made up for
            self._send()
        else:
            asyncio.get_running_loop().call_later(self._due - now, self._send)

    def _send(self) -> None:
        if self._transport is None or self._transport.is_closing() or not self._run.going:
            return
        self._index = next(self._run.indices)
        self._sent = time.perf_counter()
        self._transport.write(self._run.requests[self._index])
