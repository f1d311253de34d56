"""Paddle Inference: on the CPU with oneDNN, on a GPU with or without TensorRT."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import paddle
from paddle import inference

from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.inference.inference_config import InferenceConfig, check_files, check_program
from paddle_resnet.inference.options import Execution
from paddle_resnet.paddle_compat import is_paddle_2
from paddle_resnet.paths import path_for_paddle
from paddle_resnet.system import machine

GPU_MEMORY_MB = 256  # at the start; it grows as needed
TENSORRT_WORKSPACE = 1 << 28  # bytes
LEAST_SUBGRAPH = 3  # fewest operations for a TensorRT engine


class PaddleBackend:
    """A model in Paddle Inference, for any number of threads.

    One Paddle predictor used by several threads gives wrong scores without an error. Calls that overlap therefore get a
    clone each, at most as many as the machine has cores. The weights are held once. `batch` is the largest one that
    TensorRT has to support, and `threads` are those of a call on the CPU.

    Missing or damaged files, a program too new for this Paddle, or a Paddle without TensorRT is a UsageError; a model
    that Paddle cannot load is a RunFailure.
    """

    def __init__(self, config: InferenceConfig, execution: Execution, batch: int, threads: int) -> None:
        files = config.files.program, config.files.parameters
        check_files(config, *files)
        check_program(config, paddle.__version__)
        own_suffix = ".pdmodel" if is_paddle_2() else ".json"
        if execution.precision == "bf16" and not files[0].name.endswith(own_suffix):
            # Paddle 3 leaves the output of a .pdmodel in bfloat16, which cannot be read.
            raise UsageError(
                f"{config.folder}: bf16 needs a program of this Paddle, {paddle.__version__}, not of "
                f"{config.versions.get('paddle')}; export the run again under this version"
            )
        self._first = _load(config, _settings(config, execution, batch, threads))
        # Again, as they may have been replaced meanwhile: Paddle 3 crashes on a .json program that is given as bytes.
        check_files(config, *files)
        # The last one that was put back is taken first; None is a clone that has not been needed yet.
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()
        for predictor in [None] * max(1, machine.physical_cores() - 1) + [self._first]:
            self._idle.put(predictor)
        self._cloning = threading.Lock()
        self._process = 0  # the id of the process that has run it; 0: none has

    def run(self, batch: np.ndarray) -> np.ndarray:
        if self._process not in (0, os.getpid()):
            raise UsageError("this predictor ran before the process was forked, and would hang; make a new one here")
        self._process = os.getpid()
        with self._borrowed() as predictor:
            # The names of inputs and outputs differ by Paddle's version.
            predictor.get_input_handle(predictor.get_input_names()[0]).copy_from_cpu(batch)
            predictor.run()
            return predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()

    @contextmanager
    def _borrowed(self) -> Iterator[Any]:
        """Take an idle predictor, or a new clone where calls overlap; return it afterwards."""
        predictor = self._idle.get()
        try:
            if predictor is None:
                with self._cloning:
                    predictor = self._first.clone()
            yield predictor
        finally:
            self._idle.put(predictor)


def _settings(config: InferenceConfig, execution: Execution, batch: int, threads: int) -> Any:
    program, parameters = (
        path_for_paddle(config.folder / file.name) for file in (config.files.program, config.files.parameters)
    )
    settings = inference.Config(program, parameters)
    settings.disable_glog_info()
    kind = inference.PrecisionType.Half if execution.precision == "fp16" else inference.PrecisionType.Float32
    if execution.device == "cpu":
        settings.set_cpu_math_library_num_threads(threads)  # one by default
        if execution.precision == "bf16":
            settings.enable_mkldnn()
            settings.enable_mkldnn_bfloat16()
    else:
        settings.enable_use_gpu(GPU_MEMORY_MB, int(execution.device.removeprefix("gpu:")), kind)
    if not program.endswith(".json"):
        # Paddle 3 cannot combine it with a .json program: "Not find predictor_id 0 and pass_name memory_optimize_pass".
        settings.enable_memory_optim()
    if execution.backend == "tensorrt":
        if tuple(inference.get_trt_compile_version()) == (0, 0, 0):
            version = paddle.__version__
            raise UsageError(f"backend tensorrt: Paddle {version} here was built without TensorRT; take paddle")
        settings.enable_tensorrt_engine(TENSORRT_WORKSPACE, batch, LEAST_SUBGRAPH, kind, False, False)
        shape = [config.input.image_size, config.input.image_size, config.input.channels]
        smallest, largest = {"images": [1, *shape]}, {"images": [batch, *shape]}
        settings.set_trt_dynamic_shape_info(smallest, largest, largest)
    return settings


def _load(config: InferenceConfig, settings: Any) -> Any:
    try:
        return inference.create_predictor(settings)
    except Exception as error:
        raise RunFailure(
            f"{config.folder}: Paddle {paddle.__version__} cannot load this model, exported by "
            f"{config.versions.get('paddle')}: {error}"
        ) from error
