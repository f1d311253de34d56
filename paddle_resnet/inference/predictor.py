"""The exported model answering: pictures in, classes out, safe to use from many threads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from paddle_resnet import runtime
from paddle_resnet.errors import UsageError, shown
from paddle_resnet.images.decode import decode_image
from paddle_resnet.inference import backends
from paddle_resnet.inference.inference_config import FILE_NAME, InferenceConfig, find_model, repair_advice
from paddle_resnet.inference.options import BackendName, Precision

Picture = str | Path | bytes | Image.Image | np.ndarray


class ClassProbability(NamedTuple):
    """A class and its probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What the model says of one picture: the most probable classes, the best first."""

    name: str
    top: tuple[ClassProbability, ...]


class Predictor:
    """An exported model, loaded.

    It may be shared by threads, whose calls may overlap; the weights are held once, and memory is bounded by
    `batch_size` and the number of cores.

        with Predictor("output/quickstart/inference") as predictor:
            for prediction in predictor.predict(["seven.png"]):
                print(prediction.name, prediction.top[0].label, prediction.top[0].probability)

    Args:
        model_dir: the exported folder, or the folder of a run that holds one.
        device: "auto", "cpu", "gpu" or "gpu:<i>".
        precision: "fp32"; on a CPU "bf16" or "int8", on a GPU "fp16". None: fp32.
        threads: threads of one call on the CPU; None: OMP_NUM_THREADS, which is the physical cores unless you set it.
        batch_size: the most images the model is given at once; larger batches are split. A model exported with a
            batch of its own is given that many.
        backend: "paddle", "onnxruntime" or, on a GPU, "tensorrt". None: `backends.choose` says which.
        digest: `InferenceConfig.digest` of the model that is meant, where other processes have loaded it already.

    Attributes:
        path: the exported folder.
        config: its `inference.yml`.
        device, precision, backend: what was chosen.

    Raises:
        UsageError: no model there, a damaged or too new one, another than `digest`'s, or a device, precision or backend
            that is not there.
        RunFailure: the model cannot be loaded.
    """

    def __init__(
        self,
        model_dir: str | Path,
        device: str = "auto",
        precision: Precision | None = None,
        threads: int | None = None,
        batch_size: int = 32,
        *,
        backend: BackendName | None = None,
        digest: str | None = None,
    ) -> None:
        if batch_size < 1 or (threads is not None and threads < 1):
            raise UsageError(f"batch_size and threads must be at least 1, got {batch_size} and {threads}")
        self.path = find_model(model_dir)
        self.config = InferenceConfig.load(self.path)
        if digest not in (None, self.config.digest()):
            raise UsageError(
                f"{self.path / FILE_NAME}: another model than the one that was loaded at the start; start again to use "
                "it, or put the earlier one back"
            )
        self.batch_size = self.config.input.batch or batch_size
        self.device = runtime.select_device(device)
        self.backend, self.precision = backends.choose(self.path, self.config, self.device, precision, backend)
        self._model: backends.Backend | None = backends.load(
            self.path,
            self.config,
            self.device,
            self.backend,
            self.precision,
            threads or _usual_threads(),
            self.batch_size,
        )

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the model's memory; a closed predictor answers no more."""
        self._model = None

    def warm_up(self) -> None:
        """Answer one image and one whole batch of nothing: what is only made at first use is made now."""
        size = self.config.input.image_size
        for images in {1, self.batch_size}:
            self.scores(np.zeros((images, size, size, 3), np.uint8))

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
            UsageError: another type or shape, or a model of other classes than its `inference.yml` names.
        """
        self._check(batch)
        parts = [batch[start : start + self.batch_size] for start in range(0, len(batch), self.batch_size)]
        if not parts:
            return np.zeros((0, len(self.classes)), np.float32)
        model = self._model
        if model is None:
            raise UsageError(f"{self.path}: this predictor is closed; make a new one")
        return np.concatenate([self._answer(model, part) for part in parts])

    def predict(self, images: Picture | Iterable[Picture], top_k: int = 5) -> list[Prediction]:
        """Classify pictures of any size and mode: paths, encoded bytes, PIL images, or uint8 arrays.

        Args:
            images: the pictures; they are decoded batch by batch, so an iterator of any length takes little memory.
                One alone is a list of one: an array `[H, W]`, `[H, W, 3]` or `[H, W, 4]`; `[N, H, W, 3 or 4]` are N.
            top_k: how many classes to rank for each; cut to the number of classes.

        Raises:
            UsageError: a picture cannot be read, or `images` are none.
        """
        pictures = enumerate(_several(images))
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
            Prediction(name, tuple(ClassProbability(self.classes[index], float(row[index])) for index in best))
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

    def _answer(self, model: backends.Backend, part: np.ndarray) -> np.ndarray:
        """Answer at most a batch; one that is too small for a model of a fixed batch is filled up."""
        missing = (self.config.input.batch or len(part)) - len(part)
        if missing:
            part = np.concatenate([part, np.zeros((missing, *part.shape[1:]), np.uint8)])
        scores = model.run(np.ascontiguousarray(part))[: len(part) - missing]
        if scores.shape[1] != len(self.classes):
            raise UsageError(
                f"{self.path / FILE_NAME}: names {len(self.classes)} classes, but the model answers for "
                f"{scores.shape[1]}; {repair_advice()}"
            )
        return scores


def _several(images: Picture | Iterable[Picture]) -> Iterable[Picture]:
    """One picture that is given alone as a list of one."""
    if isinstance(images, bytearray | memoryview):
        return [bytes(images)]
    if isinstance(images, str | Path | bytes | Image.Image):
        return [images]
    if isinstance(images, np.ndarray) and images.dtype.kind not in "OU":  # those hold paths or pictures
        colours = images.ndim == 2 or (images.ndim in (3, 4) and images.shape[-1] in (3, 4))
        if images.dtype != np.uint8 or not colours:
            raise UsageError(
                "expected uint8 pixels of one picture, [H, W], [H, W, 3] or [H, W, 4], or of several, [N, H, W, 3], "
                f"got {images.dtype} of shape {list(images.shape)}"
            )
        return images if images.ndim == 4 else [images]
    if not isinstance(images, Iterable):
        raise UsageError(f"expected a picture or several (path, bytes, PIL image, array), got {shown(images)}")
    return images


def _usual_threads() -> int:
    """OMP_NUM_THREADS, which `prepare_process` sets unless the user did; of a list for nested levels the first."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else runtime.physical_cores()
