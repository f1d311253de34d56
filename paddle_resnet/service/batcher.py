"""Dynamic batching: pictures of many requests through one bounded queue to the network, all on the event loop."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, cast

import numpy as np

from paddle_resnet.service.pictures import Verdict, refuse
from paddle_resnet.service.refusal import Refusal, busy

Answer = Callable[[Sequence[bytes]], Awaitable[Sequence["np.ndarray | Verdict"]]]
"""Encoded pictures to the scores of each, float32 ``[classes]``, or why it has none."""
AT_ONCE = 2
"""Batches that a stream is given: while it computes one, the next is there."""
USUAL_SPEED = 100.0
"""Images/s that are assumed before any was measured."""


class Work:
    """The pictures of one request on their way."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self.seats = 0
        """Its pictures that are admitted (the batcher's to change)."""
        self._rows: list[np.ndarray] = []
        self._missing = 0

    @property
    def over(self) -> bool:
        """Answered, failed or given up: what is still to be done for it need not be done."""
        return self.answer.done()

    def expect(self, images: int) -> None:
        """Say how many pictures there are."""
        self._rows = [np.empty(0)] * images
        self._missing = images

    def take(self, index: int, result: np.ndarray | Verdict) -> None:
        """Store what came of a picture; the last one missing, or one that cannot be read, is the answer."""
        if self.over:
            return
        if isinstance(result, Verdict):
            self.fail(refuse(result, index))
            return
        self._rows[index] = result
        self._missing -= 1
        if not self._missing:
            self.answer.set_result(np.stack(self._rows))

    def fail(self, error: BaseException) -> None:
        """End with an error."""
        if not self.over:
            self.answer.set_exception(error)

    def give_up(self) -> None:
        """End without an answer, as it took too long."""
        self.fail(Refusal(504, "timeout", "not answered in time; try again later", retry_after=1))


class Item(NamedTuple):
    """One encoded picture, and since when it waits."""

    work: Work
    place: int
    picture: bytes
    since: float


class Batcher:
    """The bounded queue, and the batches on their way.

    A batch goes to the network when it is full, or when its first picture has waited `max_wait`, and a stream has less
    than `AT_ONCE` of them. The bound counts a picture from its admission (`admit`) to its answer (`leave`).

    Args:
        answer: called for up to `AT_ONCE` batches for each stream at the same time.
        max_batch: most pictures of a call.
        max_wait: seconds.
        capacity: most pictures admitted.
        streams: how many calls are computed at the same time.
        seen: told the size and the seconds of each batch.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        max_batch: int,
        max_wait: float,
        capacity: int,
        streams: int = 1,
        seen: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        self._answer = answer
        self._max_batch = max_batch
        self._max_wait = max_wait
        self._capacity = capacity
        self._seen = seen
        self._items: deque[Item] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._admitted = 0
        self._speed = USUAL_SPEED
        self._streams = streams

    @property
    def admitted(self) -> int:
        """Pictures admitted and not yet answered."""
        return self._admitted

    def check_room(self) -> None:
        """Refuse a request early, before its body is read, while the queue is full.

        Raises:
            Refusal: 429.
        """
        if self._admitted >= self._capacity:
            raise self._busy()

    def admit(self, work: Work, images: int) -> None:
        """Admit so many more pictures of a request.

        Raises:
            Refusal: 429, there is no room for all of them; 413, there never will be.
        """
        if work.seats + images > self._capacity:
            raise Refusal(413, "too_many_images", f"at most {self._capacity} pictures can wait; send fewer at once")
        if self._admitted + images > self._capacity:
            raise self._busy()
        self._admitted += images
        work.seats += images

    def leave(self, work: Work) -> None:
        """Give a request's places back; it is over."""
        if not work.answer.cancel() and not work.answer.cancelled():
            work.answer.exception()  # or asyncio complains that nobody has asked
        self._admitted -= work.seats
        work.seats = 0

    def put(self, work: Work, pictures: Sequence[bytes]) -> None:
        """Queue the pictures of a request, which are admitted."""
        work.expect(len(pictures))
        now = time.monotonic()  # uvloop's own clock counts whole milliseconds
        self._items.extend(Item(work, place, picture, now) for place, picture in enumerate(pictures))
        self._start_batches()

    async def close(self) -> None:
        """Answer what is queued."""
        self._max_wait = 0.0
        self._start_batches()
        while self._running:
            await asyncio.wait(self._running)

    def _busy(self) -> Refusal:
        return busy(self._admitted / self._speed)

    def _start_batches(self) -> None:
        """Start what is due, as far as streams are free."""
        while self._items and len(self._running) < AT_ONCE * self._streams and self._is_due():
            if batch := self._take():
                self._running.add(asyncio.get_running_loop().create_task(self._compute(batch)))

    def _is_due(self) -> bool:
        """Whether a batch is full or has waited; if not, it will be looked at again."""
        if len(self._items) >= self._max_batch:
            return True
        patience = self._items[0].since + self._max_wait - time.monotonic()
        if patience <= 0:
            return True
        if self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_later(patience, self._look_again)
        return False

    def _look_again(self) -> None:
        self._alarm = None
        self._start_batches()

    def _take(self) -> list[Item]:
        """The next batch: its share of what waits.

        Of idle streams each gets as much as the others. What is left is enough for another batch of a quarter of the
        largest for each, or they would all wait for the next requests when they have answered these.
        """
        waiting, streams = len(self._items), self._streams
        idle = max(1, streams - len(self._running))
        free = AT_ONCE * streams - len(self._running)
        size = min(self._max_batch, _share(waiting, idle), max(self._max_batch // 4, _share(waiting, free)))
        batch: list[Item] = []
        while self._items and len(batch) < size:
            item = self._items.popleft()
            if not item.work.over:
                batch.append(item)
        return batch

    async def _compute(self, batch: list[Item]) -> None:
        started = time.monotonic()
        try:
            results = await self._answer([item.picture for item in batch])
        except Exception as error:  # it must reach those who wait, and the batcher must live on
            for work in {item.work for item in batch}:
                work.fail(error)
            return
        finally:
            # The next batch goes to the network first, then the answers to this one to their senders.
            self._running.discard(cast("asyncio.Task[None]", asyncio.current_task()))
            self._start_batches()
        seconds = time.monotonic() - started
        for item, result in zip(batch, results, strict=True):
            item.work.take(item.place, result)
        self._speed += 0.1 * (self._streams * len(batch) / max(seconds, 1e-6) - self._speed)
        self._seen(len(batch), seconds)


def _share(number: int, among: int) -> int:
    return -(-number // among)
