"""An exported model in use: pictures in, predictions out, safe to use from many threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from paddle_resnet import runtime
from paddle_resnet.errors import UsageError, require_count, shown
from paddle_resnet.images import Pixels
from paddle_resnet.images.decode import Source, decode_image
from paddle_resnet.inference import backends
from paddle_resnet.inference.find_pictures import Unreadable
from paddle_resnet.inference.inference_config import FILE_NAME, InferenceConfig, repair_advice
from paddle_resnet.inference.options import BackendName, Precision
from paddle_resnet.system.threads import candidates

Item = TypeVar("Item")
UNKNOWN = "unknown"  # the class of a prediction whose best probability is below the threshold


class ClassProbability(NamedTuple):
    """A class and its probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """A picture's name, its most probable classes, the best first, and the threshold of their first one."""

    name: str
    top: tuple[ClassProbability, ...]
    threshold: float = 0.0

    @property
    def label(self) -> str:
        """Return the most probable class, or `UNKNOWN` where its probability is below the threshold."""
        return decide(self.top[0], self.threshold)


def decide(best: ClassProbability, threshold: float | None) -> str:
    """Return the class of a prediction: that of the best probability, or `UNKNOWN` where that is below `threshold`."""
    return UNKNOWN if best.probability < (threshold or 0) else best.label


def predict_batch(
    pictures: Iterable[Item],
    decode: Callable[[Item], Any],
    predict: Callable[[Pixels], Iterable[Any]],
    map_pictures: Callable[..., Iterable[Any]] = map,
) -> list[Any]:
    """Decode pictures, predict those that could be decoded, and return one result for each picture, in order.

    Every prediction goes through here: of `Predictor.predict`, of the command and of the service's workers. `decode`
    returns pixels, uint8 `[S, S, 3]`; anything else is the picture's result, such as why it has no pixels. `predict`
    returns a result for each image of a batch, uint8 `[n, S, S, 3]`. `map_pictures` may be that of a pool of threads.
    """
    decoded = list(map_pictures(decode, pictures))
    images = [each for each in decoded if isinstance(each, np.ndarray)]
    results = iter(predict(np.stack(images)) if images else ())
    return [next(results) if isinstance(each, np.ndarray) else each for each in decoded]


def rank(scores: np.ndarray, classes: Sequence[str], top_k: int = 5) -> list[tuple[ClassProbability, ...]]:
    """Return the `top_k` most probable classes for each row of `scores`, `[N, classes]`, the best first."""
    require_count("top_k", top_k)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    return [
        tuple(ClassProbability(classes[index], float(row[index])) for index in best)
        for row, best in zip(scores, order, strict=True)
    ]


