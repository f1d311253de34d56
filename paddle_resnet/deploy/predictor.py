"""The exported model answering: Paddle Inference behind two methods, safe to use from many threads."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import paddle
from paddle import inference
from PIL import Image

from paddle_resnet import runtime
from paddle_resnet.data import decode_image
from paddle_resnet.deploy.inference_config import InferenceConfig, check_model, find_model
from paddle_resnet.errors import RunFailure, UsageError

GPU_MEMORY_MB = 256  # what Paddle takes at first; it grows as needed

Picture = str | Path | bytes | Image.Image | np.ndarray


class Answer(NamedTuple):
    """A class and its probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What the model says of one picture: the most probable classes, the best first."""

    name: str
    top: tuple[Answer, ...]


class Predictor:
    """An exported model, loaded.

    It may be shared by threads: calls that overlap each get a Paddle predictor of their own (one predictor shared by
    threads silently answers wrongly), and the weights are held once.

        with Predictor("output/quickstart/inference") as predictor:
            for prediction in predictor.predict(["seven.png"]):
                print(prediction.name, prediction.top[0].label, prediction.top[0].probability)

    Args:
        model_dir: the exported folder, or the folder of a run that holds one.
        device: "auto", "cpu", "gpu" or "gpu:<i>".
        threads: threads of one call on the CPU; None: OMP_NUM_THREADS, which is the physical cores unless you set it.
        batch_size: the most images the model is given at once; larger batches are split.

    Raises:
        UsageError: no model there, a damaged or too new one, or a device that is not there.
        RunFailure: Paddle cannot load the model.
    """

    def __init__(
        self, model_dir: str | Path, device: str = "auto", threads: int | None = None, batch_size: int = 32
    ) -> None:
        if batch_size < 1 or (threads is not None and threads < 1):
            raise UsageError(f"batch_size and threads must be at least 1, got {batch_size} and {threads}")
        self.path = find_model(model_dir)
        self.config = InferenceConfig.load(self.path)
        self.batch_size = batch_size
        check_model(self.path, self.config, paddle.__version__)
        self.device = runtime.select_device(device)
        self._first = _load(self.path, self.config, self.device, threads or _usual_threads())
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._idle.put(self._first)
        self._cloning = threading.Lock()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the model's memory; a closed predictor answers no more."""
        self._first = None
        self._idle = queue.SimpleQueue()

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the scores."""
        return self.config.classes

    def scores(self, batch: np.ndarray) -> np.ndarray:
        """Answer pixels with probabilities.

        Args:
            batch: uint8 RGB images `[N, S, S, 3]` of any N; S is `config.input.image_size`.

        Returns:
            float32 `[N, classes]`.

        Raises:
            UsageError: another type or shape.
        """
        self._check(batch)
        parts = [batch[start : start + self.batch_size] for start in range(0, len(batch), self.batch_size)]
        if not parts:
            return np.zeros((0, len(self.classes)), np.float32)
        with self._borrowed() as predictor:
            return np.concatenate([_run(predictor, part) for part in parts])

    def predict(self, images: Iterable[Picture], top_k: int = 5) -> list[Prediction]:
        """Classify pictures of any size and mode: paths, encoded bytes, PIL images, or uint8 arrays.

        Args:
            images: the pictures; they are decoded batch by batch, so an iterator of any length takes little memory.
            top_k: how many classes to rank for each; cut to the number of classes.

        Raises:
            UsageError: a picture cannot be read.
        """
        pictures = enumerate(images)
        predictions: list[Prediction] = []
        while batch := list(islice(pictures, self.batch_size)):
            names = [str(picture) if isinstance(picture, str | Path) else f"image {i}" for i, picture in batch]
            decoded = [self.decode(picture, name) for (_, picture), name in zip(batch, names, strict=True)]
            predictions += self.rank(self.scores(np.stack(decoded)), names, top_k)
        return predictions

    def decode(self, picture: Picture, name: str | None = None) -> np.ndarray:
        """Turn one picture, which an error calls `name`, into the pixels the model takes, uint8 `[S, S, 3]`.

        Raises:
            UsageError: it cannot be read.
        """
        return decode_image(picture, self.config.input.resize, self.config.input.image_size, name)

    def rank(self, scores: np.ndarray, names: Iterable[str], top_k: int = 5) -> list[Prediction]:
        """Name the `top_k` classes of the highest scores for each row of `scores`, `[N, classes]`."""
        if top_k < 1:
            raise UsageError(f"top_k must be at least 1, got {top_k}")
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
        return [
            Prediction(name, tuple(Answer(self.classes[index], float(row[index])) for index in best))
            for name, row, best in zip(names, scores, order, strict=True)
        ]

    def _check(self, batch: np.ndarray) -> None:
        size = self.config.input.image_size
        expected = f"expected uint8 RGB images of shape [N, {size}, {size}, 3] with values 0..255"
        if not isinstance(batch, np.ndarray):
            raise UsageError(f"{expected}, got {type(batch).__name__}; make it a numpy array")
        if batch.dtype != np.uint8:
            hint = "do not normalise: that is in the model" if batch.dtype.kind == "f" else "convert it with astype"
            raise UsageError(f"{expected}, got {batch.dtype}; {hint}")
        if batch.ndim != 4 or batch.shape[1:] != (size, size, 3):
            raise UsageError(f"{expected}, got {list(batch.shape)}; decode() makes such images of any picture")

    @contextmanager
    def _borrowed(self) -> Iterator[Any]:
        """Take an idle predictor, or a clone where calls overlap; give it back afterwards."""
        if self._first is None:
            raise UsageError(f"{self.path}: this predictor is closed; make a new one")
        idle = self._idle
        try:
            predictor = idle.get_nowait()
        except queue.Empty:
            with self._cloning:
                predictor = self._first.clone()
        try:
            yield predictor
        finally:
            idle.put(predictor)


def _usual_threads() -> int:
    """OMP_NUM_THREADS, which `prepare_process` sets unless the user did; of a list for nested levels the first."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else runtime.physical_cores()


def _load(folder: Path, config: InferenceConfig, device: str, threads: int) -> Any:
    settings = inference.Config(str(folder / config.program.name), str(folder / config.parameters.name))
    settings.disable_glog_info()
    if device == "cpu":
        settings.set_cpu_math_library_num_threads(threads)  # or Paddle takes one
    else:
        settings.enable_use_gpu(GPU_MEMORY_MB, int(device.removeprefix("gpu:")))
    if not config.program.name.endswith(".json"):
        # Paddle 3 cannot combine it with a .json program: "Not find predictor_id 0 and pass_name memory_optimize_pass".
        settings.enable_memory_optim()
    try:
        return inference.create_predictor(settings)
    except Exception as error:
        raise RunFailure(
            f"{folder}: Paddle {paddle.__version__} cannot load this model, exported by {config.paddle}: {error}"
        ) from error


def _run(predictor: Any, batch: np.ndarray) -> np.ndarray:
    """One batch through a Paddle predictor, whose names of inputs and outputs differ by Paddle's version."""
    predictor.get_input_handle(predictor.get_input_names()[0]).copy_from_cpu(np.ascontiguousarray(batch))
    predictor.run()
    return predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()
