"""ONNX Runtime answering, on the CPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.inference.inference_config import InferenceConfig, ModelFile, Precision, read_checked

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
