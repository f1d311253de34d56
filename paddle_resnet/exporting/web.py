"""An exported model as a folder of static files that classifies pictures in a browser, with ONNX Runtime Web."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from paddle_resnet.errors import UsageError
from paddle_resnet.exporting.platforms import write_new_folder
from paddle_resnet.files import write_text
from paddle_resnet.inference.inference_config import InferenceConfig

if TYPE_CHECKING:
    from paddle_resnet.inference.options import Precision
    from paddle_resnet.training.run_folder import Run

PAGES = Path(__file__).parent / "web"
SCRIPT = "ort.wasm.min.js"
RUNTIME_FILES = (SCRIPT, "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""What the page loads of the npm package onnxruntime-web, from its folder ``dist``."""
MODEL = "model.onnx"
SCRIPTS = ("app.js", "preprocess.js")
WEB_FILES = {"index.html", *SCRIPTS, MODEL, "description.json", *(f"runtime/{name}" for name in RUNTIME_FILES)}


def write_web(run: Run, folder: Path, runtime: str, precisions: Sequence[Precision] = ()) -> None:
    """Write page, model and description to a new folder; with int8 among `precisions`, the quantised model.

    Args:
        run: exported with ONNX.
        folder: where to; any static web server serves it.
        runtime: ONNX Runtime Web's folder ``dist``, which is copied, or its address on the web.
        precisions: of the export.

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
