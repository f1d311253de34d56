"""The images that wait for a batch, and whose image is next."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from paddle_resnet.service.errors import ServiceError
from paddle_resnet.service.worker_process import FORMATS, ImageResult, ImageStatus

MAX_CLIENTS = 1000
"""Clients whose decode budgets are kept before the full budgets are dropped."""


class PendingRequest:
    """The images of one request on their way to scores.

    Attributes:
        scores: becomes float32 ``[N, classes]``, or the error that the client is told.
        with_pixels: the images run one by one, and their `pixels` come back, uint8 ``[S, S, 3]``.
        admitted: images that count as waiting (the batcher's to change).
        decode_seconds: expected to decode its costly images (the batcher's to change).
    """

    def __init__(self, client: str = "", *, with_pixels: bool = False) -> None:
        self.client = client
        self.with_pixels = with_pixels
        self.scores: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self.pixels: list[np.ndarray | None] = []
        self.admitted = 0
        self.decode_seconds = 0.0
        self._rows: list[np.ndarray] = []
        self._missing = 0

    @property
    def done(self) -> bool:
        """Whether it has scores, failed or timed out. No more is computed for it then."""
        return self.scores.done()

    def expect(self, images: int) -> None:
        """Set the number of images."""
        self._rows = [np.empty(0)] * images
        self.pixels = [None] * images
        self._missing = images

    def set_result(self, index: int, result: ImageResult) -> None:
        """Store an image's result. The last one completes the request; one that is not OK fails it."""
        if self.done:
            return
        if result.scores is None:
            self.fail(_image_error(result.status, index))
            return
        self._rows[index], self.pixels[index] = result.scores, result.pixels
        self._missing -= 1
        if not self._missing:
            self.scores.set_result(np.stack(self._rows))

    def fail(self, error: BaseException) -> None:
        if not self.done:
            self.scores.set_exception(error)

    def time_out(self) -> None:
        self.fail(ServiceError(504, "timeout", "no prediction in time; try again later", retry_after=1))


def _image_error(status: ImageStatus, image: int) -> ServiceError:
    code, message = {
        ImageStatus.TOO_LARGE: ("image_too_large", "has more pixels than this service takes; make it smaller"),
        ImageStatus.TOO_SLOW: (
            "slow_image",
            "takes too long to decode; save it as a usual JPEG (not progressive), or smaller",
        ),
    }.get(status, ("unreadable_image", f"cannot be read; expected an undamaged {', '.join(FORMATS)}"))
    return ServiceError(422, code, f"image {image} {message}", image=image)


@dataclass(eq=False, slots=True)
class QueuedImage:
    """One encoded image of a request."""

    request: PendingRequest
    index: int
    data: bytes
    since: float
    """`time.monotonic` when it was queued."""
    crashes: int = 0
    """Workers that died while they computed it."""


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

    def peek(self) -> QueuedImage:
        return next(iter(next(iter(self._clients.values())).values()))[0]

    def pop(self) -> QueuedImage:
        image = self.peek()
        request = image.request
        requests = self._clients[request.client]
        requests[request].popleft()
        self._length -= 1
        requests.move_to_end(request)
        self._clients.move_to_end(request.client)
        if not requests[request]:
            self.drop(request)
        return image

    def pop_pending(self, limit: int) -> list[QueuedImage]:
        """Take the next images, at most `limit`, and skip those whose requests are done."""
        images: list[QueuedImage] = []
        while self._length and len(images) < limit:
            if not (image := self.pop()).request.done:
                images.append(image)
        return images

    def drop(self, request: PendingRequest) -> None:
        """Remove all images of a request."""
        requests = self._clients.get(request.client, OrderedDict())
        self._length -= len(requests.pop(request, ()))
        if not requests:
            self._clients.pop(request.client, None)


class DecodeBudgets:
    """Seconds that each client's costly images may take: token buckets.

    Args:
        seconds: size of a bucket, which is full at first.
        rate: seconds that come back in a second.
        clock: tells the time in seconds.
    """

    def __init__(self, seconds: float, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._rate = rate
        self._clock = clock
        self._full_at: dict[str, float] = {}
        """When the bucket of each client is full again."""

    def take(self, client: str, seconds: float) -> float:
        """Take so many seconds and return 0; or take none and return how long to wait until they are there."""
        now = self._clock()
        full_at = max(now, self._full_at.get(client, now))
        missing = min(seconds, self._seconds) - (self._seconds - self._rate * (full_at - now))
        if missing > 0:
            return missing / self._rate
        if len(self._full_at) >= MAX_CLIENTS:
            self._full_at = {each: full_at for each, full_at in self._full_at.items() if full_at > now}
        self._full_at[client] = full_at + seconds / self._rate
        return 0.0
