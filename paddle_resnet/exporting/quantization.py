"""An ONNX model in 8-bit integers: post-training quantisation by ONNX Runtime, calibrated with real images.

Weights are quantised to 7 bits for each channel, activations to 8 bits by their range on the calibration images (Jacob
et al. 2017, https://arxiv.org/abs/1712.05877). The head after the last feature maps stays in float32: it takes hardly
any time, and its errors would go into the probabilities directly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from paddle_resnet.config import DataConfig
from paddle_resnet.console import logger
from paddle_resnet.data.datasets.open_splits import resize_size
from paddle_resnet.errors import UsageError
from paddle_resnet.exporting.onnx import INPUT, require_onnx, require_package
from paddle_resnet.exporting.program import output_hidden
from paddle_resnet.files import scratch_folder, write_atomically
from paddle_resnet.images import Pixels
from paddle_resnet.images.decode import decode_image, resize_and_crop_batch
from paddle_resnet.images.find import find_image_files
from paddle_resnet.training.run_folder import Run

QUANTIZED = ["Conv", "Relu", "Add", "MaxPool", "AveragePool", "Concat"]
HEAD = {"GlobalAveragePool", "Flatten", "Reshape", "MatMul", "Gemm"}  # the head begins with the first of these
CALIBRATION_IMAGES = 256


def quantize(model: Path, destination: Path, batches: Iterable[np.ndarray]) -> None:
    """Write `model` in 8-bit integers to `destination`, with the same metadata.

    It is an ONNX file of a network folded with `shared_mean` (see `folding.fold`). The `batches` are calibration
    images, uint8 `[n, S, S, 3]` each. Raise a UsageError if a package is missing, and a RunFailure if the file cannot
    be written.
    """
    onnx, _ = require_onnx()
    library = require_package("onnxruntime.quantization", "int8")
    float32 = onnx.load(model)
    graph = float32.graph
    centred = next(node for node in graph.node if node.op_type == "Sub")
    subtracted = next(each for each in graph.initializer if each.name == centred.input[1])
    zero_point = onnx.numpy_helper.to_array(subtracted).flat[0]
    # A pixel is its own quantised value: the step is 1, and the zero point is the number that was subtracted.
    as_pixels = {"scale": np.ones((), np.float32), "zero_point": np.array(zero_point, np.uint8)}
    feeds = ({INPUT: batch} for batch in batches)
    reader = SimpleNamespace(get_next=partial(next, feeds, None))  # ONNX Runtime's `CalibrationDataReader`
    with scratch_folder() as folder, output_hidden():
        quantized = folder / "quantized.onnx"
        library.quantize_static(
            str(model),
            str(quantized),
            reader,
            quant_format=library.QuantFormat.QDQ,
            op_types_to_quantize=QUANTIZED,
            nodes_to_exclude=_head(graph),
            per_channel=True,
            reduce_range=True,  # without 8-bit dot products, two products are added in 16 bits: with 7 bits they fit
            activation_type=library.QuantType.QUInt8,
            weight_type=library.QuantType.QInt8,
            extra_options={"TensorQuantOverrides": {centred.output[0]: [as_pixels]}},
        )
        result = onnx.load(quantized)
    _skip_first_quantization(result.graph)
    del result.metadata_props[:]
    result.metadata_props.extend(float32.metadata_props)
    onnx.checker.check_model(result)
    write_atomically(destination, lambda temporary: onnx.save(result, str(temporary)))


def calibration_batches(run: Run, batch: int, pictures: Pixels | None = None) -> Iterator[Pixels]:
    """Yield about 256 images, uint8 `[batch, S, S, 3]`: given `pictures`, or those of the validation split.

    The test split is only for measuring. Images are spread evenly over the split, which may be sorted by class.
    """
    number = max(1, CALIBRATION_IMAGES // batch)
    count = len(run.splits().validation) if pictures is None else len(pictures)
    for indices in np.linspace(0, count - 1, number * batch).astype(np.int64).reshape(number, batch):
        if pictures is not None:
            yield pictures[indices]
        else:
            splits, size = run.splits(), run.config.data.image_size
            yield resize_and_crop_batch(splits.validation.batch(indices), splits.resize, size)


def read_pictures(folder: Path, data: DataConfig) -> Pixels:
    """Read at most 256 pictures spread evenly over a folder, uint8 `[n, S, S, 3]`; leave out unreadable ones.

    Resize and crop are those of a run's `data`. No folder, or no readable picture in it, is a UsageError.
    """
    if not folder.is_dir():
        raise UsageError(
            f"{folder}: no such folder; --calibrate expects a folder of pictures like those to be predicted"
        )
    files = [each for each in find_image_files(folder) if isinstance(each, Path)]
    pictures, reason = [], ""
    for index in np.unique(np.linspace(0, len(files) - 1, CALIBRATION_IMAGES).astype(np.int64)) if files else ():
        try:
            pictures.append(decode_image(files[index], resize_size(data), data.image_size))
        except UsageError as error:
            reason = str(error)
            logger.warning("warning: %s", error)
    if not pictures:
        raise UsageError(f"{folder}: no readable picture in it{reason and f', such as {reason}'}")
    return np.stack(pictures)


def _head(graph: Any) -> list[str]:
    """Return the names of the head's nodes."""
    in_head: set[str] = set()
    names = []
    for node in graph.node:  # in the order of computation
        if node.op_type in HEAD or in_head & set(node.input):
            in_head |= set(node.output)
            names.append(node.name)
    return names


def _skip_first_quantization(graph: Any) -> None:
    """Remove the operations that convert pixels to float32 and quantise them to the same pixels again.

    Of cast, transpose, subtract and quantise only the transpose remains. Another chain, as with mirror images, stays.
    """
    chain, tensor = [], INPUT
    for operation in ("Cast", "Transpose", "Sub", "QuantizeLinear"):
        successors = [node for node in graph.node if tensor in node.input]
        if [node.op_type for node in successors] != [operation]:
            return
        chain += successors
        tensor = successors[0].output[0]
    cast, transpose, subtract, to_int8 = chain
    transpose.input[0] = INPUT
    transpose.output[0] = to_int8.output[0]
    for node in (cast, subtract, to_int8):
        graph.node.remove(node)
