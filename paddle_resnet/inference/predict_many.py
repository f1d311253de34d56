"""Many picture files, predicted in order by processes that keep all cores busy.

On a CPU each process decodes and predicts whole batches with its share of the threads, so that no core waits for
another inside a layer. On a GPU the processes decode, and this one runs the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from paddle_resnet.images import Pixels
from paddle_resnet.inference.find_pictures import Unreadable
from paddle_resnet.inference.predictor import Prediction, Predictor, decode_file
from paddle_resnet.worker_pool import WorkerPool

File = TypeVar("File")
Files = Sequence[Path | Unreadable]
PredictFn = Callable[[Iterable[Files]], Iterator[list[Prediction | Unreadable]]]
"""Takes batches of files, and predicts each batch as `Predictor.predict_files` does, in order."""


def batched(files: Iterable[File], size: int) -> Iterator[list[File]]:
    """Cut files into batches; the last one may be smaller."""
    remaining = iter(files)
    while batch := list(islice(remaining, size)):
        yield batch


def predict_here(predictor: Predictor, top_k: int) -> PredictFn:
    """Predict one batch after the other in this process alone."""
    return partial(map, partial(predictor.predict_files, top_k=top_k))


@contextmanager
def prediction_workers(
    model_dir: Path, processes: int, threads: int, top_k: int, **options: Any
) -> Iterator[PredictFn]:
    """Start processes that each load the model on the CPU, and decode and predict whole batches.

    They share the `threads`; the other options are those of `Predictor`. Raise a UsageError or RunFailure if the model
    cannot be loaded or a process died.
    """
    options["threads"] = max(1, threads // processes)
    with WorkerPool(processes, _load_model, model_dir, top_k, options) as pool:
        pool.wait_until_ready()
        yield pool.results


@contextmanager
def decoding_workers(predictor: Predictor, processes: int, top_k: int) -> Iterator[PredictFn]:
    """Start processes that decode batches ahead of a model that does not run on their cores."""
    size = predictor.config.input

    def predict(batches: Iterable[Files]) -> Iterator[list[Prediction | Unreadable]]:
        return (predictor.predict_files(files, top_k, decoded) for files, decoded in pool.results(batches))

    with WorkerPool(processes, partial, _decode_batch, size.resize, size.image_size) as pool:
        pool.wait_until_ready()
        yield predict


def _load_model(
    model_dir: Path, top_k: int, options: dict[str, Any]
) -> Callable[[Files], list[Prediction | Unreadable]]:
    predictor = Predictor(model_dir, **options)
    predictor.warm_up()  # a part of getting ready
    return partial(predictor.predict_files, top_k=top_k)


def _decode_batch(resize: int, image_size: int, files: Files) -> tuple[Files, list[Pixels | Unreadable]]:
    return files, [decode_file(file, resize, image_size) for file in files]
