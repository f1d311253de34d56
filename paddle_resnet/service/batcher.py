"""Dynamic batching: pictures of many requests through one bounded queue to the network, all on the event loop."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from paddle_resnet.service.errors import Refusal, busy
from paddle_resnet.service.fair_queue import ClientBudgets, FairQueue
from paddle_resnet.service.pictures import Result, Verdict, refuse

Answer = Callable[[Sequence[bytes], bool], Awaitable[Sequence[Result]]]
"""Encoded pictures to what comes of each. True: it is one that may take long, and its pixels are wanted too."""
AT_ONCE = 2
"""Batches that a stream is given: while it computes one, the next is there."""
USUAL_SPEED = 100.0
"""Images/s that are assumed before any was measured."""
CLIENTS_SHARE = 0.5
"""Of a core: what a client's costly pictures may take for long."""
MOST_DEATHS = 2
"""Processes that may die of a picture before it is refused."""


class WorkerDied(Exception):  # noqa: N818
    """The process that had a batch is gone; `computing` says whether it was at work on it."""

    def __init__(self, computing: bool) -> None:
        super().__init__()
        self.computing = computing


class Work:
    """The pictures of one request on their way. `alone`: each by itself, and its pixels are wanted."""

    def __init__(self, client: str = "", *, alone: bool = False) -> None:
        self.answer: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self.client = client
        self.alone = alone
        self.seats = 0
        """Its pictures that are admitted (the batcher's to change)."""
        self.seconds = 0.0
        """What decoding its costly pictures is expected to take (the batcher's to change)."""
        self.pixels: list[np.ndarray | None] = []
        self._rows: list[np.ndarray] = []
        self._missing = 0

    @property
    def over(self) -> bool:
        """Answered, failed or given up: what is still to be done for it need not be done."""
        return self.answer.done()

    def expect(self, images: int) -> None:
        """Say how many pictures there are."""
        self._rows = [np.empty(0)] * images
        self.pixels = [None] * images
        self._missing = images

    def take(self, index: int, result: Result) -> None:
        """Store what came of a picture; the last one missing, or one that cannot be read, is the answer."""
        if self.over:
            return
        if result.scores is None:
            self.fail(refuse(result.verdict, index))
            return
        self._rows[index], self.pixels[index] = result.scores, result.pixels
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


@dataclass(eq=False, slots=True)
class Item:
    """One encoded picture, since when it waits, and how many processes have died with it in their hands."""

    work: Work
    place: int
    picture: bytes
    since: float
    deaths: int = 0


