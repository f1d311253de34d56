"""The process of an inference worker: it decodes images, runs the model, and explains.

Decoding and inference hold Python's lock for much of their time (`predictor.run` of Paddle 3.3.1 for all of it): in
the service's own process no request would be received meanwhile. And a hostile image costs a worker its time, its
memory or its life, but not the service. No server library does this: their workers are whole servers.
"""

from __future__ import annotations

import base64
import io
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from enum import IntEnum
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from paddle_resnet import runtime
from paddle_resnet.errors import PaddleResNetError
from paddle_resnet.images.decode import decode_pil_image
from paddle_resnet.images.image_file import JPEG, jpeg_scan_count, strip_metadata
from paddle_resnet.inference.inference_config import InferenceConfig
from paddle_resnet.inference.predictor import Predictor, predict_batch
from paddle_resnet.service.settings import Settings
from paddle_resnet.service.telemetry import log

# Of the formats that Pillow reads, those that browsers and cameras make. The others only give an attacker more code.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
JPEG_SPEED, OTHER_SPEED = 3e8, 2e7
"""Pixels per second that a slow core decodes, of a JPEG for each scan. They predict the time before decoding begins."""
CHEAP_SECONDS = 0.15  # up to this decoding time an image shares a batch with others
HEADER_SECONDS = 0.02
"""To read a header; and what the pixels of a cheap image may take beyond three times their predicted time."""
BATCH_SECONDS = 0.3
"""After this decoding time a batch runs without the images that are not begun: the batches behind it wait too."""
CHECKPOINT = Path("checkpoints", "best", "model.pdparams")  # for Grad-CAM: an exported model has no gradients
HEAT_COLOR = (213, 94, 0)  # Okabe and Ito's vermilion, visible with any kind of colour vision
MIN_HEAT_SIZE = 224  # pixels a side of the heat map, so that a coarse map is interpolated and not shown as squares

ImageData = bytes | np.ndarray  # an encoded image, or its pixels, uint8 ``[S, S, 3]``


class ImageStatus(IntEnum):
    """How the work on one image ended."""

    OK = 0
    UNREADABLE = 1
    TOO_LARGE = 2
    TOO_SLOW = 3
    COSTLY = 4  # not decoded: it takes too long for a batch that it shares with others
    NOT_BEGUN = 5  # not decoded: the other images of the batch took too long
    NO_EXPLANATION = 6
    NOT_LOADED = 7  # not explained: the checkpoint is still being loaded


class ImageResult(NamedTuple):
    """The result of one image: where it is OK, its `scores`, float32 ``[classes]``, or the response to `/explain`."""

    status: ImageStatus
    scores: np.ndarray | None = None
    explanation: dict[str, Any] | None = None


class Batch(NamedTuple):
    """The task of a worker: images to predict; or a single `costly` one, which may be one to `explain`."""

    images: Sequence[ImageData]
    costly: bool = False
    explain: str | None = None  # a class, or an empty text for the most probable one


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
    """Decodes images of clients for a model with this `resize` and `image_size`, within limits.

    Of an image of more than `max_pixels` only the header is read. Processor time is bounded twice to `max_seconds`:
    before the first pixel by what the header and the number of scans predict, and then by what decoding takes.
    """

    resize: int
    image_size: int
    max_pixels: int
    max_seconds: float

    def decode(self, data: ImageData, *, cheap_only: bool = False) -> np.ndarray | ImageResult:
        """Return an image's pixels, or why it has none; with `cheap_only`, give up (COSTLY) after `CHEAP_SECONDS`."""
        if isinstance(data, np.ndarray):
            return data
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
                        return ImageResult(ImageStatus.COSTLY)
                    file.allow(HEADER_SECONDS + 3 * expected)
                return decode_pil_image(image, resize=self.resize, image_size=self.image_size, name="an image")
        except _TooSlow:
            return ImageResult(ImageStatus.COSTLY if cheap_only else ImageStatus.TOO_SLOW)
        except Image.DecompressionBombError:
            return ImageResult(ImageStatus.TOO_LARGE)
        except Exception:  # Pillow's readers raise almost anything on damaged files
            return ImageResult(ImageStatus.UNREADABLE)


def run_batch(
    images: Sequence[ImageData],
    decode: Callable[[ImageData], np.ndarray | ImageResult],
    scores: Callable[[np.ndarray], np.ndarray],
    map_images: Callable[..., Iterable[ImageResult]] = map,
    clock: Callable[[], float] = time.monotonic,
) -> list[ImageResult]:
    """Decode the images of a batch, and score those that decode to ``[N, S, S, 3]``.

    Images that are not begun after `BATCH_SECONDS` are `ImageStatus.NOT_BEGUN`. The first one is always begun.
    """
    end = clock() + BATCH_SECONDS

    def decode_in_time(numbered: tuple[int, ImageData]) -> np.ndarray | ImageResult:
        index, data = numbered
        return decode(data) if index == 0 or clock() < end else ImageResult(ImageStatus.NOT_BEGUN)

    return predict_batch(
        enumerate(images),
        decode_in_time,
        lambda pixels: map(ImageResult, repeat(ImageStatus.OK), scores(pixels)),
        map_images,
    )


