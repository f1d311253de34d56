"""An exported ONNX model run by the oneDNN library inside Paddle's wheel, without Paddle."""

from __future__ import annotations

import threading
from functools import lru_cache

import numpy as np

from paddle_resnet.errors import UsageError
from paddle_resnet.inference.inference_config import InferenceConfig, onnx_file, read_checked
from paddle_resnet.inference.onednn_network import OneDNNNetwork, Shared
from paddle_resnet.inference.onnx_graph import read_graph
from paddle_resnet.inference.onnx_layers import fuse
from paddle_resnet.inference.options import Precision
from paddle_resnet.onednn.bindings import DataType, OneDNNError
from paddle_resnet.system import threads

MOST_BATCH_SIZES = 64
"""So many are kept."""


class OneDNNBackend:
    """A model as lists of oneDNN primitives, one list for each batch size.

    Calls that overlap wait for each other: a primitive's buffers are fixed. The precision is fp32, int8 or bf16 (of the
    fp32 file). `number` is that of a call's threads. Raise a UsageError if the library or the file is missing, or it
    has an operation that this backend does not know.
    """

    def __init__(self, config: InferenceConfig, precision: Precision, number: int) -> None:
        file = onnx_file(config, precision)
        data = read_checked(config, file)
        self._path, self._number, size = config.folder / file.name, number, config.input.image_size
        try:
            network = fuse(read_graph(data))
            self._mean = np.broadcast_to(network.mean.reshape(-1), (size, 3)).reshape(-1).astype(np.float32)
        except ValueError as error:
            raise self._refusal(error) from None
        data_type = DataType.BFLOAT16 if precision == "bf16" else DataType.FLOAT32
        shared = Shared()

        @lru_cache(MOST_BATCH_SIZES)
        def build(images: int) -> OneDNNNetwork:
            return OneDNNNetwork(network, (images, size, size, 3), data_type, shared)

        self._build, self._turn = build, threading.Lock()
        self.run(np.zeros((config.input.batch or 1, size, size, 3), np.uint8))

    def run(self, batch: np.ndarray) -> np.ndarray:
        with self._turn:
            before = threads.count()
            threads.use(self._number)
            try:
                built = self._build(len(batch))
                if built.input.dtype == np.uint8:
                    built.input[...] = batch
                else:
                    rows = built.input.reshape(-1, len(self._mean))
                    np.subtract(batch.reshape(rows.shape), self._mean, out=rows)
                built.run()
                return built.output.reshape(len(batch), -1).copy()
            except (KeyError, ValueError, MemoryError, OneDNNError) as error:
                raise self._refusal(error) from None
            finally:
                threads.use(before)

    def _refusal(self, error: Exception) -> UsageError:
        reason = f"{error} is needed before it is computed" if isinstance(error, KeyError) else error
        return UsageError(f"{self._path}: backend onednn cannot run it: {reason}; take onnxruntime")
