"""An ONNX model in 8-bit integers: post-training quantisation by ONNX Runtime, calibrated with real images.

Weights are quantised channel by channel, activations by the range that they took on the calibration images (Jacob et
al. 2017, https://arxiv.org/abs/1712.05877). What follows the last feature maps, the head and its probabilities, stays
in float32: it takes no time, and there an error would be an error of the answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from paddle_resnet.errors import UsageError
from paddle_resnet.export.onnx import INPUT, require_onnx
from paddle_resnet.export.program import output_hidden
from paddle_resnet.files import scratch_folder, write_aside
from paddle_resnet.models.onnx_file import onnx_requirements

QUANTIZED = ["Conv", "Relu", "Add", "MaxPool", "AveragePool", "Concat"]
HEAD = {"GlobalAveragePool", "Flatten", "Reshape", "MatMul", "Gemm"}
"""With the first of these the head begins."""


def quantize(model: Path, destination: Path, batches: Iterable[np.ndarray]) -> None:
    """Write `model` in 8-bit integers to `destination`; its metadata stay.

    Args:
        model: an ONNX file that subtracts one whole level from its pixels (`folding.fold` with `one_level`).
        destination: the file to write.
        batches: calibration images, uint8 `[n, S, S, 3]` each.

    Raises:
        UsageError: a package is missing.
        RunFailure: the file cannot be written.
    """
    onnx, _ = require_onnx()
    library = _quantization_library()
    whole = onnx.load(model)
    graph = whole.graph
    centred = next(node for node in graph.node if node.op_type == "Sub")
    # A pixel is its own quantised value: one step is one level, and zero is the level that was subtracted.
    levels = {"scale": np.ones((), np.float32), "zero_point": _constant(onnx, graph, centred.input[1]).astype(np.uint8)}
    with scratch_folder() as folder, output_hidden():
        quantized = folder / "quantized.onnx"
        library.quantize_static(
            str(model),
            str(quantized),
            _Images(batches),
            quant_format=library.QuantFormat.QDQ,
            op_types_to_quantize=QUANTIZED,
            nodes_to_exclude=_head(graph),
            per_channel=True,
            activation_type=library.QuantType.QUInt8,
            weight_type=library.QuantType.QInt8,
            extra_options={"TensorQuantOverrides": {centred.output[0]: [levels]}},
        )
        result = onnx.load(quantized)
    _take_pixels(result.graph)
    del result.metadata_props[:]
    result.metadata_props.extend(whole.metadata_props)
    onnx.checker.check_model(result)
    write_aside(destination, lambda temporary: onnx.save(result, str(temporary)))


class _Images:
    """The calibration images as ONNX Runtime asks for them (its `CalibrationDataReader`)."""

    def __init__(self, batches: Iterable[np.ndarray]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Give the next batch; None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def _head(graph: Any) -> list[str]:
    """Names of the nodes from the head's first to the last."""
    behind: set[str] = set()
    names = []
    for node in graph.node:  # in the order of computation
        if node.op_type in HEAD or behind & set(node.input):
            behind |= set(node.output)
            names.append(node.name)
    return names


def _take_pixels(graph: Any) -> None:
    """Leave out what makes numbers of pixels only to quantise them again to the same pixels.

    Cast, transpose, subtract and quantise become: transpose the pixels as they are. Where something stands between,
    as the mirror image does, all stays.
    """
    chain = _from_pixels(graph)
    if [node.op_type for node in chain] != ["Cast", "Transpose", "Sub", "QuantizeLinear"]:
        return
    cast, transpose, subtract, to_int8 = chain
    transpose.input[0] = INPUT
    transpose.output[0] = to_int8.output[0]
    for node in (cast, subtract, to_int8):
        graph.node.remove(node)


def _from_pixels(graph: Any) -> list[Any]:
    """The first four nodes behind the input, as long as each has one successor."""
    chain: list[Any] = []
    tensor = INPUT
    while len(chain) < 4:
        takers = [node for node in graph.node if tensor in node.input]
        if len(takers) != 1:
            break
        chain += takers
        tensor = takers[0].output[0]
    return chain


def _quantization_library() -> Any:
    try:
        return import_module("onnxruntime.quantization")
    except ImportError as error:
        raise UsageError(f"int8 needs {error.name}: pip install -r {onnx_requirements()}") from error


def _constant(onnx: Any, graph: Any, name: str) -> np.ndarray:
    tensor = next(each for each in graph.initializer if each.name == name)
    return onnx.numpy_helper.to_array(tensor).flat[:1].reshape(())
