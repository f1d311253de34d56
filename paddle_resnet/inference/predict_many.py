"""Some picture files decoded into one array."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from paddle_resnet import runtime
from paddle_resnet.errors import UsageError
from paddle_resnet.images import Pixels
from paddle_resnet.images.decode import decode_image
from paddle_resnet.inference.find_pictures import Unreadable, find_pictures
from paddle_resnet.inference.predictor import Prediction, Predictor
from paddle_resnet.worker_pool import WorkerPool


@dataclass(frozen=True)
class DecodedBatch:
    """Some files, what they hold, and why others hold nothing.

    Attributes:
        files: as they were given.
        pixels: of the readable files, in order: uint8 ``[n, S, S, 3]``.
        failures: the reason, a line that names the file, by position in `files`.
    """

    files: Sequence[Path]
    pixels: Pixels
    failures: dict[int, str]


def decode_batch(files: Sequence[Path], resize: int, image_size: int) -> DecodedBatch:
    """Decode files as `decode_image` does; those that cannot be read are told, with the reason."""
    pixels = np.empty((len(files), image_size, image_size, 3), np.uint8)
    failures: dict[int, str] = {}
    for position, file in enumerate(files):
        try:
            pixels[position - len(failures)] = decode_image(file, resize, image_size)
        except UsageError as error:
            failures[position] = str(error)
    return DecodedBatch(files, pixels[: len(files) - len(failures)], failures)


def make_decoder(resize: int, image_size: int) -> Callable[[Sequence[Path]], DecodedBatch]:
    """What a worker process makes of its arguments."""
    return partial(decode_batch, resize=resize, image_size=image_size)


PredictionOrError = Prediction | Unreadable
PredictFn = Callable[[Iterable[list[Path]]], Iterator[list[PredictionOrError]]]
"""Takes batches of files and answers each, in order."""


def classify_files(predictor: Predictor, paths: Iterable[str | Path], top_k: int = 5) -> Iterator[PredictionOrError]:
    """Answer for each picture of `paths` (files, folders, patterns), in order, in this process alone."""
    pictures = find_pictures(paths)
    return chain.from_iterable(predict_pictures(predict_here(predictor, top_k), pictures, predictor.batch_size))


def predict_pictures(
    answer: PredictFn, pictures: Iterable[Path | Unreadable], batch_size: int
) -> Iterator[list[PredictionOrError]]:
    """Answer for pictures, in order; an `Unreadable` among them is handed on in its place.

    Memory is bounded by the batches that `answer` takes ahead.
    """
    passed_over: dict[int, list[Unreadable]] = {}
    number = 0
    for answers in answer(_batches(_files(pictures, passed_over), batch_size)):
        merged: list[PredictionOrError] = []
        for answered in answers:
            merged += passed_over.pop(number, ())
            merged.append(answered)
            number += 1
        yield merged
    if passed_over:  # behind the last file
        yield list(chain.from_iterable(passed_over.values()))


def predict_here(predictor: Predictor, top_k: int) -> PredictFn:
    """Answer one batch after the other, in this process alone."""
    return partial(map, make_answerer(predictor, top_k))


@contextmanager
def prediction_workers(
    model_dir: Path, processes: int, threads: int, top_k: int, **options: Any
) -> Iterator[PredictFn]:
    """Answer in processes that each decode and load the model for themselves, on the CPU.

    Args:
        model_dir: the exported folder.
        processes: how many.
        threads: of all processes together.
        top_k: how many classes to rank.
        options: of `Predictor`, besides its threads.

    Raises:
        UsageError, RunFailure: the model cannot be loaded; while answering, a process died.
    """
    options["threads"] = max(1, threads // processes)
    with WorkerPool(processes, _load_answerer, model_dir, top_k, options, prepare=runtime.import_paddle) as pool:
        pool.wait_until_ready()
        yield pool.results


@contextmanager
def decoding_workers(predictor: Predictor, processes: int, top_k: int) -> Iterator[PredictFn]:
    """Answer what processes have decoded ahead, for a network that runs elsewhere than on their cores."""
    pixels = predictor.config.input

    def answer(batches: Iterable[list[Path]]) -> Iterator[list[PredictionOrError]]:
        return (_answers(predictor, decoded, top_k) for decoded in pool.results(batches))

    with WorkerPool(processes, make_decoder, pixels.resize, pixels.image_size) as pool:
        pool.wait_until_ready()
        yield answer


def make_answerer(predictor: Predictor, top_k: int) -> Callable[[Sequence[Path]], list[PredictionOrError]]:
    """What decodes one batch of files and answers it."""
    pixels = predictor.config.input
    return lambda files: _answers(predictor, decode_batch(files, pixels.resize, pixels.image_size), top_k)


def _load_answerer(
    model_dir: Path, top_k: int, options: dict[str, Any]
) -> Callable[[Sequence[Path]], list[PredictionOrError]]:
    predictor = Predictor(model_dir, **options)
    size = predictor.config.input.image_size
    # Once as in earnest: what Paddle prepares at its first batches is part of getting ready.
    for _ in range(2):
        predictor.scores(np.zeros((predictor.batch_size, size, size, 3), np.uint8))
    return make_answerer(predictor, top_k)


def _answers(predictor: Predictor, batch: DecodedBatch, top_k: int) -> list[PredictionOrError]:
    names = [str(file) for position, file in enumerate(batch.files) if position not in batch.failures]
    predictions = iter(predictor.rank(predictor.scores(batch.pixels), names, top_k) if names else ())
    return [
        Unreadable(file, batch.failures[position]) if position in batch.failures else next(predictions)
        for position, file in enumerate(batch.files)
    ]


def _batches(files: Iterator[Path], size: int) -> Iterator[list[Path]]:
    while batch := list(islice(files, size)):
        yield batch


def _files(pictures: Iterable[Path | Unreadable], passed_over: dict[int, list[Unreadable]]) -> Iterator[Path]:
    """The files alone; what is none goes to `passed_over`, by the number of files before it."""
    number = 0
    for picture in pictures:
        if isinstance(picture, Unreadable):
            passed_over.setdefault(number, []).append(picture)
        else:
            number += 1
            yield picture
