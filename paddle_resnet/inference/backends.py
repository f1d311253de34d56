"""The libraries that run an exported model: which one and with how many threads, and ONNX Runtime.

Paddle's is in `paddle_backend`.
"""

from __future__ import annotations

import importlib.util
import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Protocol

import numpy as np

from paddle_resnet import runtime
from paddle_resnet.console import logger
from paddle_resnet.errors import PaddleResNetError, RunFailure, UsageError, require_one_of
from paddle_resnet.inference.inference_config import FILE_NAME, InferenceConfig, onnx_file, read_checked, repair_advice
from paddle_resnet.inference.options import (
    BACKENDS,
    CPU_SUPPORT,
    GPU_SUPPORT,
    PRECISIONS,
    BackendName,
    Execution,
    Precision,
)
from paddle_resnet.system import machine
from paddle_resnet.system.threads import ThreadChooser, fastest

BFLOAT16_FEATURES = {"avx512_bf16", "amx_bf16"}
INSTALL = "pip install onnxruntime"
ERRORS_ONLY = 3

LOOK_SECONDS = 1.0
LOOK_CALLS = 10  # seconds and calls of work after which an `AdaptiveBackend` looks whether other programs are busy


class Backend(Protocol):
    """A loaded model; calls may overlap."""

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Return the probabilities, float32 `[n, classes]`, of uint8 images `[n, S, S, 3]`."""
        ...


def resolve_device(name: str, backend: BackendName | None) -> str:
    """Return what `runtime.resolve_device` does; "auto" is the CPU for the backends that run there alone."""
    return "cpu" if name == "auto" and backend in {*CPU_SUPPORT} - {*GPU_SUPPORT} else runtime.resolve_device(name)


def choose(config: InferenceConfig, device: str, precision: Precision | None, backend: BackendName | None) -> Execution:
    """Choose the backend and the precision where they are None.

    The default precision is fp32. The default backend on a CPU is ONNX Runtime if it is installed and its file was
    exported, else Paddle; a log line says so where only the package is missing. An unknown backend or precision, or a
    combination that this device or processor does not support, is a UsageError.
    """
    for what, name, names in (("backend", backend, BACKENDS), ("precision", precision, PRECISIONS)):
        if name is not None:
            require_one_of(what, name, names)
    precision = precision or "fp32"
    support = CPU_SUPPORT if device == "cpu" else GPU_SUPPORT
    able = [name for name, precisions in support.items() if precision in precisions and backend in (None, name)]
    if not able:
        pairs = ", ".join(f"{name} {each}" for name, precisions in support.items() for each in precisions)
        asked = precision if backend is None else f"{backend} {precision}"
        raise UsageError(f"{asked} is not available on device {device}; expected one of {pairs}")
    _require_machine(precision, backend)
    if backend is None and {"onnxruntime", "paddle"} <= {*able} and not _runs_in_onnxruntime(config):
        return Execution(device, "paddle", precision)
    return Execution(device, able[0], precision)


def _require_machine(precision: Precision, backend: BackendName | None) -> None:
    """Raise `UsageError` if this processor, or its oneDNN library, cannot compute so."""
    processor = machine.processor()
    if precision == "bf16" and not BFLOAT16_FEATURES & processor.features:
        raise UsageError(
            f"precision bf16: this processor ({processor.model or 'unknown'}) has neither AVX512-BF16 nor AMX-BF16; "
            "take fp32 or int8"
        )
    if backend == "onednn":
        from paddle_resnet.onednn.availability import unavailable_reason  # loads the library

        if (reason := unavailable_reason("cpu")) is not None:
            raise UsageError(f"backend onednn: {reason}; take onnxruntime")


def _runs_in_onnxruntime(config: InferenceConfig) -> bool:
    """Return whether the model has an ONNX file and the package is installed; log that the package alone is missing."""
    if config.files.onnx is not None and not is_installed():
        logger.info("%s: Paddle runs the model, as ONNX Runtime is not installed: %s", config.folder, INSTALL)
    return config.files.onnx is not None and is_installed()


def load(config: InferenceConfig, execution: Execution, batch: int, numbers: Sequence[int]) -> Backend:
    """Load an exported model, with the first of these `numbers` of threads; of several, the fastest is used later.

    `batch` is the most images of a call. A UsageError or RunFailure says why it cannot be used here.
    """

    def load_with(threads: int) -> Backend:
        if execution.backend == "onnxruntime":
            return OnnxBackend(config, execution.precision, threads)
        if execution.backend == "onednn":
            from paddle_resnet.inference.onednn_backend import OneDNNBackend

            return OneDNNBackend(config, execution.precision, threads)
        runtime.import_paddle()  # only for its own backend, as it takes a second
        from paddle_resnet.inference.paddle_backend import PaddleBackend

        return PaddleBackend(config, execution, batch, threads)

    return load_with(numbers[0]) if len(numbers) == 1 else AdaptiveBackend(load_with, numbers)


class AdaptiveBackend:
    """A model with the number of threads that is fastest beside the machine's other programs.

    All libraries keep the number with which they loaded a model: another number is another copy of the model. Two are
    in memory while they are compared, otherwise one. The first of the `numbers` is used while no other program is busy.
    """

    def __init__(self, load: Callable[[int], Backend], numbers: Sequence[int]) -> None:
        self._load = load
        self._numbers = numbers
        self._chooser = ThreadChooser(numbers)
        self._loaded = numbers[0], load(numbers[0])
        self._choosing = threading.Lock()
        self._worked = self._looked = 0.0

    def run(self, batch: np.ndarray) -> np.ndarray:
        started = perf_counter()
        scores = self._loaded[1].run(batch)
        taken = perf_counter() - started
        self._worked += taken
        if self._worked - self._looked >= max(LOOK_SECONDS, LOOK_CALLS * taken) and self._choosing.acquire(False):
            try:
                self._choose(batch)
            finally:
                self._choosing.release()
        return scores

    def _choose(self, batch: np.ndarray) -> None:
        self._looked = self._worked
        try:
            change = self._chooser.choose(self._worked, partial(self._measure, batch))
            if self._loaded[0] != self._chooser.number:
                self._loaded = self._chooser.number, self._load(self._chooser.number)
        except PaddleResNetError as error:
            logger.warning("warning: threads stay %d, as the model cannot be loaded again: %s", self._loaded[0], error)
            self._looked = math.inf
            return
        if change:
            logger.info("%s", change)

    def _measure(self, batch: np.ndarray, first: int) -> tuple[int, dict[int, float]]:
        speeds: dict[int, float] = {}
        for number in dict.fromkeys((first, *self._numbers)):
            if number != self._loaded[0]:
                speeds |= self._compare(number, batch, preferred=number == first)
        runtime.release_memory()  # of the slower copies: hundreds of comparisons would fragment it
        return self._loaded[0], speeds

    def _compare(self, number: int, batch: np.ndarray, preferred: bool) -> dict[int, float]:
        """Keep the model in use or that of another number, whichever is faster; return the seconds of both."""
        current, other = self._loaded, (number, self._load(number))
        models = (other, current) if preferred else (current, other)
        best, seconds = fastest({each: partial(model.run, batch) for each, model in models})
        self._loaded = current if best == current[0] else other
        return seconds


def is_installed() -> bool:
    """Return whether ONNX Runtime, which is optional, can be imported."""
    return importlib.util.find_spec("onnxruntime") is not None


class OnnxBackend:
    """A model in ONNX Runtime, fp32 or int8: one session, whose runs may overlap. `threads` are those of a call.

    Raise a UsageError if ONNX Runtime is not installed, or the file was not exported, is damaged, or takes another
    input, and a RunFailure if ONNX Runtime cannot load it.
    """

    def __init__(self, config: InferenceConfig, precision: Precision, threads: int) -> None:
        file = onnx_file(config, precision)
        path = config.folder / file.name
        if not is_installed():
            raise UsageError(f"{path}: ONNX Runtime is not installed: {INSTALL}")
        model = read_checked(config, file)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = ERRORS_ONLY
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own types, which share no narrower base
            raise RunFailure(f"{path}: ONNX Runtime {onnxruntime.__version__} cannot load it: {error}") from error
        (tensor, *_) = self._session.get_inputs()
        self._input = tensor.name
        batch, size = config.input.batch, config.input.image_size
        described = [batch if isinstance(tensor.shape[0], int) else tensor.shape[0], size, size, config.input.channels]
        if tensor.shape != described:
            raise UsageError(
                f"{config.folder / FILE_NAME}: describes an input of {described}, but {file.name} takes "
                f"{tensor.shape}; {repair_advice()}"
            )

    def run(self, batch: np.ndarray) -> np.ndarray:
        return self._session.run(None, {self._input: batch})[0]
