"""The exported program as ONNX: simplified, with the same names from every Paddle."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddle_resnet.errors import UsageError
from paddle_resnet.export.program import output_hidden
from paddle_resnet.files import scratch_folder, write_aside
from paddle_resnet.models.onnx_file import convert_to_onnx, onnx_requirements, require_paddle2onnx

if TYPE_CHECKING:
    from types import ModuleType

INPUT, OUTPUT, BATCH = "images", "probabilities", "batch"


def require_onnx() -> tuple[ModuleType, ModuleType]:
    """Import onnx and ONNX Runtime, and check that paddle2onnx is installed.

    Raises:
        UsageError: one of them is missing.
    """
    require_paddle2onnx()
    try:
        return import_module("onnx"), import_module("onnxruntime")
    except ImportError as error:
        raise UsageError(f"ONNX needs {error.name}: pip install -r {onnx_requirements()}") from error


def write_onnx_program(program: Path, parameters: Path, path: Path, metadata: Mapping[str, str]) -> None:
    """Convert what `paddle.jit.save` wrote, with constants folded and biases inside their convolutions.

    The file holds only standard operations of opset 13. Its input is `images`, its output `probabilities`.

    Args:
        program: the .json or .pdmodel.
        parameters: the .pdiparams.
        path: the file to write.
        metadata: key and value pairs to store in it.

    Raises:
        UsageError: a package is missing.
        RunFailure: the program could not be converted, or the file cannot be written.
    """
    onnx, onnxruntime = require_onnx()
    with scratch_folder() as folder, output_hidden():
        converted, simple = folder / "converted.onnx", folder / "simple.onnx"
        convert_to_onnx(program, parameters, converted)
        options = onnxruntime.SessionOptions()
        # "Basic" is the same on every machine; higher levels choose operations for this one.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(simple)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(converted), options, providers=["CPUExecutionProvider"])
        model = onnx.load(simple)
    _rename(model.graph)
    standard = [domain for domain in model.opset_import if domain.domain in ("", "ai.onnx")]
    del model.opset_import[:]
    model.opset_import.extend(standard)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    write_aside(path, lambda temporary: onnx.save(model, str(temporary)))


def _rename(graph: Any) -> None:
    """Give input, output and a free batch size fixed names; paddle2onnx's depend on Paddle's version."""
    names = {graph.input[0].name: INPUT, graph.output[0].name: OUTPUT}
    for number, node in enumerate(graph.node):
        node.name = f"{node.op_type}.{number}"
        for ends in (node.input, node.output):
            ends[:] = [names.get(end, end) for end in ends]
    for value in (graph.input[0], graph.output[0]):
        value.name = names[value.name]
        batch = value.type.tensor_type.shape.dim[0]
        if not batch.dim_value:
            batch.dim_param = BATCH
    del graph.value_info[:]  # intermediate shapes, under the old names
