"""The process of an inference worker: it decodes images, runs the model, and sends the scores back.

Decoding and inference hold Python's lock for much of their time (`predictor.run` of Paddle 3.3.1 for all of it): in
the service's own process no request would be received meanwhile. And a hostile image costs a worker its time, its
memory or its life, but not the service.

Both directions of the socket are framed here. A request is `REQUEST_HEAD`, the length of each image (uint32), and the
images. A response is `RESPONSE_HEAD` and what `pack_results` makes, or the text of an error.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import select
import signal
import socket
import struct
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from functools import lru_cache, partial
from itertools import repeat
from typing import NamedTuple

import numpy as np
from PIL import Image

from paddle_resnet.errors import SIGNAL_WORDS, PaddleResNetError, RunFailure
from paddle_resnet.images.decode import decode_pil_image
from paddle_resnet.images.image_file import JPEG, jpeg_scan_count, strip_metadata
from paddle_resnet.service.logs import json_output
from paddle_resnet.service.settings import Settings, load_predictor

REQUEST_HEAD = struct.Struct("<?I")
"""Whether the image is a costly one, and the number of images."""
RESPONSE_HEAD = struct.Struct("<BI")
"""0 or the exit code of an error, and the number of bytes that follow: results, or the text of the error. The first
response says that the worker is ready, and which device it uses."""

# Of the formats that Pillow reads, those that browsers and cameras make. The others only give an attacker more code.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
JPEG_SPEED, OTHER_SPEED = 3e8, 2e7
"""Pixels per second that a slow core decodes, of a JPEG for each scan. They predict the time before decoding begins."""
CHEAP_SECONDS = 0.15
"""Up to this decoding time an image shares a batch with others."""
HEADER_SECONDS = 0.02
"""To read a header; and what the pixels of a cheap image may take beyond three times their predicted time."""
BATCH_SECONDS = 0.3
"""After this decoding time a batch runs without the images that are not begun: the batches behind it wait too."""


class ImageStatus(IntEnum):
    """How the work on one image ended. The numbers go through the socket."""

    OK = 0
    UNREADABLE = 1
    TOO_LARGE = 2
    TOO_SLOW = 3
    COSTLY = 4
    """Not decoded: it takes too long for a batch that it shares with others."""
    NOT_BEGUN = 5
    """Not decoded: the other images of the batch took too long."""


class ImageResult(NamedTuple):
    """Scores float32 ``[classes]``, and pixels uint8 ``[S, S, 3]`` where they were asked for; None unless OK.

    `seconds` is the decoding time that is expected of a costly image.
    """

    status: ImageStatus
    scores: np.ndarray | None = None
    pixels: np.ndarray | None = None
    seconds: float = 0.0


class _TooSlow(Exception):  # noqa: N818 (a limit, not a fault)
    pass


class _TimedBytes(io.BytesIO):
    """A file that stops its reader after some seconds of this thread's processor time."""

    def __init__(self, data: bytes, seconds: float) -> None:
        super().__init__(data)
        self.allow(seconds)

    def allow(self, seconds: float) -> None:
        self._end = time.thread_time() + seconds

    def read(self, size: int | None = -1, /) -> bytes:
        if time.thread_time() > self._end:
            raise _TooSlow
        return super().read(size)


class BoundedDecoder(NamedTuple):
    """Decodes images of clients within limits.

    Time is bounded twice: before the first pixel by what the header and the number of scans predict, and then by what
    decoding takes.

    Args:
        resize, image_size: of the model, as in `inference.yml`.
        max_pixels: of a larger image only the header is read.
        max_seconds: processor time for one image.
    """

    resize: int
    image_size: int
    max_pixels: int
    max_seconds: float

    def decode(self, data: bytes, *, cheap_only: bool = False) -> ImageResult:
        """Decode one image to pixels; with `cheap_only`, give up after about `CHEAP_SECONDS` (`ImageStatus.COSTLY`)."""
        try:
            file = _TimedBytes(strip_metadata(data), HEADER_SECONDS if cheap_only else self.max_seconds)
            # The header tells the size, so a decompression bomb is refused before its first pixel.
            with Image.open(file, formats=FORMATS) as image:
                pixels = image.width * image.height
                if pixels > self.max_pixels:
                    return ImageResult(ImageStatus.TOO_LARGE)
                scans = jpeg_scan_count(data) if data.startswith(JPEG) else 0
                expected = pixels * scans / JPEG_SPEED if scans else pixels / OTHER_SPEED
                if expected > self.max_seconds:
                    return ImageResult(ImageStatus.TOO_SLOW)
                if cheap_only:
                    if expected > CHEAP_SECONDS:
                        return ImageResult(ImageStatus.COSTLY, seconds=expected)
                    file.allow(HEADER_SECONDS + 3 * expected)
                decoded = decode_pil_image(image, resize=self.resize, image_size=self.image_size, name="an image")
                return ImageResult(ImageStatus.OK, pixels=decoded)
        except _TooSlow:
            if cheap_only:
                return ImageResult(ImageStatus.COSTLY, seconds=self.max_seconds)
            return ImageResult(ImageStatus.TOO_SLOW)
        except Image.DecompressionBombError:
            return ImageResult(ImageStatus.TOO_LARGE)
        except Exception:  # Pillow's readers raise almost anything on damaged files
            return ImageResult(ImageStatus.UNREADABLE)


