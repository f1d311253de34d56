"""Exported ONNX files are used without Paddle: by the example, by predictions and by the workers of a service."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from requirements_met import needs_onednn, needs_onnx
from tiny_run import SIZE

from paddle_resnet.inference import Predictor
from paddle_resnet.onednn import unavailable_reason

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(run_of_all_precisions):
    return run_of_all_precisions


def compare_with_example(run, project, picture, tolerance):
    """Check that the example prints the predictor's best class and probability for a picture file."""
    command = [sys.executable, project / "examples" / "classify_onnx.py", run.inference_path / "model.onnx", picture]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    name, label, probability = printed.split()
    with Predictor(run.path, "cpu", backend="onnxruntime") as predictor:
        expected = predictor.predict(picture)[0].top[0]
    assert (name, label) == (f"{picture}:", expected.label)
    assert float(probability) == pytest.approx(expected.probability, abs=tolerance)


@pytest.mark.once
@needs_onnx
@pytest.mark.parametrize(("shape", "tolerance"), [((SIZE, SIZE), 1e-3), ((SIZE, 2 * SIZE), 1e-3), ((20, 24), 0.03)])
def test_the_onnx_example_predicts_as_the_predictor(run, project, tmp_path, shape, tolerance):
    """The example scales the whole picture, the project only the part inside the crop; hence the last tolerance."""
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    compare_with_example(run, project, tmp_path / "a.png", tolerance)


@pytest.mark.once
@needs_onnx
@pytest.mark.parametrize("mode", ["RGBA", "I;16"])
def test_the_onnx_example_decodes_transparency_and_16_bits(run, project, tmp_path, mode):
    levels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 4), dtype=np.uint8)
    picture = Image.fromarray(levels if mode == "RGBA" else levels[..., 0].astype(np.uint16) * 200)
    assert picture.mode == mode
    picture.save(tmp_path / "a.png")
    compare_with_example(run, project, tmp_path / "a.png", 1e-3)


@pytest.mark.once
def test_the_onnx_example_is_short_and_needs_three_packages(project):
    source = (project / "examples" / "classify_onnx.py").read_text()
    tree = ast.parse(source)
    imported = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert imported <= {*sys.stdlib_module_names, "numpy", "onnxruntime", "PIL"}
    assert len([line for line in source.splitlines()[1:] if line]) <= 20


SLOW_PACKAGES = ("matplotlib", "paddle", "scipy", "sklearn", "visualdl")
PREDICT = """
from paddle_resnet.cli import main
model, picture, *commands = sys.argv[1:]
for options in commands:
    sys.argv[1:] = [model, picture, *options.split()]
    try:
        main("predict")
    except SystemExit as end:
        assert not end.code, options
    print("NEXT", flush=True)
"""
WORKER = """
from paddle_resnet.inference import InferenceConfig
from paddle_resnet.service.settings import Settings
from paddle_resnet.service.worker_process import Batch, make_worker
config = InferenceConfig.load(Path(sys.argv[1]))
compute = make_worker(Settings(model=sys.argv[1], explain=False, backend=sys.argv[3]), config.digest())
print([len(result.scores) for result in compute(Batch([Path(sys.argv[2]).read_bytes()]))])
"""
EXPLAIN = WORKER.replace("explain=False", "response_timeout=600").replace(  # it waits for paddle for half of that
    "len(result.scores) for result in compute(Batch([Path(sys.argv[2]).read_bytes()]))",
    'result.explanation["class"] for result in compute(Batch([Path(sys.argv[2]).read_bytes()], True, ""))',
)


def run_and_list_imports(project, code, *arguments):
    """Run code in a new process; return what it prints, and which of the slow packages it has imported."""
    listing = f"imported = {{*sys.modules}} & {{*{SLOW_PACKAGES}}}; print('imported:', *imported, file=sys.stderr)"
    code = f"import atexit, sys\nfrom pathlib import Path\natexit.register(lambda: exec({listing!r}))\n{code}"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)
    return done.stdout, done.stderr.splitlines()[-1].removeprefix("imported:").split()


@pytest.mark.once
@needs_onnx
def test_prediction_from_onnx_files_imports_no_paddle(run, project):
    """One process does them all, as none may import it."""
    picture = run.config.data.root / "test" / "red" / "0.png"
    options = ["", "--backend onnxruntime", "--precision int8"]
    options += [] if unavailable_reason("cpu") else ["--backend onednn"]
    printed, imported = run_and_list_imports(project, PREDICT, run.path, picture, *options)
    for of_one, words in zip(printed.split("NEXT\n")[:-1], options, strict=True):
        with Predictor(run.path, "cpu", "int8" if "int8" in words else None) as predictor:
            best = predictor.predict(picture)[0].label
        assert of_one.splitlines()[1].startswith(best), words
    assert imported == []


@pytest.mark.once
@needs_onnx
def test_drawings_without_grad_cam_import_no_paddle(run, project, tmp_path):
    picture = run.config.data.root / "test" / "red" / "0.png"
    _, imported = run_and_list_imports(project, PREDICT, run.path, picture, f"--draw {tmp_path / 'drawn'}")
    assert "paddle" not in imported
    assert [file.name for file in (tmp_path / "drawn").iterdir()] == ["0.jpg"]


@needs_onnx
def test_prediction_by_paddle_imports_it(run, project):
    picture = run.config.data.root / "test" / "red" / "0.png"
    assert run_and_list_imports(project, PREDICT, run.path, picture, "--backend paddle")[1] == ["paddle"]


@pytest.mark.once
@needs_onnx
@pytest.mark.parametrize("backend", ["onnxruntime", pytest.param("onednn", marks=needs_onednn)])
def test_a_service_worker_of_onnx_files_imports_no_paddle(run, project, backend):
    pytest.importorskip("starlette")
    picture = run.config.data.root / "test" / "red" / "0.png"
    assert run_and_list_imports(project, WORKER, run.inference_path, picture, backend) == ("[3]\n", [])


@needs_onnx
def test_a_worker_explains_though_it_began_without_paddle(run, project):
    """Paddle's dynamic mode is of the thread that imports it, and of threads that begin later."""
    pytest.importorskip("starlette")
    picture = run.config.data.root / "test" / "red" / "0.png"
    printed, _ = run_and_list_imports(project, EXPLAIN, run.inference_path, picture, "onnxruntime")
    with Predictor(run.path, "cpu") as predictor:
        assert printed.splitlines()[-1] == str([predictor.predict(picture)[0].label])


@pytest.mark.once
@needs_onnx
def test_many_pictures_are_predicted_without_an_installed_paddle(run, project, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules |= dict.fromkeys({SLOW_PACKAGES})")
    pictures = [run.config.data.root / "test", "--batch-size", "1", "--workers", "2", "--json", tmp_path / "all.json"]
    subprocess.run(
        [sys.executable, "tools/predict.py", run.path, *map(str, pictures)],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        check=True,
    )
    with Predictor(run.path, "cpu") as predictor:
        expected = predictor.predict(sorted((run.config.data.root / "test").rglob("*.png")))
    found = json.loads((tmp_path / "all.json").read_text())
    assert [each["top"][0]["class"] for each in found] == [each.label for each in expected]
