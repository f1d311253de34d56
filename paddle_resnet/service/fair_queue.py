"""Who is next: pictures of many requests of many clients, and how much of the decoding a client may take."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

MOST_CLIENTS = 1000
"""Whose budgets are kept before those that are full again are forgotten."""


class Owned(Protocol):
    """A request."""

    @property
    def client(self) -> str:
        """Who sent it."""
        ...


class Queued(Protocol):
    """A picture of a request."""

    @property
    def work(self) -> Owned:
        """The request."""
        ...


Item = TypeVar("Item", bound=Queued)


class FairQueue(Generic[Item]):
    """Takes turns between clients, and between the requests of a client; a request's own pictures keep their order."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, OrderedDict[Owned, deque[Item]]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, item: Item, *, first: bool = False) -> None:
        """Queue an item; as the `first` of all if it has had its turn already."""
        client = item.work.client
        items = self._clients.setdefault(client, OrderedDict()).setdefault(item.work, deque())
        self._length += 1
        if first:
            items.appendleft(item)
            self._clients.move_to_end(client, last=False)
            self._clients[client].move_to_end(item.work, last=False)
        else:
            items.append(item)

    def peek(self) -> Item:
        """The next item."""
        return next(iter(next(iter(self._clients.values())).values()))[0]

    def pop(self) -> Item:
        """Take the next item."""
        item = self.peek()
        client, work = item.work.client, item.work
        works = self._clients[client]
        works[work].popleft()
        self._length -= 1
        works.move_to_end(work)
        self._clients.move_to_end(client)
        if not works[work]:
            self.drop(work)
        return item

    def drop(self, work: Owned) -> None:
        """Forget a request."""
        works = self._clients.get(work.client, OrderedDict())
        self._length -= len(works.pop(work, ()))
        if not works:
            self._clients.pop(work.client, None)


class ClientBudgets:
    """Seconds of decoding that each client may still take at once; they come back with time.

    Args:
        seconds: at most.
        share: how many come back in a second.
        clock: tells the time, in seconds.
    """

    def __init__(self, seconds: float, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._share = share
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, client: str, seconds: float) -> float:
        """Take so many; return 0, or how long to wait until they are there."""
        now = self._clock()
        left = self._now(client, now)
        if left < min(seconds, self._seconds):
            return (min(seconds, self._seconds) - left) / self._share
        if len(self._left) >= MOST_CLIENTS:
            self._left = {each: kept for each, kept in self._left.items() if self._now(each, now) < self._seconds}
        self._left[client] = (left - seconds, now)
        return 0.0

    def _now(self, client: str, now: float) -> float:
        left, since = self._left.get(client, (self._seconds, now))
        return min(self._seconds, left + self._share * (now - since))