class Batcher:
    """The bounded queue, and the batches on their way.

    A batch goes to the network when it is full, or when its first picture has waited `max_wait`, and a stream has less
    than `AT_ONCE` of them. The bound counts a picture from its admission (`admit`) to its answer (`leave`).

    Clients take turns. A picture that turns out to be costly goes to a second queue, of which each picture is
    computed by itself, never by all streams at once, and in turns with the batches: what is cheap waits for one
    costly picture at most. Nothing waits in the network: what is over is dropped while it is here.

    Args:
        answer: called for up to `AT_ONCE` batches for each stream at the same time.
        max_batch: most pictures of a call.
        max_wait: seconds.
        capacity: most pictures admitted.
        streams: how many calls are computed at the same time, at the moment.
        request_seconds: most that decoding the costly pictures of a request is expected to take.
        budgets: the same for each client.
        seen: told the size and the seconds of each batch.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        max_batch: int,
        max_wait: float,
        capacity: int,
        streams: Callable[[], int] = lambda: 1,
        request_seconds: float = 10.0,
        budgets: ClientBudgets | None = None,
        seen: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        self._answer = answer
        self._max_batch = max_batch
        self._max_wait = max_wait
        self._capacity = capacity
        self._seen = seen
        self._light: FairQueue[Item] = FairQueue()
        self._costly: FairQueue[Item] = FairQueue()
        self._running: dict[asyncio.Task[None], bool] = {}
        self._last_was_costly = False
        self._alarm: asyncio.TimerHandle | None = None
        self._works: dict[Work, None] = {}
        self._seats: Counter[str] = Counter()
        self._admitted = 0
        self._speed = USUAL_SPEED
        self._streams = streams
        self._request_seconds = request_seconds
        self._budgets = budgets or ClientBudgets(2 * request_seconds, CLIENTS_SHARE)

    @property
    def admitted(self) -> int:
        """Pictures admitted and not yet answered."""
        return self._admitted

    def check_room(self, client: str = "") -> None:
        """Refuse a request early, before its body is read, while the queue is full and none would make room for it.

        Raises:
            Refusal: 429.
        """
        if self._admitted >= self._capacity and self._largest(client, 1) is None:
            raise self._busy()

    def admit(self, work: Work, images: int) -> None:
        """Admit so many more pictures of a request.

        In a full queue the client with the most pictures makes room: its last request is refused. Where that is this
        client, its largest request is, if that is larger than this one.

        Raises:
            Refusal: 429, there is no room for all of them; 413, there never will be.
        """
        if work.over:
            return
        if work.seats + images > self._capacity:
            raise Refusal(413, "too_many_images", f"at most {self._capacity} pictures can wait; send fewer at once")
        while self._admitted + images > self._capacity:
            largest = self._largest(work.client, work.seats + images)
            if largest is None:
                raise self._busy()
            largest.fail(self._busy())
            self._release(largest)
        self._admitted += images
        work.seats += images
        self._seats[work.client] += images
        self._works[work] = None

    def leave(self, work: Work) -> None:
        """Give a request's places back; it is over, and so is what waits of it."""
        if not work.answer.cancel() and not work.answer.cancelled():
            work.answer.exception()  # or asyncio complains that nobody has asked
        self._release(work)

    def put(self, work: Work, pictures: Sequence[bytes]) -> None:
        """Queue the pictures of a request, which are admitted."""
        work.expect(len(pictures))
        if work.over:
            return
        now = time.monotonic()  # uvloop's own clock counts whole milliseconds
        queue = self._costly if work.alone else self._light
        for place, picture in enumerate(pictures):
            queue.put(Item(work, place, picture, now))
        self.start_batches()

    async def close(self) -> None:
        """Answer what is queued."""
        self._max_wait = 0.0
        self.start_batches()
        while self._running:
            await asyncio.wait(self._running)

    def _largest(self, client: str, images: int) -> Work | None:
        """The request that makes room for so many more pictures of `client`; None where none has more."""
        largest, seats = max(self._seats.items(), key=lambda each: each[1], default=(client, 0))
        newest_first = [work for work in reversed(self._works) if work.client == largest]
        if largest != client and seats > self._seats[client] + images:
            return newest_first[0]
        if largest == client and newest_first:
            work = max(newest_first, key=lambda each: each.seats)
            return work if work.seats > images else None
        return None

    def _release(self, work: Work) -> None:
        self._light.drop(work)
        self._costly.drop(work)
        self._works.pop(work, None)
        self._admitted -= work.seats
        self._seats[work.client] -= work.seats
        work.seats = 0
        if not self._seats[work.client]:
            del self._seats[work.client]

    def _busy(self) -> Refusal:
        return busy(self._admitted / self._speed)

    def start_batches(self) -> None:
        """Start what is due, as far as streams are free."""
        while batch := self._next():
            costly = self._last_was_costly
            self._running[asyncio.get_running_loop().create_task(self._compute(batch, costly))] = costly

    def _next(self) -> list[Item]:
        """What to start now; nothing where nothing waits, or no stream is free for it."""
        streams, costly = self._streams(), sum(self._running.values())
        free = AT_ONCE * (streams - costly if streams > 1 else streams) - (len(self._running) - costly)
        light_may = free > 0 and len(self._light) > 0 and self._is_due()
        if self._costly and costly < min(streams, max(1, streams - 1)) and not (light_may and self._last_was_costly):
            self._last_was_costly = True
            return _wanted(self._costly, 1)
        if not light_may:
            return []
        self._last_was_costly = False
        return self._take(streams, free)

    def _is_due(self) -> bool:
        """Whether a batch is full or has waited; if not, it will be looked at again."""
        if len(self._light) >= self._max_batch:
            return True
        patience = self._light.peek().since + self._max_wait - time.monotonic()
        if patience <= 0:
            return True
        if self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_later(patience, self._look_again)
        return False

    def _look_again(self) -> None:
        self._alarm = None
        self.start_batches()

    def _take(self, streams: int, free: int) -> list[Item]:
        """The next batch: its share of what waits.

        Of idle streams each gets as much as the others. What is left is enough for another batch of a quarter of the
        largest for each, or they would all wait for the next requests when they have answered these.
        """
        waiting = len(self._light)
        idle = max(1, streams - len(self._running))
        size = min(self._max_batch, _share(waiting, idle), max(self._max_batch // 4, _share(waiting, free)))
        return _wanted(self._light, size)

    async def _compute(self, batch: list[Item], costly: bool) -> None:
        started = time.monotonic()
        try:
            results = await self._answer([item.picture for item in batch], costly)
        except WorkerDied as died:
            self._again(batch, costly, died)
            return
        except Exception as error:  # it must reach those who wait, and the batcher must live on
            for work in {item.work for item in batch}:
                work.fail(error)
            return
        finally:
            # The next batch goes to the network first, then the answers to this one to their senders.
            self._running.pop(cast("asyncio.Task[None]", asyncio.current_task()), None)
            self.start_batches()
        seconds = time.monotonic() - started
        # The last first, so that what was not begun is queued in its order.
        ended = [*zip(batch, results, strict=True)][::-1]
        answered = [self._hand_on(item, result) for item, result in ended].count(True)
        if answered < len(batch):
            self.start_batches()
        if answered:
            if not costly:
                self._speed += 0.1 * (self._streams() * answered / max(seconds, 1e-6) - self._speed)
            self._seen(answered, seconds)

    def _hand_on(self, item: Item, result: Result) -> bool:
        """Give a request what came of its picture, or queue the picture again; True if it was answered."""
        work = item.work
        if result.verdict not in (Verdict.COSTLY, Verdict.LATER):
            work.take(item.place, result)
            return True
        if result.verdict is Verdict.COSTLY:
            work.seconds += result.seconds
            if work.seconds > self._request_seconds:
                message = "all pictures of this request take too long to decode; send fewer, or smaller ones"
                work.fail(Refusal(413, "slow_request", message))
            elif wait := 0.0 if work.over else self._budgets.take(work.client, result.seconds):
                work.fail(busy(wait))
        if not work.over:
            self._put_back(item, costly=result.verdict is Verdict.COSTLY, first=result.verdict is Verdict.LATER)
        return False

    def _again(self, batch: list[Item], costly: bool, died: WorkerDied) -> None:
        """Queue again what a dead process had in its hands: what it was computing by itself, once."""
        for item in reversed(batch):
            item.deaths += died.computing
            if item.deaths >= MOST_DEATHS:
                message = f"two processes ended while they computed picture {item.place}; do not send it again"
                item.work.fail(Refusal(422, "deadly_image", message, image=item.place))
            elif not item.work.over:
                self._put_back(item, costly=costly or died.computing, first=True)
        self.start_batches()

    def _put_back(self, item: Item, *, costly: bool, first: bool) -> None:
        (self._costly if costly else self._light).put(item, first=first)


def _wanted(queue: FairQueue[Item], most: int) -> list[Item]:
    """Take the next items whose requests are not over."""
    items: list[Item] = []
    while queue and len(items) < most:
        if not (item := queue.pop()).work.over:
            items.append(item)
    return items


def _share(number: int, among: int) -> int:
    return -(-number // among)
