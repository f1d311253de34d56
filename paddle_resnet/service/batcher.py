"""Dynamic batching: images of many requests go through one bounded queue to the inference workers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

from paddle_resnet.service.errors import ServiceError, busy_error
from paddle_resnet.service.metrics import Metrics
from paddle_resnet.service.request_queue import DecodeBudgets, FairQueue, PendingRequest, QueuedImage
from paddle_resnet.service.settings import Settings
from paddle_resnet.service.worker_process import ImageResult, ImageStatus

RunBatch = Callable[[Sequence[bytes], bool], Awaitable[Sequence[ImageResult]]]
"""Encoded images to the result of each. True: it is one costly image, and its pixels are wanted."""
BATCHES_PER_WORKER = 2
"""While a worker computes one batch, the next one is already there."""
ASSUMED_SPEED = 100.0
"""Images/s before the first batch is measured."""
DECODE_SHARE = 0.5
"""Cores that a client's costly images may take in the long run."""
MAX_CRASHES = 2
"""Workers that may die of an image before it is refused."""


class WorkerDied(Exception):  # noqa: N818 (the name says what happened)
    """The worker that had a batch is gone; `computing` says whether it had begun it."""

    def __init__(self, computing: bool) -> None:
        super().__init__()
        self.computing = computing


class Batcher:
    """The bounded queue, and the batches that are being computed. All on the event loop.

    A batch starts when it is full, or when its first image has waited `max_wait`, and a worker has less than
    `BATCHES_PER_WORKER`. An image counts against `queue` from `admit` to `release`.

    Clients take turns. An image that turns out to be costly goes to a second queue: each of its images runs by itself,
    never on all workers at once, and in turns with the batches. So a cheap image waits for at most one costly image.
    Workers hold no backlog: the images of a request that is done are dropped while they are still here.

    Args:
        run_batch: called for up to `BATCHES_PER_WORKER` batches per worker at the same time.
        settings: size of a batch, waiting time, capacity, and the decoding time of costly images.
        workers: returns how many workers are ready now.
        metrics: of the queue and the batches.
    """

    def __init__(self, run_batch: RunBatch, settings: Settings, workers: Callable[[], int], metrics: Metrics) -> None:
        self._run_batch = run_batch
        self._settings = settings
        self._max_wait = settings.max_wait
        self._budgets = DecodeBudgets(settings.client_decode_seconds, DECODE_SHARE)
        self._workers = workers
        self._metrics = metrics
        self._cheap = FairQueue()
        self._costly = FairQueue()
        self._running: dict[asyncio.Task[None], bool] = {}
        """Batches under way, and whether each is a costly image."""
        self._last_was_costly = False
        self._timer: asyncio.TimerHandle | None = None
        self._requests: dict[PendingRequest, None] = {}
        """Admitted requests, the oldest first."""
        self._admitted_of: Counter[str] = Counter()
        """Admitted images of each client."""
        self.admitted = 0
        """Images admitted and not yet answered."""
        self._images_per_second = ASSUMED_SPEED

    def check_capacity(self, client: str = "") -> None:
        """Refuse a request before its body is read, while the queue is full and none would be dropped for it.

        Raises:
            ServiceError: 429.
        """
        if self.admitted >= self._settings.queue and self._request_to_evict(client, 1) is None:
            raise self._busy()

    def admit(self, request: PendingRequest, images: int) -> None:
        """Admit so many more images of a request.

        When the queue is full, the newest request of the client with the most images is refused in its place. If that
        is this client, its largest request is, provided that it is larger than this one.

        Raises:
            ServiceError: 429, the queue cannot take all of them now; 413, it never can.
        """
        if request.done:
            return
        if request.admitted + images > self._settings.queue:
            message = f"at most {self._settings.queue} images can wait; send fewer at once"
            raise ServiceError(413, "too_many_images", message)
        while self.admitted + images > self._settings.queue:
            evicted = self._request_to_evict(request.client, request.admitted + images)
            if evicted is None:
                raise self._busy()
            evicted.fail(self._busy())
            self._remove(evicted)
        self._requests[request] = None
        self._count(request, images)

    def release(self, request: PendingRequest) -> None:
        """End a request: its images no longer count, and those that still wait are dropped."""
        if not request.scores.cancel() and not request.scores.cancelled():
            request.scores.exception()  # or asyncio logs that it was never retrieved
        self._remove(request)

    def put(self, request: PendingRequest, images: Sequence[bytes]) -> None:
        """Queue the images of a request, which are admitted."""
        request.expect(len(images))
        if request.done:
            return
        now = time.monotonic()  # uvloop's own clock counts whole milliseconds
        queue = self._costly if request.with_pixels else self._cheap
        for index, data in enumerate(images):
            queue.put(QueuedImage(request, index, data, now))
        self.start_batches()

    async def close(self) -> None:
        """Compute what is queued."""
        self._max_wait = 0.0
        self.start_batches()
        while self._running:
            await asyncio.wait(self._running)

    def start_batches(self) -> None:
        """Start the batches that are due, as far as workers are free."""
        while batch := self._next_batch():
            costly = self._last_was_costly
            self._running[asyncio.get_running_loop().create_task(self._run(batch, costly))] = costly

    def _request_to_evict(self, client: str, images: int) -> PendingRequest | None:
        """Return the request to drop when `client` would have a request of so many images."""
        largest, count = max(self._admitted_of.items(), key=lambda each: each[1], default=(client, 0))
        newest_first = [request for request in reversed(self._requests) if request.client == largest]
        if largest != client and count > self._admitted_of[client] + images:
            return newest_first[0]
        if largest == client and newest_first:
            request = max(newest_first, key=lambda each: each.admitted)
            return request if request.admitted > images else None
        return None

    def _remove(self, request: PendingRequest) -> None:
        self._cheap.drop(request)
        self._costly.drop(request)
        self._requests.pop(request, None)
        self._count(request, -request.admitted)
        if not self._admitted_of[request.client]:
            del self._admitted_of[request.client]

    def _count(self, request: PendingRequest, images: int) -> None:
        request.admitted += images
        self._admitted_of[request.client] += images
        self.admitted += images
        self._metrics.queue.set(self.admitted)

    def _busy(self) -> ServiceError:
        return busy_error(self.admitted / self._images_per_second)

    def _next_batch(self) -> list[QueuedImage]:
        """Return what to start now: one costly image, a batch of cheap ones, or nothing."""
        workers, costly = self._workers(), sum(self._running.values())
        free = BATCHES_PER_WORKER * (workers - costly if workers > 1 else workers) - (len(self._running) - costly)
        cheap_due = free > 0 and len(self._cheap) > 0 and self._is_due()
        costly_may = costly < min(workers, max(1, workers - 1))
        if self._costly and costly_may and not (cheap_due and self._last_was_costly):
            self._last_was_costly = True
            return self._costly.pop_pending(1)
        if not cheap_due:
            return []
        self._last_was_costly = False
        # Idle workers share what waits. What is left is at least a quarter of the largest batch for each, or all of
        # them would wait for the next requests when they have finished these.
        waiting, idle = len(self._cheap), max(1, workers - len(self._running))
        fair = max(self._settings.max_batch // 4, _ceil_div(waiting, free))
        return self._cheap.pop_pending(min(self._settings.max_batch, _ceil_div(waiting, idle), fair))

    def _is_due(self) -> bool:
        """Return whether a batch is full, or its first image has waited; if not, set a timer for that."""
        if len(self._cheap) >= self._settings.max_batch:
            return True
        remaining = self._cheap.peek().since + self._max_wait - time.monotonic()
        if remaining <= 0:
            return True
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(remaining, self._on_timer)
        return False

    def _on_timer(self) -> None:
        self._timer = None
        self.start_batches()

    async def _run(self, batch: list[QueuedImage], costly: bool) -> None:
        started = time.monotonic()
        try:
            results = await self._run_batch([image.data for image in batch], costly)
        except WorkerDied as died:
            self._requeue_after_death(batch, costly, died)
            return
        except Exception as error:  # the clients must hear of it, and the batcher must live on
            for request in {image.request for image in batch}:
                request.fail(error)
            return
        finally:
            # The next batch goes to the worker first, then the scores of this one to their requests.
            self._running.pop(cast("asyncio.Task[None]", asyncio.current_task()), None)
            self.start_batches()
        seconds = time.monotonic() - started
        # In reverse, so that the images that were not begun are queued in their order.
        pairs = [*zip(batch, results, strict=True)][::-1]
        finished = [self._deliver(image, result) for image, result in pairs].count(True)
        if finished < len(batch):
            self.start_batches()
        if finished:
            if not costly:
                speed = self._workers() * finished / max(seconds, 1e-6)
                self._images_per_second += 0.1 * (speed - self._images_per_second)
            self._metrics.observe_batch(finished, seconds)

    def _deliver(self, image: QueuedImage, result: ImageResult) -> bool:
        """Hand a result to its request and return True; or queue the image again."""
        request = image.request
        if result.status not in (ImageStatus.COSTLY, ImageStatus.NOT_BEGUN):
            request.set_result(image.index, result)
            return True
        costly = result.status is ImageStatus.COSTLY
        if costly:
            request.decode_seconds += result.seconds
            if request.decode_seconds > self._settings.request_decode_seconds:
                message = "all images of this request take too long to decode; send fewer, or smaller ones"
                request.fail(ServiceError(413, "slow_request", message))
            elif wait := 0.0 if request.done else self._budgets.take(request.client, result.seconds):
                request.fail(busy_error(wait))
        if not request.done:
            self._requeue(image, costly=costly, first=not costly)
        return False

    def _requeue_after_death(self, batch: list[QueuedImage], costly: bool, died: WorkerDied) -> None:
        """Queue the images of a dead worker again; those that it was computing one by one, once."""
        for image in reversed(batch):
            image.crashes += died.computing
            if image.crashes >= MAX_CRASHES:
                message = f"two workers died while they computed image {image.index}; do not send it again"
                image.request.fail(ServiceError(422, "deadly_image", message, image=image.index))
            elif not image.request.done:
                self._requeue(image, costly=costly or died.computing, first=True)
        self.start_batches()

    def _requeue(self, image: QueuedImage, *, costly: bool, first: bool) -> None:
        (self._costly if costly else self._cheap).put(image, first=first)


def _ceil_div(number: int, divisor: int) -> int:
    return -(-number // divisor)
