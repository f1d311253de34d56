"""Who answers: Paddle Inference or ONNX Runtime, by device and precision and by what was exported."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Protocol

import numpy as np

from paddle_resnet import machine
from paddle_resnet.console import logger
from paddle_resnet.errors import RunFailure, UsageError, did_you_mean
from paddle_resnet.inference.inference_config import InferenceConfig, ModelFile, read_checked
from paddle_resnet.inference.options import BACKENDS, CPU_SUPPORT, GPU_SUPPORT, PRECISIONS, BackendName, Precision
from paddle_resnet.inference.paddle_backend import PaddleBackend

BFLOAT16_FEATURES = {"avx512_bf16", "amx_bf16"}


class Backend(Protocol):
    """A loaded model; calls may overlap."""

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Answer uint8 `[n, S, S, 3]` with float32 probabilities `[n, classes]`."""
        ...


def choose(
    folder: Path, config: InferenceConfig, device: str, precision: Precision | None, backend: BackendName | None
) -> tuple[BackendName, Precision]:
    """Decide for what was left open.

    Without a precision: fp32. Without a backend: ONNX Runtime on a CPU where it is installed and its file was exported,
    else Paddle; where only the package is missing, a line says so.

    Raises:
        UsageError: there is no such backend or precision, or not together, or not on this device or processor.
    """
    _check_name("backend", backend, BACKENDS)
    _check_name("precision", precision, PRECISIONS)
    wanted = precision or "fp32"
    table = CPU_SUPPORT if device == "cpu" else GPU_SUPPORT
    able = [name for name, offered in table.items() if wanted in offered and backend in (None, name)]
    if not able:
        pairs = ", ".join(f"{name} {each}" for name, offered in table.items() for each in offered)
        asked = wanted if backend is None else f"{backend} {wanted}"
        raise UsageError(f"{asked} is not there on device {device}; expected one of {pairs}")
    if wanted == "bf16" and not BFLOAT16_FEATURES & machine.processor().features:
        raise UsageError(f"precision bf16: {_processor()} has neither AVX512-BF16 nor AMX-BF16; take fp32 or int8")
    if backend is None and able == ["onnxruntime", "paddle"] and not _onnx_is_there(folder, config):
        return "paddle", wanted
    return able[0], wanted


def load(
    folder: Path,
    config: InferenceConfig,
    device: str,
    backend: BackendName,
    precision: Precision,
    threads: int,
    batch_size: int,
) -> Backend:
    """Load an exported model.

    Raises:
        UsageError, RunFailure: it cannot be used here; the line says why.
    """
    if backend == "onnxruntime":
        return OnnxBackend(folder, config, precision, threads)
    largest = batch_size if backend == "tensorrt" else None
    return PaddleBackend(folder, config, device, precision, threads, largest)


def _onnx_is_there(folder: Path, config: InferenceConfig) -> bool:
    if config.files.onnx is None:
        return False
    if not is_installed():
        logger.info("%s: Paddle answers, as ONNX Runtime is not installed: %s", folder, INSTALL)
        return False
    return True


def _check_name(what: str, name: str | None, names: tuple[str, ...]) -> None:
    if name is not None and name not in names:
        raise UsageError(f"{what} {name}: expected one of {', '.join(names)}{did_you_mean(name, names)}")


def _processor() -> str:
    return f"this processor ({machine.processor().model or 'unknown'})"


ERRORS_ONLY = 3
INSTALL = "pip install onnxruntime"


def is_installed() -> bool:
    """Whether ONNX Runtime can be imported; it is optional."""
    return importlib.util.find_spec("onnxruntime") is not None


def model_file(config: InferenceConfig, precision: Precision) -> ModelFile | None:
    """The exported ONNX file of a precision, or None."""
    return {"fp32": config.files.onnx, "int8": config.files.onnx_int8}.get(precision)


class OnnxBackend:
    """A model in ONNX Runtime: one session, whose runs may overlap.

    Args:
        folder: where the files of `config` lie.
        config: what was exported.
        precision: "fp32" or "int8".
        threads: of one call.

    Raises:
        UsageError: ONNX Runtime is not installed, the file was not exported, is missing or damaged.
        RunFailure: ONNX Runtime cannot load the model.
    """

    def __init__(self, folder: Path, config: InferenceConfig, precision: Precision, threads: int) -> None:
        file = model_file(config, precision)
        if file is None:
            option = "--precision int8" if precision == "int8" else "--onnx"
            raise UsageError(f"{folder}: holds no ONNX model of {precision}; export the run again with {option}")
        if not is_installed():
            raise UsageError(f"{folder / file.name}: ONNX Runtime is not installed: {INSTALL}")
        model = read_checked(folder, file)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = ERRORS_ONLY
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own types, all of them Exceptions only
            raise RunFailure(
                f"{folder / file.name}: ONNX Runtime {onnxruntime.__version__} cannot load it: {error}"
            ) from error
        self._input = self._session.get_inputs()[0].name

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Answer uint8 `[n, S, S, 3]` with float32 `[n, classes]`."""
        return self._session.run(None, {self._input: batch})[0]
