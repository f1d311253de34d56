"""The other end of a service: clients that keep their connections and ask again as soon as they are answered.

Written upon httptools and bare asyncio protocols: a usual HTTP client would take more of the cores than the service.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import httptools
import uvloop


class Target(NamedTuple):
    """Where the service listens."""

    host: str
    port: int


@dataclass
class Load:
    """What the clients saw, from the end of the warm-up on."""

    seconds: float = 0.0
    latencies: dict[int, list[float]] = field(default_factory=dict)
    """Seconds from sending a request to the end of its answer, by the answer's status."""
    wrong: int = 0
    cores: float = 0.0
    """How many cores the clients themselves kept busy: those are not the service's."""
    lost: Counter[str] = field(default_factory=Counter)
    """Requests that got no whole answer, by the reason."""

    @property
    def codes(self) -> dict[int, int]:
        """How many answers of each status."""
        return {status: len(times) for status, times in sorted(self.latencies.items())}

    @property
    def answered(self) -> int:
        """How many answers were 200."""
        return len(self.latencies.get(200, []))


def load_service(
    target: Target,
    requests: Sequence[bytes],
    is_right: Callable[[int, bytes], bool],
    *,
    clients: int,
    seconds: float,
    warm_up: float = 1.0,
    rate: float | None = None,
) -> Load:
    """Send `requests` again and again from `clients` connections for `seconds` after the warm-up.

    Args:
        target: the service.
        requests: whole HTTP/1.1 requests, heads and bodies.
        is_right: judges the body of a 200 to the request of an index; called during the warm-up too.
        clients: connections; each has one request on its way.
        seconds: that are counted.
        warm_up: seconds before them.
        rate: requests per second offered by all clients together, as far as they get answers in time; None: as many as
            are answered.

    Raises:
        OSError: the service cannot be reached at all.
    """
    return uvloop.run(_load(target, requests, is_right, clients, seconds, warm_up, rate))


async def _load(
    target: Target,
    requests: Sequence[bytes],
    is_right: Callable[[int, bytes], bool],
    clients: int,
    seconds: float,
    warm_up: float,
    rate: float | None,
) -> Load:
    run = _Run(target, requests, is_right, None if rate is None else clients / rate)
    connections = [_Client(run, number, clients) for number in range(clients)]
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
        client.leave()
    await asyncio.sleep(0)
    return load


class _Run:
    """What the clients share."""

    def __init__(
        self,
        target: Target,
        requests: Sequence[bytes],
        is_right: Callable[[int, bytes], bool],
        interval: float | None,
    ) -> None:
        self.target = target
        self.requests = requests
        self.is_right = is_right
        self.interval = interval
        self.going = True
        self.load = Load()
        self._next = 0

    def next_index(self) -> int:
        """Requests go round, over all clients."""
        self._next = (self._next + 1) % len(self.requests)
        return self._next


class _Client(asyncio.Protocol):
    """One connection; a new one where the service has closed it."""

    def __init__(self, run: _Run, number: int, clients: int) -> None:
        self._run = run
        self._share = number / clients
        self._due: float | None = None
        self._transport: asyncio.Transport | None = None
        self._index: int | None = None
        self._sent = 0.0

    async def connect(self) -> None:
        """Open the connection, and begin."""
        await asyncio.get_running_loop().create_connection(lambda: self, *self._run.target)

    def leave(self) -> None:
        """Close the connection, whatever is on its way."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._begin()

    def data_received(self, data: bytes) -> None:
        """Read on; the parser calls what follows."""
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        """A piece of the answer."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """The answer is whole: note it, and ask again."""
        now = time.perf_counter()
        status, index = self._parser.get_status_code(), self._index
        body, self._body = b"".join(self._body), []
        self._index = None
        if index is None:
            return
        self._run.load.latencies.setdefault(status, []).append(now - self._sent)
        if status == 200 and not self._run.is_right(index, body):
            self._run.load.wrong += 1
        if self._parser.should_keep_alive():
            self._begin()
        elif self._transport is not None:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Note a request that was on its way, and connect again."""
        if not self._run.going:
            return
        if self._index is not None:
            self._run.load.lost[type(error).__name__ if error else "closed"] += 1
            self._index = None
        self._again = asyncio.ensure_future(self._connect_again())

    async def _connect_again(self) -> None:
        while self._run.going:
            try:
                await self.connect()
                return
            except OSError as error:
                self._run.load.lost[type(error).__name__] += 1
                await asyncio.sleep(0.1)

    def _begin(self) -> None:
        """Send the next request, when it is due."""
        if not self._run.going:
            return
        if self._run.interval is None:
            self._send()
            return
        now = time.perf_counter()
        self._due = now + self._share * self._run.interval if self._due is None else self._due + self._run.interval
        if self._due <= now:
            self._due = now  # late, as the answers are: what was not sent is not made up for
            self._send()
        else:
            asyncio.get_running_loop().call_later(self._due - now, self._send)

    def _send(self) -> None:
        if self._transport is None or self._transport.is_closing() or not self._run.going:
            return
        self._index = self._run.next_index()
        self._sent = time.perf_counter()
        self._transport.write(self._run.requests[self._index])
