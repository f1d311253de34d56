"""Programs of Paddle converted to ONNX by paddle2onnx; those of exported runs are simplified, with fixed names."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from paddle import nn
from paddle.static import InputSpec

from paddle_resnet.errors import PaddleResNetError, RunFailure, UsageError
from paddle_resnet.exporting.program import output_hidden, save_layer
from paddle_resnet.files import scratch_folder, write_atomically
from paddle_resnet.paddle_compat import is_paddle_2
from paddle_resnet.paths import path_for_paddle
from paddle_resnet.project_files import requirements_file

OPSET = 13
INPUT, OUTPUT, BATCH = "images", "probabilities", "batch"
ERRORS_ONLY = 3


def onnx_requirements() -> str:
    """Return the requirements file for ONNX; each Paddle series needs its own series of paddle2onnx."""
    return requirements_file("onnx_paddle2.txt" if is_paddle_2() else "onnx.txt")


def require_package(name: str, feature: str = "ONNX") -> ModuleType:
    """Import a package of `onnx_requirements`; raise a UsageError if it is missing, or for another Paddle."""
    try:
        return import_module(name)
    except (ImportError, ValueError) as error:  # a paddle2onnx for another Paddle raises a ValueError
        missing = getattr(error, "name", None) or name
        raise UsageError(f"{feature} needs {missing}: pip install -r {onnx_requirements()}") from error


def require_onnx() -> tuple[ModuleType, ModuleType]:
    """Import onnx and ONNX Runtime; raise a UsageError if one of them or paddle2onnx is missing."""
    require_package("paddle2onnx")
    return require_package("onnx"), require_package("onnxruntime")


def write_onnx(network: nn.Layer, path: Path, input_shape: tuple[int, ...]) -> None:
    """Write `network`, in evaluation mode and with a dynamic batch size, as ONNX of opset 13 to `path`.

    `input_shape` is ``[N, C, H, W]``. Raise a UsageError as `require_package` does, and a RunFailure if the network
    cannot be converted or the file cannot be written.
    """
    require_package("paddle2onnx")
    network.eval()
    dynamic_batch = InputSpec([None, *input_shape[1:]], "float32")
    with scratch_folder() as folder:
        _convert(*save_layer(network, folder / "model", dynamic_batch), path)


def write_onnx_program(program: Path, parameters: Path, path: Path, metadata: Mapping[str, str]) -> None:
    """Convert a saved program (.json or .pdmodel, .pdiparams), with constants folded and biases inside convolutions.

    The file holds the `metadata`, and only standard operations of opset 13. Its input is `images`, its output
    `probabilities`. Errors are those of `write_onnx`.
    """
    onnx, onnxruntime = require_onnx()
    with scratch_folder() as folder, output_hidden():
        converted, simplified = folder / "converted.onnx", folder / "simplified.onnx"
        _convert(program, parameters, converted)
        options = onnxruntime.SessionOptions()
        # "Basic" is the same on every machine; higher levels choose operations for this one.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(simplified)
        options.log_severity_level = ERRORS_ONLY
        onnxruntime.InferenceSession(str(converted), options, providers=["CPUExecutionProvider"])
        model = onnx.load(simplified)
    _rename(model.graph)
    standard = [domain for domain in model.opset_import if domain.domain in ("", "ai.onnx")]
    del model.opset_import[:]
    model.opset_import.extend(standard)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    write_atomically(path, lambda temporary: onnx.save(model, str(temporary)))


def _convert(program: Path, parameters: Path, path: Path) -> None:
    paddle2onnx = require_package("paddle2onnx")
    # Without its optimizer, which in paddle2onnx 2 installs packages over the network.
    options = {} if paddle2onnx.__version__.startswith("1.") else {"optimize_tool": "None"}

    def convert(temporary: Path) -> None:
        paddle2onnx.export(*map(path_for_paddle, (program, parameters, temporary)), opset_version=OPSET, **options)

    try:
        write_atomically(path, convert)
    except PaddleResNetError:
        raise
    except Exception as error:  # its compiled part raises anything
        raise RunFailure(
            f"{path}: paddle2onnx {paddle2onnx.__version__} could not convert the network ({error})"
        ) from error


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
