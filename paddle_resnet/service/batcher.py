"""Dynamic batching: pictures of many requests through one bounded queue to the network's own threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from paddle_resnet.service.refusal import Refusal, busy

Scores = Callable[[np.ndarray], np.ndarray]
USUAL_SPEED = 100.0
"""Images/s that are assumed before any was measured."""


class Work:
    """The pictures of one request on their way; made on the event loop, filled by other threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.answer: asyncio.Future[np.ndarray] = loop.create_future()
        self.over = False
        """Answered, failed or given up: what is still to be done for it need not be done."""
        self.seats = 0
        """Its pictures that are admitted (the batcher's to change)."""
        self._rows: list[np.ndarray] = []
        self._missing = 0

    def expect(self, images: int) -> None:
        """Say how many pictures there are, before the first is put into the queue."""
        self._rows = [np.empty(0)] * images
        self._missing = images

    def take(self, index: int, row: np.ndarray) -> bool:
        """Store a picture's scores (under the batcher's lock); tell whether it was the last one missing."""
        self._rows[index] = row
        self._missing -= 1
        return self._missing == 0

    def fail(self, error: BaseException) -> None:
        """End with an error, from any thread."""
        self.over = True
        self.loop.call_soon_threadsafe(self._settle, error)

    def give_up(self) -> None:
        """End without an answer, as it took too long (on the event loop)."""
        self.over = True
        self._settle(Refusal(504, "timeout", "not answered in time; try again later", retry_after=1))

    def finish(self) -> None:
        """Hand the scores over (on the event loop)."""
        self.over = True
        self._settle(None)

    def _settle(self, error: BaseException | None) -> None:
        if self.answer.done():  # given up meanwhile
            return
        if error is None:
            self.answer.set_result(np.stack(self._rows))
        else:
            self.answer.set_exception(error)


class Item(NamedTuple):
    """One decoded picture, uint8 ``[S, S, 3]``, and since when it waits."""

    work: Work
    place: int
    pixels: np.ndarray
    since: float


class Batcher:
    """The bounded queue, and the threads that empty it batch by batch.

    A batch goes to the network when it is full, or when its first picture has waited `max_wait`. The bound counts a
    picture from its admission (`admit`, before it is decoded) to its answer (`leave`): it bounds what waits anywhere.

    Args:
        scores: uint8 ``[N, S, S, 3]`` to float32 ``[N, classes]``; called by all `streams` threads.
        max_batch: most pictures of a call.
        max_wait: seconds.
        capacity: most pictures admitted.
        streams: how many calls may run at the same time.
        seen: told the size and the seconds of each batch.
    """

    def __init__(
        self,
        scores: Scores,
        *,
        max_batch: int,
        max_wait: float,
        capacity: int,
        streams: int = 1,
        seen: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        self._scores = scores
        self._max_batch = max_batch
        self._max_wait = max_wait
        self._capacity = capacity
        self._seen = seen
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._admitted = 0
        self._speed = USUAL_SPEED
        self._streams = streams
        self._threads = [threading.Thread(target=self._serve, name=f"network-{i}") for i in range(streams)]
        for thread in self._threads:
            thread.start()

    @property
    def admitted(self) -> int:
        """Pictures admitted and not yet answered."""
        return self._admitted

    @property
    def alive(self) -> bool:
        """Whether every network thread is."""
        return all(thread.is_alive() for thread in self._threads)

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
        with self._changed:
            if work.over:  # given up meanwhile: nobody would give the places back
                return
            if work.seats + images > self._capacity:
                raise Refusal(413, "too_many_images", f"at most {self._capacity} pictures can wait; send fewer at once")
            if self._admitted + images > self._capacity:
                raise self._busy()
            self._admitted += images
            work.seats += images

    def leave(self, work: Work) -> None:
        """Give a request's places back; it is over."""
        with self._changed:
            work.over = True
            self._admitted -= work.seats
            work.seats = 0

    def put(self, work: Work, first: int, pictures: Sequence[np.ndarray]) -> None:
        """Queue decoded pictures of a request, of which the first has the index `first`."""
        now = time.monotonic()
        with self._changed:
            self._items.extend(Item(work, first + i, pixels, now) for i, pixels in enumerate(pictures))
            self._changed.notify()

    def close(self) -> None:
        """Answer what is queued, and end the threads."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _busy(self) -> Refusal:
        return busy(self._admitted / self._speed)

    def _serve(self) -> None:
        while batch := self._next_batch():
            self._compute(batch)

    def _next_batch(self) -> list[Item]:
        """Wait for a batch; an empty one is the end."""
        with self._changed:
            while True:
                while not self._items and not self._closing:
                    self._changed.wait()
                while 0 < len(self._items) < self._max_batch and not self._closing:
                    patience = self._items[0].since + self._max_wait - time.monotonic()
                    if patience <= 0:
                        break
                    self._changed.wait(patience)
                batch = self._take()
                if batch or (self._closing and not self._items):
                    # What is left may be another thread's to wait for: `put` has woken only one.
                    if self._items:
                        self._changed.notify()
                    return batch

    def _take(self) -> list[Item]:
        batch: list[Item] = []
        while self._items and len(batch) < self._max_batch:
            item = self._items.popleft()
            if not item.work.over:
                batch.append(item)
        return batch

    def _compute(self, batch: list[Item]) -> None:
        started = time.monotonic()
        try:
            scores = self._scores(np.stack([item.pixels for item in batch]))
        except Exception as error:  # it must reach those who wait, and the thread must live on
            for work in {item.work for item in batch}:
                work.fail(error)
            return
        seconds = time.monotonic() - started
        with self._changed:
            done = [item.work for item, row in zip(batch, scores, strict=True) if item.work.take(item.place, row)]
            self._speed += 0.1 * (self._streams * len(batch) / max(seconds, 1e-6) - self._speed)
        if done:
            done[0].loop.call_soon_threadsafe(_finish_all, done)
        self._seen(len(batch), seconds)


def _finish_all(works: Iterable[Work]) -> None:
    """One wake-up of the event loop for all requests that a batch has completed."""
    for work in works:
        work.finish()
