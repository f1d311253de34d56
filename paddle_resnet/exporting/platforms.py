"""An exported model in the forms of other platforms: PaddleX, Triton Inference Server, and a page for browsers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import paddle
import yaml
from paddle import nn
from paddle.static import InputSpec

from paddle_resnet.console import logger
from paddle_resnet.errors import UsageError, shown
from paddle_resnet.exporting.onnx import INPUT, OUTPUT
from paddle_resnet.exporting.program import folded_network, save_layer
from paddle_resnet.files import require_writable, write_folder
from paddle_resnet.inference.inference_config import InferenceConfig, ModelFile
from paddle_resnet.inference.options import Precision
from paddle_resnet.paths import require_name_for_folder
from paddle_resnet.text_files import write_text
from paddle_resnet.training.run_folder import Run, Which

# PaddleX's names of networks. It accepts no others, and reads nothing else from them than the kind of task.
PADDLEX_NAMES = {
    **{f"resnet{layers}": f"ResNet{layers}" for layers in (18, 34, 50, 101, 152)},
    **{f"resnet{layers}_vd": f"ResNet{layers}_vd" for layers in (18, 34, 50, 101, 152, 200)},
    **{f"resnet{layers}_d": f"ResNet{layers}_vd" for layers in (50, 101, 152)},
}
OTHER_NETWORKS = "ResNet18"
PADDLEX_FILES = {f"inference{end}" for end in (".json", ".pdmodel", ".pdiparams", ".pdiparams.info", ".yml")}
TRITON_FILES = {"config.pbtxt", "labels.txt", "1/model.onnx"}
LARGEST_BATCH = 64
QUEUE_MICROSECONDS = 2000

PAGES = Path(__file__).parent / "web"
SCRIPT = "ort.wasm.min.js"
RUNTIME_FILES = (SCRIPT, "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""What the page loads of the npm package onnxruntime-web, from its folder ``dist``."""
MODEL = "model.onnx"
SCRIPTS = ("app.js", "preprocess.js")
WEB_FILES = {"index.html", *SCRIPTS, MODEL, "description.json", *(f"runtime/{name}" for name in RUNTIME_FILES)}


class _PaddleXInput(nn.Layer):
    """The exported network for PaddleX's input, levels 0 to 255 as float32 ``[N, 3, S, S]``."""

    def __init__(self, network: nn.Layer) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.network(x.transpose([0, 2, 3, 1]).astype("uint8"))


def write_paddlex(run: Run, checkpoint: Which, folder: Path) -> str:
    """Write the network in the form of PaddleX 3: program, weights and an ``inference.yml`` of PaddleX's.

    The program contains the normalisation, as in every export, so PaddleX only resizes and crops. Return the name for
    ``paddlex.create_model(model_name=NAME, model_dir=FOLDER)``. Raise a UsageError if the folder has other files or the
    run has no such checkpoint, and a RunFailure if the folder cannot be written.
    """
    exported = InferenceConfig.load(run.inference_path)
    name, size = PADDLEX_NAMES.get(exported.model, OTHER_NETWORKS), exported.input.image_size
    operations: list[dict[str, Any]] = [
        {"ResizeImage": {"resize_short": exported.input.resize, "backend": "pil", "interpolation": "BILINEAR"}},
        {"CropImage": {"size": size}},
        {"NormalizeImage": {"scale": 1.0, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}},
        {"ToCHWImage": None},
    ]
    classes = list(exported.classes)
    description = {
        "Global": {"model_name": name},
        "PreProcess": {"transform_ops": operations},
        "PostProcess": {"Topk": {"topk": min(5, len(classes)), "label_list": classes}},
    }

    def write(temporary: Path) -> None:
        network = _PaddleXInput(folded_network(run, checkpoint))
        save_layer(network, temporary / "inference", InputSpec([None, 3, size, size], "float32", "x"))
        write_text(temporary / "inference.yml", yaml.safe_dump(description, sort_keys=False, allow_unicode=True))

    write_new_folder(folder, PADDLEX_FILES, write)
    return name


def write_triton(run: Run, folder: Path) -> list[str]:
    """Write the exported ONNX files to a model repository of Triton Inference Server, beside its other models.

    https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_repository.html

    Return the names of the models: the run's, and ``<name>_int8`` where int8 was exported. Raise a UsageError if a
    model's folder has other files or the run was exported without ONNX, and a RunFailure if the folder cannot be
    written.
    """
    exported = InferenceConfig.load(run.inference_path)
    models = {run.config.name: exported.files.onnx, f"{run.config.name}_int8": exported.files.onnx_int8}
    files = {name: file for name, file in models.items() if file is not None}
    if exported.files.onnx is None:
        raise UsageError(f"{run.inference_path} has no ONNX model, which Triton needs: export it with --onnx")

    for name, file in files.items():
        write_new_folder(folder / name, TRITON_FILES, partial(_write_triton_model, run, name, file, exported))
    for name in models.keys() - files:
        if (folder / name).is_dir():
            logger.warning("warning: %s is of an earlier export, as this one has no int8 model", folder / name)
    return list(files)


