"""An exported ONNX model run by the oneDNN library inside Paddle's wheel, without Paddle."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np

from paddle_resnet.errors import UsageError
from paddle_resnet.inference.inference_config import InferenceConfig, onnx_file, read_checked
from paddle_resnet.inference.onednn_recording import Recording
from paddle_resnet.inference.onnx_graph import read_graph
from paddle_resnet.inference.onnx_layers import fuse
from paddle_resnet.inference.options import Precision
from paddle_resnet.onednn.bindings import DataType, OneDNNError
from paddle_resnet.system import threads

MOST_RECORDINGS = 8
"""Batch sizes whose primitives and buffers are kept."""


class OneDNNBackend:
    """A model as lists of oneDNN primitives, one list for each batch size.

    Calls that overlap wait for each other: a primitive's buffers are fixed.

    Args:
        folder: the folder of the files in `config`.
        config: what was exported.
        precision: "fp32", "bf16" (of the fp32 file), or "int8".
        number: of threads of one call.

    Raises:
        UsageError: the library or the file is missing, or it has an operation that this backend does not know.
    """

    def __init__(self, folder: Path, config: InferenceConfig, precision: Precision, number: int) -> None:
        file = onnx_file(folder, config, precision)
        data = read_checked(folder, file)
        self._precision = DataType.BFLOAT16 if precision == "bf16" else DataType.FLOAT32
        self._size, self._number = config.input.image_size, number
        self._weights: dict = {}
        self._recordings: OrderedDict[int, Recording] = OrderedDict()
        self._turn = threading.Lock()
        try:
            self._network = fuse(read_graph(data))
            mean = np.broadcast_to(self._network.mean.reshape(-1), (self._size, self._size, 3))
            self._mean = mean.reshape(-1).astype(np.float32)
            self.run(np.zeros((config.input.batch or 1, self._size, self._size, 3), np.uint8))
        except (KeyError, ValueError, OneDNNError) as error:
            raise UsageError(f"{folder / file.name}: backend onednn cannot run it: {error}; take onnxruntime") from None

    def run(self, batch: np.ndarray) -> np.ndarray:
        with self._turn:
            before = threads.count()
            threads.use(self._number)
            try:
                recording = self._recording(len(batch))
                if recording.input.dtype == np.uint8:
                    recording.input[...] = batch
                else:
                    np.subtract(batch.reshape(len(batch), -1), self._mean, out=recording.input.reshape(len(batch), -1))
                recording.run()
                return recording.output.reshape(len(batch), -1).copy()
            finally:
                threads.use(before)

    def _recording(self, number: int) -> Recording:
        recording = self._recordings.get(number)
        if recording is None:
            shape = number, self._size, self._size, 3
            recording = self._recordings[number] = Recording(self._network, shape, self._precision, self._weights)
            if len(self._recordings) > MOST_RECORDINGS:
                self._recordings.popitem(last=False)
        self._recordings.move_to_end(number)
        return recording
