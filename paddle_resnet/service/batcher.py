"""Dynamic batching: images of many requests go through one bounded queue to the inference workers.

Its queue is fair and bounded, and sheds load. Libraries for batching in asyncio have neither clients nor images that
cost more than others.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import cast

from paddle_resnet.service.errors import ServiceError, busy_error
from paddle_resnet.service.inference_workers import InferenceWorkers, WorkerDied
from paddle_resnet.service.settings import Settings
from paddle_resnet.service.telemetry import Metrics
from paddle_resnet.service.worker_process import FORMATS, Batch, ImageData, ImageResult, ImageStatus

MAX_CRASHES = 2  # workers that may die of an image before it is refused


class PendingRequest:
    """The images of one request on their way to their results; `explain` is the class that `/explain` asks for.

    The `results` become the result of each image, all of them OK, or the error that the client is told.
    """

    def __init__(self, client: str = "", explain: str | None = None) -> None:
        self.client, self.explain = client, explain
        self.results: asyncio.Future[list[ImageResult]] = asyncio.get_running_loop().create_future()
        self.admitted = 0  # images that count as waiting (the batcher's to change); all of them need a result
        self._found: dict[int, ImageResult] = {}

    @property
    def done(self) -> bool:
        """Whether it has results, failed or timed out. No more is computed for it then."""
        return self.results.done()

    def set_result(self, index: int, result: ImageResult) -> None:
        """Store an image's result. The last one completes the request; one that is not OK fails it."""
        if result.status is ImageStatus.NOT_LOADED:
            self.fail(ServiceError(503, "unavailable", "the run's checkpoint is still being loaded; try again later"))
        elif result.status is not ImageStatus.OK:
            code, message = _IMAGE_ERRORS[result.status]
            self.fail(ServiceError(422, code, f"image {index} {message}", image=index))
        self._found[index] = result
        if len(self._found) == self.admitted and not self.done:
            self.results.set_result([self._found[image] for image in range(self.admitted)])

    def fail(self, error: BaseException) -> None:
        if not self.done:
            self.results.set_exception(error)
            self.results.exception()  # retrieved: a request that also fails as its body is split awaits no results

    def time_out(self) -> None:
        self.fail(ServiceError(504, "timeout", "no prediction in time; try again later"))


_IMAGE_ERRORS = {
    ImageStatus.UNREADABLE: ("unreadable_image", f"cannot be read; expected an undamaged {', '.join(FORMATS)}"),
    ImageStatus.TOO_LARGE: ("image_too_large", "has more pixels than this service takes; make it smaller"),
    ImageStatus.TOO_SLOW: ("slow_image", "takes too long to decode; make it smaller or a usual JPEG (not progressive)"),
    ImageStatus.NO_EXPLANATION: ("no_explanation", "cannot be explained; the run's checkpoint is another"),
}


@dataclass(eq=False, slots=True)
class QueuedImage:
    """One image of a request."""

    request: PendingRequest
    index: int
    data: ImageData
    since: float  # `time.monotonic` when it was queued
    crashes: int = 0  # workers that died while they computed it