def _write_triton_model(run: Run, name: str, file: ModelFile, exported: InferenceConfig, folder: Path) -> None:
    (folder / "1").mkdir()
    shutil.copyfile(run.inference_path / file.name, folder / "1" / "model.onnx")
    write_text(folder / "labels.txt", "".join(f"{' '.join(label.split())}\n" for label in exported.classes))
    write_text(folder / "config.pbtxt", _triton_config(name, exported))


def _triton_config(name: str, exported: InferenceConfig) -> str:
    """Return a ``ModelConfig`` in protobuf's text format; a model of one fixed batch size is not batched."""
    batch = exported.input.batch
    size, classes = exported.input.image_size, len(exported.classes)
    fixed = [] if batch is None else [batch]  # protobuf's lists are written as Python's
    lines = [
        f'name: "{name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {LARGEST_BATCH if batch is None else 0}",
        f'input {{ name: "{INPUT}" data_type: TYPE_UINT8 dims: {[*fixed, size, size, 3]} }}',
        f'output {{ name: "{OUTPUT}" data_type: TYPE_FP32 dims: {[*fixed, classes]} label_filename: "labels.txt" }}',
    ]
    if batch is None:
        lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_MICROSECONDS} }}")
    return "\n".join(lines) + "\n"


def write_web(run: Run, folder: Path, runtime: str, precisions: Sequence[Precision] = ()) -> None:
    """Write static files that classify pictures in a browser, by ONNX Runtime Web: page, model and description.

    The model is the quantised one with int8 among the `precisions` of the export. `runtime` is ONNX Runtime Web's
    folder ``dist``, which is copied, or its address on the web.

    Raises:
        UsageError: the run was exported without ONNX, the folder has other files, or the runtime's are missing.
        RunFailure: the folder cannot be written.
    """
    exported = InferenceConfig.load(run.inference_path)
    model = exported.files.onnx_int8 if "int8" in precisions else exported.files.onnx
    if model is None:
        raise UsageError(f"{run.inference_path} has no ONNX model, which a browser needs: export it with --onnx")
    require_runtime(runtime)
    address = f"{runtime.rstrip('/')}/" if _is_remote(runtime) else "runtime/"
    description = {
        "name": run.config.name,
        "classes": list(exported.classes),
        "size": exported.input.image_size,
        "resize": exported.input.resize,
        "threshold": exported.threshold or 0,
        "model": MODEL,
        "runtime": address,
    }

    def write(temporary: Path) -> None:
        page = (PAGES / "index.html").read_text(encoding="utf-8").replace(f"runtime/{SCRIPT}", address + SCRIPT)
        write_text(temporary / "index.html", page)
        for name in SCRIPTS:
            shutil.copyfile(PAGES / name, temporary / name)
        shutil.copyfile(run.inference_path / model.name, temporary / MODEL)
        write_text(temporary / "description.json", json.dumps(description, ensure_ascii=False, indent=2) + "\n")
        if not _is_remote(runtime):
            (temporary / "runtime").mkdir()
            for name in RUNTIME_FILES:
                shutil.copyfile(Path(runtime) / name, temporary / "runtime" / name)

    write_new_folder(folder, WEB_FILES, write)


def require_runtime(runtime: str) -> None:
    """Raise `UsageError` unless `runtime` is an address, or a folder with `RUNTIME_FILES`."""
    if _is_remote(runtime):
        return
    if missing := [name for name in RUNTIME_FILES if not (Path(runtime) / name).is_file()]:
        raise UsageError(
            f"--runtime {runtime} has no {missing[0]}: expected the folder dist of the npm package onnxruntime-web "
            "(npm install onnxruntime-web), or its address on the web"
        )


def _is_remote(runtime: str) -> bool:
    return runtime.startswith(("https://", "http://"))


def require_new_folder(folder: Path, own: set[str]) -> None:
    """Check that a folder can be written, and is new, empty, or an earlier one of the same kind; make those above it.

    Raise a UsageError if it is a file or has other files than `own`, and a RunFailure if it cannot be written.
    """
    require_name_for_folder(folder)
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    if other := next((name for name in found if name not in own), None):
        raise UsageError(f'{folder} has other files, such as "{shown(other, 200)}"; expected a new folder')
    require_writable(folder.resolve().parent)  # of the folder that `write_folder` puts in its place


def write_new_folder(folder: Path, own: set[str], write: Callable[[Path], None]) -> None:
    """Write a folder that passes `require_new_folder`."""
    require_new_folder(folder, own)
    write_folder(folder.resolve(), write)