class Predictor:
    """A loaded exported model.

    Threads may share it, and their calls may overlap. The weights are held once, and memory is bounded by `batch_size`
    and the number of cores.

        >>> import numpy as np
        >>> import paddle_resnet
        >>> with paddle_resnet.Predictor("output/quickstart") as predictor:
        ...     (prediction,) = predictor.predict(np.zeros([40, 30, 3], np.uint8), top_k=3)
        ...     scores = predictor.scores(np.zeros([5, 16, 16, 3], np.uint8))
        >>> [each.label in predictor.classes for each in prediction.top], scores.shape
        ([True, True, True], (5, 10))

    Args:
        model_dir: the exported folder, or a run (or its folder) that holds one.
        device: "auto", "cpu", "gpu" or "gpu:<i>".
        precision: "fp32"; on a CPU "bf16" or "int8", on a GPU "fp16". None: fp32.
        threads: threads of one call on the CPU. None: OMP_NUM_THREADS if you set it, otherwise the physical cores, or
            fewer where a measurement finds them faster beside other programs; then scores may differ in the last bits.
        batch_size: the most images in one run of the model; larger batches are split. A model exported with a fixed
            batch size keeps that size.
        backend: "paddle", "onnxruntime", "onednn" or, on a GPU, "tensorrt". None: see `backends.choose`.
        threshold: a picture is of the class `UNKNOWN` where its best probability is lower. None: that of the model.
        digest: the expected `InferenceConfig.digest`, where other processes have loaded the model already.

    Attributes:
        path: the exported folder.
        config: its `inference.yml`.
        device, precision, backend: those in use.

    Raises:
        UsageError: there is no model, it is damaged, too new or not the one of `digest`, or the device, precision or
            backend is not available.
        RunFailure: the model cannot be loaded.
    """

    def __init__(
        self,
        model_dir: str | os.PathLike[str],
        device: str = "auto",
        precision: Precision | None = None,
        threads: int | None = None,
        batch_size: int = 32,
        *,
        backend: BackendName | None = None,
        threshold: float | None = None,
        digest: str | None = None,
    ) -> None:
        require_count("batch_size", batch_size)
        if threads is not None:
            require_count("threads", threads, runtime.MOST_THREADS)
        self.config = InferenceConfig.load(model_dir)
        self.path = self.config.folder
        if digest not in (None, self.config.digest()):
            raise UsageError(
                f"{self.path / FILE_NAME}: another model than the one that was loaded at the start; start again to use "
                "it, or put the earlier one back"
            )
        self.batch_size = self.config.input.batch or batch_size
        if threshold is not None and not (isinstance(threshold, Real) and 0 <= threshold <= 1):
            raise UsageError(f"threshold: expected a probability, got {shown(repr(threshold))}")
        self.threshold = (self.config.threshold or 0.0) if threshold is None else threshold
        execution = backends.choose(self.config, backends.resolve_device(device, backend), precision, backend)
        self.device, self.backend, self.precision = execution
        numbers = [threads] if threads else _thread_numbers(self.device)
        self._model: backends.Backend | None = backends.load(self.config, execution, self.batch_size, numbers)

    def __repr__(self) -> str:
        return (
            f"<Predictor {self.path}: {len(self.classes)} classes, {self.precision} by {self.backend} on {self.device}>"
        )

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the model's memory; `scores` raises a UsageError from then on."""
        self._model = None

    def warm_up(self) -> None:
        """Run zeros, a single image and whole batches: a backend allocates and compiles in its first two runs."""
        size = self.config.input.image_size
        for images in (1, self.batch_size, self.batch_size):
            self.scores(np.zeros((images, size, size, 3), np.uint8))

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the scores."""
        return self.config.classes

    def predict(self, images: Source | Iterable[Source], top_k: int = 5) -> list[Prediction]:
        """Classify pictures of any size and mode: paths, encoded bytes, PIL images, or uint8 arrays.

        Args:
            images: the pictures; they are decoded batch by batch, so an iterator of any length takes little memory.
                A single one gives a list of one: an array `[H, W]`, `[H, W, 3]` or `[H, W, 4]`. An array
                `[N, H, W, 3 or 4]` holds N.
            top_k: how many classes to rank for each; cut to the number of classes.

        Raises:
            UsageError: a picture cannot be read, or `images` holds no pictures.
        """
        pictures = enumerate(_as_iterable(images))
        predictions: list[Prediction] = []
        while batch := list(islice(pictures, self.batch_size)):
            names = [str(picture) if isinstance(picture, str | Path) else f"image {i}" for i, picture in batch]
            tops = predict_batch(
                zip((picture for _, picture in batch), names, strict=True),
                lambda named: self.decode(*named),
                lambda pixels: self.rank(self.scores(pixels), top_k),
            )
            predictions += (Prediction(name, top, self.threshold) for name, top in zip(names, tops, strict=True))
        return predictions

    def predict_files(
        self, files: Sequence[Path | Unreadable], top_k: int = 5, decoded: Sequence[Pixels | Unreadable] | None = None
    ) -> list[Prediction | Unreadable]:
        """Classify files, `decoded` by `decode_file` or here; the result is `Unreadable` where one cannot be read."""
        size = self.config.input
        results = predict_batch(
            files if decoded is None else decoded,
            lambda file: decode_file(file, size.resize, size.image_size),
            lambda pixels: self.rank(self.scores(pixels), top_k),
        )
        return [
            result if isinstance(result, Unreadable) else Prediction(str(file), result, self.threshold)
            for file, result in zip(files, results, strict=True)
        ]

    def decode(self, picture: Source, name: str | None = None) -> Pixels:
        """Decode a picture, whose name in a UsageError is `name`, to what the model takes, uint8 `[S, S, 3]`."""
        return decode_image(picture, self.config.input.resize, self.config.input.image_size, name)

    def scores(self, batch: np.ndarray) -> np.ndarray:
        """Return the probabilities of the classes for uint8 RGB images.

        Args:
            batch: `[N, S, S, 3]` of any N; S is `config.input.image_size`.

        Returns:
            float32 `[N, classes]`.

        Raises:
            UsageError: `batch` has another type or shape, or the model has other classes than its `inference.yml`.
        """
        self._check(batch)
        model = self._model
        if model is None:
            raise UsageError(f"{self.path}: this predictor is closed; make a new one")
        scores: list[np.ndarray] = [np.zeros((0, len(self.classes)), np.float32)]
        for start in range(0, len(batch), self.batch_size):
            part = batch[start : start + self.batch_size]
            padding = (self.config.input.batch or len(part)) - len(part)
            if padding:
                part = np.concatenate([part, np.zeros((padding, *part.shape[1:]), np.uint8)])
            scores.append(model.run(np.ascontiguousarray(part))[: len(part) - padding])
            if scores[-1].shape[1] != len(self.classes):
                raise UsageError(
                    f"{self.path / FILE_NAME}: names {len(self.classes)} classes, but the model has "
                    f"{scores[-1].shape[1]}; {repair_advice()}"
                )
        return np.concatenate(scores)

    def rank(self, scores: np.ndarray, top_k: int = 5) -> list[tuple[ClassProbability, ...]]:
        """Return the `top_k` most probable classes for each row of `scores`, `[N, classes]`, the best first."""
        return rank(scores, self.classes, top_k)

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


def decode_file(file: Path | Unreadable | Pixels, resize: int, image_size: int) -> Pixels | Unreadable:
    """Decode a picture file as `decode_image` does; return the reason where it cannot be read."""
    if isinstance(file, Unreadable | np.ndarray):
        return file
    try:
        return decode_image(file, resize, image_size)
    except UsageError as error:
        return Unreadable(file, str(error))


def _as_iterable(images: Source | Iterable[Source]) -> Iterable[Source]:
    """Return several pictures as they are, and a single one in a list."""
    if isinstance(images, bytearray | memoryview):
        return [bytes(images)]
    if isinstance(images, str | Path | bytes | Image.Image):
        return [images]
    if isinstance(images, np.ndarray) and images.dtype.kind not in "OU":  # those hold paths or pictures
        has_channels = images.ndim == 2 or (images.ndim in (3, 4) and images.shape[-1] in (3, 4))
        if images.dtype != np.uint8 or not has_channels:
            raise UsageError(
                "expected uint8 pixels of one picture, [H, W], [H, W, 3] or [H, W, 4], or of several, [N, H, W, 3], "
                f"got {images.dtype} of shape {list(images.shape)}"
            )
        return images if images.ndim == 4 else [images]
    if not isinstance(images, Iterable) or hasattr(images, "read"):
        raise UsageError(f"expected a picture or several (path, bytes, PIL image, array), got {shown(images)}")
    return images


def _thread_numbers(device: str) -> list[int]:
    """Return the numbers of threads to choose from: one, unless the user left the choice open."""
    most = runtime.default_threads()
    return [most] if device != "cpu" or runtime.prepare_process().threads.preset else candidates(most)
