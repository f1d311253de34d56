"""Read the pixels of batches ahead of their use.

Arrays are sliced and augmented by a thread. Pictures kept in memory are cropped by threads, because Pillow's resizing
releases the GIL; picture files are decoded by processes, because much of decoding does not. A worker gets a part of
a batch with all random parameters, so the number of workers changes nothing in the result.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from paddle_resnet.data.augment import host
from paddle_resnet.data.augment.boxes import CropDraws
from paddle_resnet.data.augment.host import AugmentParams
from paddle_resnet.data.splits import Split
from paddle_resnet.errors import PaddleResNetError, UsageError
from paddle_resnet.images import Indices, Pixels
from paddle_resnet.images.decode import Source, decode_crop, decode_square, resize_and_crop_batch
from paddle_resnet.runtime import keep_freed_memory
from paddle_resnet.worker_pool import WorkerPool

MIN_PICTURES = 8  # pictures of the smallest part of a batch that a worker gets


class PictureSplit(Split):
    """Labelled pictures of different sizes, which are cropped when they are read."""

    in_memory: bool  # the pictures are decoded (`decode_whole`) and kept; otherwise they are decoded each time
    workers: int  # threads or processes that read them
    resize: int  # pixels of the shorter side of pictures in memory, and of the squares of `batch`

    @abstractmethod
    def pictures(self, indices: Sequence[int] | Indices) -> list[Source]:
        """Return what `decode_crop` and `decode_square` read: files, or pixels in memory."""

    @abstractmethod
    def stand_in(self, index: int, error: UsageError) -> int:
        """Return the index of an image that replaces the one at `index`, which cannot be read, or raise its `error`."""

    def batch(self, indices: Sequence[int] | Indices) -> Pixels:
        request = Request(np.array(indices, dtype=np.int64), None, self.resize, None)
        with ThreadPoolExecutor(self.workers, "decode") as threads:
            return _submit_parts(self, request, lambda part: threads.submit(read_part, part))()


class Request(NamedTuple):
    """What to read: the images of a batch, and what becomes of them."""

    indices: Indices  # in the split, ``[n]``
    params: AugmentParams | None
    """The augmentation on the host; None: evaluation's resize and crop, or no change if `size` is None."""
    resize: int  # pixels of the shorter side before evaluation's crop
    size: int | None  # pixels a side of evaluation's crop

    @property
    def crops_when_read(self) -> AugmentParams | None:
        """The augmentation, if its crops are random-resized: a picture's is cut from the whole of it, as it is read."""
        return self.params if self.params is not None and isinstance(self.params.crops, CropDraws) else None


class _Part(NamedTuple):
    """A part of a request, without its split."""

    pictures: list[Source]
    request: Request


_Read = tuple[Pixels, dict[int, UsageError]]


def read_ahead(split: Split, requests: Iterable[Request], prefetch: int) -> Iterator[tuple[Request, Pixels]]:
    """Yield each request with its pixels, in order, while the next `prefetch` ones are being read.

    The caller's thread takes the requests from their iterator. Reading ends with the iterator.

    Raises:
        UsageError: an image cannot be read, and no other may stand in for it.
        RunFailure: a worker process ended.
    """
    waiting: deque[tuple[Request, Callable[[], Pixels]]] = deque()
    with _submitter(split) as submit:
        for request in requests:
            waiting.append((request, submit(request)))
            if len(waiting) > prefetch:
                request, result = waiting.popleft()
                yield request, result()
        for request, result in waiting:
            yield request, result()


@contextlib.contextmanager
def _submitter(split: Split) -> Iterator[Callable[[Request], Callable[[], Pixels]]]:
    """Yield a function that begins to read a request, and returns the function that waits for its pixels."""
    if isinstance(split, PictureSplit) and not split.in_memory:
        pool = _processes(split.workers)
        try:
            yield lambda request: _submit_parts(split, request, pool.submit)
        except PaddleResNetError:
            _processes.cache_clear()  # a process ends with its error: the next loader gets new ones
            pool.close()
            raise
        return
    threads = ThreadPoolExecutor(split.workers if isinstance(split, PictureSplit) else 1, "prefetch")
    try:
        if isinstance(split, PictureSplit):
            yield lambda request: _submit_parts(split, request, lambda part: threads.submit(read_part, part))
        else:
            yield lambda request: threads.submit(lambda: _finish(split.batch(request.indices), request)).result
    finally:
        threads.shutdown(cancel_futures=True)


def _finish(images: Pixels, request: Request) -> Pixels:
    """Augment images, or resize and crop them as in evaluation."""
    if request.params is not None:
        return host.augment(images, request.params)
    return images if request.size is None else resize_and_crop_batch(images, request.resize, request.size)


def _submit_parts(
    split: PictureSplit, request: Request, submit: Callable[[_Part], Future[_Read]]
) -> Callable[[], Pixels]:
    count = len(request.indices)
    step = max(MIN_PICTURES, -(-count // split.workers))
    bounds = [*range(0, count, step), count]
    parts = [_select(request, np.arange(*each)) for each in pairwise(bounds)]
    reading = [submit(_Part(split.pictures(part.indices), part)) for part in parts]

    def wait() -> Pixels:
        results = [_complete(split, part, future.result()) for part, future in zip(parts, reading, strict=True)]
        return np.concatenate(results) if len(results) > 1 else results[0]

    return wait


def _select(request: Request, positions: Indices) -> Request:
    params = None if request.params is None else request.params.select(positions)
    return request._replace(indices=request.indices[positions], params=params)


def _complete(split: PictureSplit, request: Request, result: _Read) -> Pixels:
    """Read other images in place of those that cannot be read, if the split allows it."""
    pixels, failures = result
    while failures:
        failed = np.array(sorted(failures))
        others = np.array([split.stand_in(int(request.indices[each]), failures[each]) for each in failed])
        again = _select(request, failed)._replace(indices=others)
        request.indices[failed] = others
        pixels[failed], failed_again = read_part(_Part(split.pictures(others), again))
        failures = {int(failed[number]): error for number, error in failed_again.items()}
    return pixels


def read_part(part: _Part) -> _Read:
    """Read pictures and augment them, or crop them as in evaluation.

    Returns:
        The pixels ``[n, S, S, 3]``, and the errors of those that cannot be read, by their number.
    """
    params, failures = part.request.crops_when_read, {}
    side = part.request.resize if params is None else params.size
    pixels = np.zeros((len(part.pictures), side, side, 3), np.uint8)
    for number, picture in enumerate(part.pictures):
        try:
            pixels[number] = decode_square(picture, side) if params is None else _crop(picture, number, params)
        except UsageError as error:
            failures[number] = error
    return _finish(pixels, part.request) if params is None else host.distort(pixels, params), failures


def _crop(picture: Source, number: int, params: AugmentParams) -> Pixels:
    """Return the random-resized crop of a batch's picture, uint8 ``[S, S, 3]``."""
    assert isinstance(params.crops, CropDraws)
    box_in, flipped = functools.partial(params.crops.box, number), bool(params.flipped[number])
    if isinstance(picture, np.ndarray):
        return host.resize_box(picture, box_in(*picture.shape[:2]), params.size, flipped)
    return decode_crop(picture, box_in, params.size, flipped)


@functools.cache
def _processes(count: int) -> WorkerPool[_Part, _Read]:
    """Start the processes that decode for all splits of this process; they end with it."""
    pool: WorkerPool[_Part, _Read] = WorkerPool(count, _make_reader, prepare=keep_freed_memory)
    atexit.register(pool.close)
    return pool


def _make_reader() -> Callable[[_Part], _Read]:
    return read_part
