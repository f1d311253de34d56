"""Many picture files classified, in order, by processes that keep the network busy.

On a CPU each process decodes and answers whole batches, with its share of the threads: every core always has work,
and none waits for another in the middle of a layer. On a GPU processes decode, and this one feeds the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from paddle_resnet import runtime
from paddle_resnet.inference.decode_batch import DecodedBatch, decode_batch, make_decoder
from paddle_resnet.inference.find_pictures import Unreadable, find_pictures
from paddle_resnet.inference.predictor import Prediction, Predictor
from paddle_resnet.worker_pool import WorkerPool

Answered = Prediction | Unreadable
Answer = Callable[[Iterable[list[Path]]], Iterator[list[Answered]]]
"""Takes batches of files and answers each, in order."""


def classify_files(predictor: Predictor, paths: Iterable[str | Path], top_k: int = 5) -> Iterator[Answered]:
    """Answer for each picture of `paths` (files, folders, patterns), in order, in this process alone."""
    pictures = find_pictures(paths)
    return chain.from_iterable(classify_batches(answering_here(predictor, top_k), pictures, predictor.batch_size))


def classify_batches(
    answer: Answer, pictures: Iterable[Path | Unreadable], batch_size: int
) -> Iterator[list[Answered]]:
    """Answer for pictures, in order; an `Unreadable` among them is handed on in its place.

    Memory is bounded by the batches that `answer` takes ahead.
    """
    passed_over: dict[int, list[Unreadable]] = {}
    number = 0
    for answers in answer(_batches(_files(pictures, passed_over), batch_size)):
        merged: list[Answered] = []
        for answered in answers:
            merged += passed_over.pop(number, ())
            merged.append(answered)
            number += 1
        yield merged
    if passed_over:  # behind the last file
        yield list(chain.from_iterable(passed_over.values()))


def answering_here(predictor: Predictor, top_k: int) -> Answer:
    """Answer one batch after the other, in this process alone."""
    return partial(map, make_answerer(predictor, top_k))


@contextmanager
def answering_processes(model_dir: Path, processes: int, threads: int, top_k: int, **options: Any) -> Iterator[Answer]:
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
def answering_decoded(predictor: Predictor, processes: int, top_k: int) -> Iterator[Answer]:
    """Answer what processes have decoded ahead, for a network that runs elsewhere than on their cores."""
    pixels = predictor.config.input

    def answer(batches: Iterable[list[Path]]) -> Iterator[list[Answered]]:
        return (_answers(predictor, decoded, top_k) for decoded in pool.results(batches))

    with WorkerPool(processes, make_decoder, pixels.resize, pixels.image_size) as pool:
        pool.wait_until_ready()
        yield answer


def make_answerer(predictor: Predictor, top_k: int) -> Callable[[Sequence[Path]], list[Answered]]:
    """What decodes one batch of files and answers it."""
    pixels = predictor.config.input
    return lambda files: _answers(predictor, decode_batch(files, pixels.resize, pixels.image_size), top_k)


def _load_answerer(model_dir: Path, top_k: int, options: dict[str, Any]) -> Callable[[Sequence[Path]], list[Answered]]:
    predictor = Predictor(model_dir, **options)
    size = predictor.config.input.image_size
    # Once as in earnest: what Paddle prepares at its first batches is part of getting ready.
    for _ in range(2):
        predictor.scores(np.zeros((predictor.batch_size, size, size, 3), np.uint8))
    return make_answerer(predictor, top_k)


def _answers(predictor: Predictor, batch: DecodedBatch, top_k: int) -> list[Answered]:
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