class FairQueue:
    """Takes turns between clients, and between the requests of a client. The images of a request keep their order."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, OrderedDict[PendingRequest, deque[QueuedImage]]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, image: QueuedImage, *, first: bool = False) -> None:
        """Queue an image; ahead of all others if it has had its turn already (`first`)."""
        request = image.request
        requests = self._clients.setdefault(request.client, OrderedDict())
        images = requests.setdefault(request, deque())
        self._length += 1
        if first:
            images.appendleft(image)
            self._clients.move_to_end(request.client, last=False)
            requests.move_to_end(request, last=False)
        else:
            images.append(image)

    def first(self) -> QueuedImage:
        requests = next(iter(self._clients.values()))
        return next(iter(requests.values()))[0]

    def take(self, limit: int) -> list[QueuedImage]:
        """Take the next images, at most `limit`, without those whose requests are done."""
        images: list[QueuedImage] = []
        while self._length and len(images) < limit:
            image = self.first()
            self._end_turn(image.request)
            if not image.request.done:
                images.append(image)
        return images

    def _end_turn(self, request: PendingRequest) -> None:
        """Remove the first image of a request, which has had its turn, and so has its client."""
        requests = self._clients[request.client]
        requests[request].popleft()
        self._length -= 1
        requests.move_to_end(request)
        self._clients.move_to_end(request.client)
        if not requests[request]:
            self.drop(request)

    def drop(self, request: PendingRequest) -> None:
        """Remove all images of a request."""
        requests = self._clients.get(request.client, OrderedDict())
        self._length -= len(requests.pop(request, ()))
        if not requests:
            self._clients.pop(request.client, None)


class Batcher:
    """The bounded queue, and the batches that are being computed. All on the event loop.

    A batch starts when it is full, or when its first image has waited `max_wait`, and a worker is idle. An image counts
    against `queue` from `admit` to `release`.

    Clients take turns. An image that turns out to be costly goes to a second queue: each of its images runs by itself,
    never on all workers at once, and in turns with the batches. So a cheap image waits for at most one costly image.
    Workers hold no backlog: the images of a request that is done are dropped while they are still here.
    """

    def __init__(self, workers: InferenceWorkers, settings: Settings, metrics: Metrics) -> None:
        self._workers = workers
        self._settings = settings
        self._metrics = metrics
        self._cheap, self._costly = FairQueue(), FairQueue()
        self._running: dict[asyncio.Task[None], bool] = {}  # batches under way, and whether each is a costly image
        self._last_was_costly = False
        self._timer: asyncio.TimerHandle | None = None
        self._requests: dict[PendingRequest, None] = {}  # admitted requests, the oldest first

    @property
    def admitted(self) -> int:
        """Images admitted and not yet answered."""
        return sum(request.admitted for request in self._requests)

    def check_capacity(self, client: str = "") -> None:
        """Refuse a request before its body is read: 503, nothing computes; 429, the queue is full, and stays so."""
        if not self._workers.usable:
            message = "no inference worker can be started; the log says why; try again later"
            raise ServiceError(503, "unavailable", message)
        if self.admitted >= self._settings.queue and self._request_to_evict(client, 1) is None:
            raise busy_error()

    def admit(self, request: PendingRequest, images: int) -> None:
        """Admit more images of a request, or refuse them: 429, the queue is full; 413, they are more than it can hold.

        When the queue is full, the newest request of the client with the most images is refused in its place, unless
        this client would have more.
        """
        if request.done:
            return
        if request.admitted + images > self._settings.queue:
            message = f"at most {self._settings.queue} images can wait; send fewer at once"
            raise ServiceError(413, "too_many_images", message)
        while self.admitted + images > self._settings.queue:
            evicted = self._request_to_evict(request.client, images)
            if evicted is None:
                raise busy_error()
            evicted.fail(busy_error())
            self._remove(evicted)
        self._requests[request] = None
        request.admitted += images
        self._metrics.queue.inc(images)

    def release(self, request: PendingRequest) -> None:
        """End a request: its images no longer count, and those that still wait are dropped."""
        if not request.results.cancel() and not request.results.cancelled():
            request.results.exception()  # or asyncio logs that it was never retrieved
        self._remove(request)

    def put(self, request: PendingRequest, images: Sequence[ImageData]) -> None:
        """Queue the images of a request, all of which are admitted."""
        if request.done:
            return
        now = time.monotonic()  # uvloop's own clock counts whole milliseconds
        queue = self._cheap if request.explain is None else self._costly
        for index, data in enumerate(images):
            queue.put(QueuedImage(request, index, data, now))
        self.start_batches()

    def start_batches(self) -> None:
        """Start the batches that are due, as far as workers are idle."""
        while (idle := self._workers.idle) and (batch := self._next_batch(idle)):
            costly = self._last_was_costly
            results = self._workers.run(Batch([image.data for image in batch], costly, batch[0].request.explain))
            self._running[asyncio.get_running_loop().create_task(self._finish(batch, results))] = costly

    def _request_to_evict(self, client: str, images: int) -> PendingRequest | None:
        """Return the request to drop for so many images more of `client`; None if no client has more than it then."""
        admitted: Counter[str] = Counter({client: images})  # first, so that it is the largest among equal ones
        for request in self._requests:
            admitted[request.client] += request.admitted
        largest = max(admitted, key=lambda each: admitted[each])
        newest_first = reversed(self._requests)
        return None if largest == client else next(each for each in newest_first if each.client == largest)

    def _remove(self, request: PendingRequest) -> None:
        self._cheap.drop(request)
        self._costly.drop(request)
        if self._requests.pop(request, 0) is None:
            self._metrics.queue.dec(request.admitted)
            request.admitted = 0

    def _next_batch(self, idle: int) -> list[QueuedImage]:
        """Return what to start now: one costly image, a batch of cheap ones, or nothing."""
        cheap_due = len(self._cheap) > 0 and self._is_due()
        costly_may = sum(self._running.values()) < max(1, self._workers.ready - 1)
        costly_turn = costly_may and not (cheap_due and self._last_was_costly)
        if costly_turn and (batch := self._costly.take(1)):
            self._last_was_costly = True
            return batch
        self._last_was_costly = False
        share = -(-len(self._cheap) // idle)  # idle workers share what waits
        return self._cheap.take(min(self._settings.max_batch, share)) if cheap_due else []

    def _is_due(self) -> bool:
        """Return whether a batch is full, or its first image has waited; if not, set a timer for that."""
        if len(self._cheap) >= self._settings.max_batch:
            return True
        remaining = self._cheap.first().since + self._settings.max_wait - time.monotonic()
        if remaining > 0 and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(remaining, self._on_timer)
        return remaining <= 0

    def _on_timer(self) -> None:
        self._timer = None
        self.start_batches()

    async def _finish(self, batch: list[QueuedImage], computing: Awaitable[list[ImageResult]]) -> None:
        """Wait for a batch, start the next one, and deliver the results."""
        started = time.monotonic()
        results: list[ImageResult] = []
        try:
            results = await computing
        except WorkerDied:
            for image in reversed(batch):
                self._queue_after_death(image)
        except Exception as error:  # the clients must hear of it, and the batcher must live on
            for image in batch:
                image.request.fail(error)
        self._running.pop(cast("asyncio.Task[None]", asyncio.current_task()))
        self.start_batches()  # the next batch goes to the worker first, then the scores of this one to their requests
        # In reverse, so that the images that were not begun are queued in their order.
        finished = [self._deliver(*pair) for pair in [*zip(batch, results, strict=False)][::-1]].count(True)
        self._metrics.images.inc(sum(result.status is ImageStatus.OK for result in results))
        if finished:
            self._metrics.batch.observe(finished)
            self._metrics.batch_seconds.observe(time.monotonic() - started)
        self.start_batches()

    def _deliver(self, image: QueuedImage, result: ImageResult) -> bool:
        """Hand a result to its request and return True; or queue the image again."""
        request = image.request
        if result.status not in (ImageStatus.COSTLY, ImageStatus.NOT_BEGUN):
            request.set_result(image.index, result)
            return True
        if request.done:
            return False
        if result.status is ImageStatus.NOT_BEGUN:
            self._cheap.put(image, first=True)
        else:
            self._costly.put(image)
        return False

    def _queue_after_death(self, image: QueuedImage) -> None:
        """Queue an image of a dead worker again, by itself and once."""
        image.crashes += 1
        if image.crashes >= MAX_CRASHES:
            message = f"two workers died while they computed image {image.index}; do not send it again"
            image.request.fail(ServiceError(422, "deadly_image", message, image=image.index))
        elif not image.request.done:
            self._costly.put(image, first=True)