def run_batch(
    images: Sequence[bytes],
    decode: Callable[[bytes], ImageResult],
    scores: Callable[[np.ndarray], np.ndarray],
    map_images: Callable[..., Iterable[ImageResult]] = map,
    clock: Callable[[], float] = time.monotonic,
) -> list[ImageResult]:
    """Decode the images of a batch, and score those that decode to ``[N, S, S, 3]``.

    Images that are not begun after `BATCH_SECONDS` are `ImageStatus.NOT_BEGUN`. The first one is always begun.
    """
    from paddle_resnet.inference.predictor import predict_batch  # imports paddle, for which `run_worker` prepares

    end = clock() + BATCH_SECONDS

    def decode_in_time(numbered: tuple[int, bytes]) -> ImageResult | np.ndarray:
        index, data = numbered
        result = decode(data) if index == 0 or clock() < end else ImageResult(ImageStatus.NOT_BEGUN)
        return result if result.pixels is None else result.pixels

    def to_results(pixels: np.ndarray) -> Iterable[ImageResult]:
        return map(ImageResult, repeat(ImageStatus.OK), scores(pixels), pixels)

    return predict_batch(enumerate(images), decode_in_time, to_results, map_images)


@json_output()
def run_worker(settings: Settings, image_size: int, connection: socket.socket) -> None:
    """Serve requests from `connection` until its other end is closed."""
    # A terminal or service manager may send these to all processes. Accepted requests are completed first.
    for number in SIGNAL_WORDS:
        signal.signal(number, signal.SIG_IGN)
    from paddle_resnet import runtime

    runtime.import_paddle()
    try:
        predictor = load_predictor(settings)
    except PaddleResNetError as error:
        send_response(connection, str(error).encode("utf-8", "replace"), error.exit_code)
        return
    size = predictor.config.input
    decoder = BoundedDecoder(size.resize, size.image_size, settings.max_pixels, settings.image_decode_seconds)

    def warm_up(images: int) -> None:
        predictor.scores(np.zeros((images, image_size, image_size, 3), np.uint8))

    warm_up(1)
    with predictor, ThreadPoolExecutor(settings.decoders) as threads, connection, contextlib.suppress(ConnectionError):
        send_response(connection, predictor.device.encode())
        # oneDNN prepares itself for each batch size, and that takes time: while no request waits.
        sizes = iter(range(2, settings.max_batch + 1))
        # With one core a second thread costs as much as decoding a small image.
        map_images: Callable[..., Iterable[ImageResult]] = map if settings.decoders == 1 else threads.map
        while True:
            while not select.select([connection], [], [], 0)[0] and (images := next(sizes, 0)):
                warm_up(images)
            encoded, costly = read_request(connection)
            try:
                decode = partial(decoder.decode, cheap_only=not costly)
                results = run_batch(encoded, decode, predictor.scores, map_images)
                send_response(connection, pack_results(results, image_size, len(predictor.classes), costly))
            except ConnectionError:
                raise
            except Exception:
                send_response(connection, traceback.format_exc().encode("utf-8"), RunFailure.exit_code)
            if costly:
                release_memory()


def receive(connection: socket.socket, length: int) -> bytes:
    """Read so many bytes.

    Raises:
        ConnectionError: the other end is closed.
    """
    data = connection.recv(length, socket.MSG_WAITALL) if length else b""
    if len(data) < length:
        raise ConnectionResetError
    return data


def send_response(connection: socket.socket, data: bytes, error: int = 0) -> None:
    """Send results, or the text of an error and its exit code."""
    connection.sendall(RESPONSE_HEAD.pack(error, len(data)) + data)


def pack_request(images: Sequence[bytes], costly: bool) -> list[bytes]:
    """Return the bytes of a request."""
    return [REQUEST_HEAD.pack(costly, len(images)), struct.pack(f"<{len(images)}I", *map(len, images)), *images]


def read_request(connection: socket.socket) -> tuple[list[bytes], bool]:
    """Read the images of a request, and whether it is a costly one."""
    costly, images = REQUEST_HEAD.unpack(receive(connection, REQUEST_HEAD.size))
    lengths = struct.unpack(f"<{images}I", receive(connection, 4 * images))
    return [receive(connection, length) for length in lengths], costly


def pack_results(results: Sequence[ImageResult], image_size: int, classes: int, costly: bool) -> bytes:
    """Return results as bytes. Pixels are sent of a costly image alone."""
    table = np.zeros(len(results), _result_type(image_size, classes, costly))
    table["status"] = [result.status for result in results]
    table["seconds"] = [result.seconds for result in results]
    for index, result in enumerate(results):
        if result.scores is not None:
            table["scores"][index] = result.scores
            if costly:
                table["pixels"][index] = result.pixels
    return table.tobytes()


def unpack_results(data: bytes, image_size: int, classes: int, costly: bool) -> list[ImageResult]:
    """Read what `pack_results` wrote."""
    table = np.frombuffer(data, _result_type(image_size, classes, costly))
    pixels = table["pixels"] if costly else [None] * len(table)
    columns = zip(table["status"].tolist(), table["seconds"].tolist(), table["scores"], pixels, strict=True)
    return [
        ImageResult(ImageStatus.OK, scores, shown)
        if status == ImageStatus.OK
        else ImageResult(ImageStatus(status), seconds=seconds)
        for status, seconds, scores, shown in columns
    ]


@lru_cache
def _result_type(image_size: int, classes: int, costly: bool) -> np.dtype:
    pixels = [("pixels", np.uint8, (image_size, image_size, 3))] if costly else []
    return np.dtype([("status", np.uint8), ("seconds", np.float32), ("scores", np.float32, (classes,)), *pixels])


def release_memory() -> None:
    """Return freed memory to the system: glibc keeps tens of megabytes of large images and bodies for the next."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
