"""The images that wait for a batch, and whose image is next."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass

from paddle_resnet.service.errors import ServiceError
from paddle_resnet.service.worker_process import FORMATS, ImageData, ImageResult, ImageStatus


class PendingRequest:
    """The images of one request on their way to their results.

    Attributes:
        results: becomes the result of each image, all of them OK, or the error that the client is told.
        explain: the class that `/explain` asks for; None: it is a prediction.
        admitted: images that count as waiting (the batcher's to change). All of them need a result.
    """

    def __init__(self, client: str = "", explain: str | None = None) -> None:
        self.client, self.explain = client, explain
        self.results: asyncio.Future[list[ImageResult]] = asyncio.get_running_loop().create_future()
        self.admitted = 0
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
