"""Write a network as an ONNX file with paddle2onnx."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import paddle
from paddle import nn

from paddle_resnet.errors import PaddleResNetError, RunFailure, UsageError
from paddle_resnet.files import require_space, scratch_folder, write_aside
from paddle_resnet.paddle_compat import is_paddle_2
from paddle_resnet.shipped import requirements_file

OPSET = 13


def onnx_requirements() -> str:
    """Return the requirements file for ONNX; each Paddle series needs its own series of paddle2onnx."""
    return requirements_file("onnx_paddle2.txt" if is_paddle_2() else "onnx.txt")


def write_onnx(network: nn.Layer, path: Path, input_shape: tuple[int, ...]) -> None:
    """Write `network`, in evaluation mode and with a dynamic batch size, as ONNX of opset 13 to `path`.

    `input_shape` is ``[N, C, H, W]``.

    Raises:
        UsageError: paddle2onnx is missing, or does not fit the running Paddle.
        RunFailure: it could not convert the network, or the file cannot be written.
    """
    require_paddle2onnx()
    network.eval()
    dynamic_batch = paddle.static.InputSpec([None, *input_shape[1:]], "float32")
    with scratch_folder() as folder:
        paddle.jit.save(network, f"{folder}/model", input_spec=[dynamic_batch])
        require_space(folder / "model")
        graph = next(file for file in folder.iterdir() if file.suffix in (".json", ".pdmodel"))
        convert_to_onnx(graph, folder / "model.pdiparams", path)


def require_paddle2onnx() -> ModuleType:
    """Import paddle2onnx.

    Raises:
        UsageError: it is missing, or does not fit the running Paddle.
    """
    try:
        return importlib.import_module("paddle2onnx")
    except (ImportError, ValueError) as error:  # a paddle2onnx for another Paddle raises a ValueError
        raise UsageError(f"ONNX needs paddle2onnx: pip install -r {onnx_requirements()}") from error


def convert_to_onnx(program: Path, parameters: Path, path: Path) -> None:
    """Convert files of `paddle.jit.save` to ONNX of opset 13, at `path`.

    Raises:
        UsageError: paddle2onnx is missing, or does not fit the running Paddle.
        RunFailure: it could not convert the network, or the file cannot be written.
    """
    paddle2onnx = require_paddle2onnx()
    # Without its optimizer, which in paddle2onnx 2 installs packages over the network.
    options = {} if paddle2onnx.__version__.startswith("1.") else {"optimize_tool": "None"}

    def convert(temporary: Path) -> None:
        paddle2onnx.export(str(program), str(parameters), str(temporary), opset_version=OPSET, **options)

    try:
        write_aside(path, convert)
    except PaddleResNetError:
        raise
    except Exception as error:  # its compiled part raises anything
        raise RunFailure(
            f"{path}: paddle2onnx {paddle2onnx.__version__} could not convert the network ({error})"
        ) from error