def explains(settings: Settings, config: InferenceConfig) -> bool:
    """Return whether there is Grad-CAM: the run's checkpoint lies beside its exported model."""
    return settings.explain and (config.folder.resolve().parent / CHECKPOINT).is_file()


def load_explainer(predictor: Predictor) -> Callable[[np.ndarray, str], dict[str, Any]] | None:
    """Load the checkpoint of the run whose exported model is served; None if it is another model.

    It gives the response to `/explain` for an image, uint8 ``[S, S, 3]``, and a class; "" is the most probable.
    """
    runtime.import_paddle()
    from paddle_resnet.evaluation.grad_cam import heat_map
    from paddle_resnet.exporting.accuracy import load_trained

    try:
        trained = load_trained(predictor)
    except PaddleResNetError as error:
        log("no explanations", reason=str(error))
        return None

    def explain(pixels: np.ndarray, label: str) -> dict[str, Any]:
        classes, scores = predictor.classes, predictor.scores(pixels[np.newaxis])[0]
        index = classes.index(label) if label else int(scores.argmax())
        heat = heat_map(trained.network, trained.normalize, pixels, index, max(MIN_HEAT_SIZE, *pixels.shape[:2]))
        return explanation(classes[index], float(scores[index]), pixels, heat)

    return explain


def explanation(label: str, probability: float, pixels: np.ndarray, heat: np.ndarray) -> dict[str, Any]:
    """Return a class, its probability, and two PNGs as data URLs.

    `pixels`, uint8 ``[S, S, 3]``, is what the network sees. `heat`, float32 ``[T, T]`` in 0..1, is drawn in one colour,
    more or less opaque.
    """
    overlay = np.empty((*heat.shape, 4), np.uint8)
    overlay[..., :3] = HEAT_COLOR
    overlay[..., 3] = np.rint(255 * heat)
    shown = {"picture": _data_url(pixels), "heat": _data_url(overlay)}
    return {"class": label, "probability": round(probability, 6), **shown}


def _data_url(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def make_worker(settings: Settings, digest: str) -> Callable[[Batch], list[ImageResult] | str]:
    """Load the model and return what computes a batch: the result of each image, or the text of an unexpected error.

    Raise a UsageError or RunFailure if the model cannot be loaded, or is another one than that of `digest`.
    """
    options = settings.model_dump(include={"device", "precision", "backend", "threads"})
    predictor = Predictor(settings.model, batch_size=settings.max_batch, digest=digest, **options)
    size = predictor.config.input
    decoder = BoundedDecoder(size.resize, size.image_size, settings.max_pixels, settings.image_decode_seconds)
    predictor.scores(np.zeros((1, size.image_size, size.image_size, 3), np.uint8))  # the first run prepares the model
    # It takes seconds to load, as it needs paddle, and is seldom asked for. Its work stays in that thread: where a
    # thread imports paddle, threads that began before have no dynamic mode.
    explaining = ThreadPoolExecutor(1)
    explainer = explaining.submit(load_explainer, predictor) if explains(settings, predictor.config) else None
    # With one core a second thread costs as much as decoding a small image.
    map_images = ThreadPoolExecutor(settings.threads).map if settings.threads > 1 else map

    def compute(batch: Batch) -> list[ImageResult] | str:
        try:
            if batch.explain is not None:
                # A worker that waits for longer than `response_timeout` is taken for one that hangs.
                wait([explainer] if explainer else [], settings.response_timeout / 2)
                if explainer is not None and not explainer.done():
                    return [ImageResult(ImageStatus.NOT_LOADED)]
                loaded = explainer.result() if explainer is not None else None
                if loaded is None:
                    return [ImageResult(ImageStatus.NO_EXPLANATION)]
                decoded = decoder.decode(batch.images[0])
                if isinstance(decoded, ImageResult):
                    return [decoded]
                explanation = explaining.submit(loaded, decoded, batch.explain).result()
                return [ImageResult(ImageStatus.OK, explanation=explanation)]
            decode = partial(decoder.decode, cheap_only=not batch.costly)
            return run_batch(batch.images, decode, predictor.scores, map_images)
        except Exception:
            return traceback.format_exc()
        finally:
            if batch.costly:
                runtime.release_memory()

    log("worker ready", device=predictor.device, backend=predictor.backend, precision=predictor.precision)
    return compute
