"""Who answers: Paddle Inference or ONNX Runtime, by device and precision and by what was exported."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from paddle_resnet import machine
from paddle_resnet.console import logger
from paddle_resnet.errors import UsageError, did_you_mean
from paddle_resnet.inference import onnx_backend
from paddle_resnet.inference.inference_config import BACKENDS, PRECISIONS, Backend, InferenceConfig, Precision
from paddle_resnet.inference.onnx_backend import OnnxBackend
from paddle_resnet.inference.paddle_backend import PaddleBackend

CPU: dict[Backend, tuple[Precision, ...]] = {"onnxruntime": ("fp32", "int8"), "paddle": ("fp32", "bf16")}
GPU: dict[Backend, tuple[Precision, ...]] = {"paddle": ("fp32", "fp16"), "tensorrt": ("fp32", "fp16")}
"""What each can do, the preferred first: on a CPU ONNX Runtime was the faster in float32 wherever it was measured."""

BFLOAT16_FEATURES = {"avx512_bf16", "amx_bf16"}


class Answering(Protocol):
    """A loaded model; calls may overlap."""

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Answer uint8 `[n, S, S, 3]` with float32 probabilities `[n, classes]`."""
        ...


def choose(
    folder: Path, config: InferenceConfig, device: str, precision: Precision | None, backend: Backend | None
) -> tuple[Backend, Precision]:
    """Decide for what was left open.

    Without a precision: fp32. Without a backend: ONNX Runtime on a CPU where it is installed and its file was exported,
    else Paddle; where only the package is missing, a line says so.

    Raises:
        UsageError: there is no such backend or precision, or not together, or not on this device or processor.
    """
    _check_name("backend", backend, BACKENDS)
    _check_name("precision", precision, PRECISIONS)
    wanted = precision or "fp32"
    table = CPU if device == "cpu" else GPU
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
    backend: Backend,
    precision: Precision,
    threads: int,
    batch_size: int,
) -> Answering:
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
    if not onnx_backend.is_installed():
        logger.info("%s: Paddle answers, as ONNX Runtime is not installed: %s", folder, onnx_backend.INSTALL)
        return False
    return True


def _check_name(what: str, name: str | None, names: tuple[str, ...]) -> None:
    if name is not None and name not in names:
        raise UsageError(f"{what} {name}: expected one of {', '.join(names)}{did_you_mean(name, names)}")


def _processor() -> str:
    return f"this processor ({machine.processor().model or 'unknown'})"
