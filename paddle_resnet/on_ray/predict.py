"""Prediction on a Ray cluster: Ray Data finds the pictures on the nodes, and tasks classify them.

Ray schedules, retries, and computes again what a lost node had. Each picture gives one result, and the order is kept.
The model travels through Ray's object store. Files and folders need the same path on every node, as on a shared file
system. URIs (``s3://``, ``gs://``, ``hdfs://`` ...) need not.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from paddle_resnet.errors import PaddleResNetError, RunFailure
from paddle_resnet.images import Pixels
from paddle_resnet.inference.find_pictures import Unreadable, find_pictures
from paddle_resnet.inference.predict_many import PredictFn, batched
from paddle_resnet.inference.predictor import Predictor, decode_file
from paddle_resnet.on_ray.cluster import connect, pack_model, resources_of, unpack_model
from paddle_resnet.on_ray.object_store import decode_object, find_objects

Row = dict[str, bytes]  # one pickled object: Arrow's text cannot hold the names of all files
NAMES_OF_TASK = 1000
BATCHES_OF_TASK = 4  # a task of more batches costs Ray less, and loses more with its node
READERS = 16  # pictures that a task reads at once: most of their time they wait for a store or a shared file system


@contextmanager
def ray_tasks(
    model_dir: Path, address: str, threads: int, top_k: int, skipped: Counter[str], **options: Any
) -> Iterator[PredictFn]:
    """Connect to the cluster, and yield a function that takes files, folders, patterns and URIs, as text, in batches.

    The arguments are those of `connect`, `find_pictures` and `prediction_workers`; `threads` is the CPUs of a task.
    Raise a UsageError or RunFailure if there is no cluster, the model cannot be loaded, or Ray gave up.
    """
    connect(address)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.target_max_block_size = 1  # byte: each row is a task of its own, wherever a CPU is free
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    resources = resources_of(options["device"], threads)[0]
    if "num_gpus" in resources:
        resources["max_calls"] = 0  # Ray would end a process after each task, and with it the model that it has loaded
    options |= {"device": "gpu" if "num_gpus" in resources else "cpu", "threads": threads}

    def predict(batches: Iterable[Sequence[Any]]) -> Iterator[list[Any]]:
        names, folder = [str(name) for name in chain.from_iterable(batches)], str(Path.cwd())
        if not names:
            return
        tasks = [_row(some) for some in batched(names, NAMES_OF_TASK)]
        found = ray.data.from_items(tasks, override_num_blocks=len(tasks)).flat_map(
            _find, fn_args=(folder, BATCHES_OF_TASK * options["batch_size"]), num_cpus=0
        )
        # The model in a list, as Ray would replace it by the files.
        arguments = [pack_model(model_dir)], folder, top_k, tuple(options.items())
        for row in found.map(_predict, fn_args=arguments, **resources).iter_rows():
            done = _object(row)
            if isinstance(done, PaddleResNetError):
                raise done
            skipped.update(done[1])
            yield done[0]

    try:
        yield predict
    except RayTaskError:  # a fault of this program: its traceback is of use
        raise
    except RayError as error:
        raise RunFailure(f"Ray gave up: {str(error).strip().splitlines()[-1]}") from error


def _find(row: Row, folder: str, size: int) -> Iterator[Row]:
    """Yield the pictures that some names stand for, `size` at a time, with the Counter of the other files."""
    _enter(folder)
    skipped: Counter[str] = Counter()
    found = (find_objects(name, skipped) if "://" in name else find_pictures([name], skipped) for name in _object(row))
    for files in batched(chain.from_iterable(found), size):
        yield _row((files, skipped))
        skipped.clear()
    if skipped:
        yield _row(([], skipped))


def _predict(
    row: Row, packed: list[ray.ObjectRef], folder: str, top_k: int, options: tuple[tuple[str, Any], ...]
) -> Row:
    """Return the results of files and URIs with the Counter of the other files, or why the model cannot be loaded."""
    _enter(folder)
    try:
        predictor = _load(packed[0], options)
    except PaddleResNetError as error:
        return _row(error)
    size = predictor.config.input

    def decode(file: Path | str | Unreadable) -> Pixels | Unreadable:
        if isinstance(file, str):
            return decode_object(file, size.resize, size.image_size)
        return decode_file(file, size.resize, size.image_size)

    files, skipped = _object(row)
    with ThreadPoolExecutor(READERS) as readers:
        decoded = list(readers.map(decode, files))
    return _row((predictor.predict_files(files, top_k, decoded), skipped))


@lru_cache(1)
def _load(packed: ray.ObjectRef, options: tuple[tuple[str, Any], ...]) -> Predictor:
    """Load the model, once in each process: Ray gives it further tasks."""
    with unpack_model(packed) as model:
        return Predictor(model, **dict(options))


def _enter(folder: str) -> None:
    """Take names as the command does, that are relative to its folder."""
    with contextlib.suppress(OSError):  # URIs do not need it, and the names of files are not found without it
        os.chdir(folder)


def _row(thing: object) -> Row:
    return {"pickled": pickle.dumps(thing)}


def _object(row: Row) -> Any:
    return pickle.loads(row["pickled"])  # noqa: S301 (this program wrote it)
