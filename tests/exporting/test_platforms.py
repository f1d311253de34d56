"""PaddleX's folders and Triton's repositories, read by their own packages."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_run import COLOURS, SIZE, make_run, random_pixels

from paddle_resnet.errors import UsageError
from paddle_resnet.exporting import export
from paddle_resnet.exporting.platforms import write_paddlex, write_triton
from paddle_resnet.inference import Predictor

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[2]
PADDLEX = Path(os.environ.get("PADDLEX_PYTHON", PROJECT / ".venv-paddlex" / "bin" / "python"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    pytest.importorskip("paddle2onnx")
    run = make_run(tmp_path_factory.mktemp("platforms"))
    export(run, onnx=True, images=0)
    return run


@pytest.fixture(scope="module")
def paddlex(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("paddlex") / "model"
    return write_paddlex(run, "best", folder), folder


def test_tritons_protobuf_reads_the_repository(run, tmp_path):
    model_config = pytest.importorskip("tritonclient.grpc").model_config_pb2
    from google.protobuf import text_format

    assert write_triton(run, tmp_path / "repository") == [run.config.name]
    folder = tmp_path / "repository" / run.config.name
    config = text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), model_config.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == (run.config.name, "onnxruntime", 64)
    assert (config.input[0].name, list(config.input[0].dims)) == ("images", [SIZE, SIZE, 3])
    assert config.input[0].data_type == model_config.TYPE_UINT8
    assert (config.output[0].name, list(config.output[0].dims)) == ("probabilities", [len(COLOURS)])
    assert config.output[0].data_type == model_config.TYPE_FP32
    assert config.HasField("dynamic_batching")
    labels = (folder / config.output[0].label_filename).read_text(encoding="utf-8").splitlines()
    assert labels == list(COLOURS)


def test_the_repositorys_model_has_the_configs_tensors(run, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    write_triton(run, tmp_path / "repository")
    session = onnxruntime.InferenceSession(str(tmp_path / "repository" / run.config.name / "1" / "model.onnx"))
    assert (session.get_inputs()[0].name, session.get_inputs()[0].type) == ("images", "tensor(uint8)")
    assert session.get_outputs()[0].name == "probabilities"
    pixels = random_pixels(5, seed=1)
    (found,) = session.run(["probabilities"], {"images": pixels})
    expected = Predictor(run.inference_path, device="cpu").scores(pixels)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_int8_model_of_an_earlier_export_is_told(run, tmp_path, caplog):
    earlier = tmp_path / f"{run.config.name}_int8"
    (earlier / "1").mkdir(parents=True)
    write_triton(run, tmp_path)
    assert f"warning: {earlier} is of an earlier export, as this one has no int8 model" in caplog.text


def test_a_repository_needs_onnx(tmp_path):
    run = make_run(tmp_path)
    export(run, images=0)
    with pytest.raises(UsageError, match="has no ONNX model, which Triton needs"):
        write_triton(run, tmp_path / "repository")


def test_folders_of_the_user_are_left_alone(run, paddlex, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r'has other files, such as "notes.txt"'):
        write_paddlex(run, "best", tmp_path)
    own_model = tmp_path / run.config.name / "1" / "model.plan"
    own_model.parent.mkdir(parents=True)
    own_model.write_text("mine")
    with pytest.raises(UsageError, match=r'has other files, such as "1/model.plan"'):
        write_triton(run, tmp_path)
    assert own_model.read_text() == (tmp_path / "notes.txt").read_text() == "mine"
    name, folder = paddlex
    assert write_paddlex(run, "best", folder) == name  # an earlier one is replaced


@pytest.mark.parametrize("options", [["--paddlex"], ["--triton"], ["--runtime", "https://example.org/", "--web"]])
def test_a_place_that_cannot_be_written_is_told_before_the_export(run, tool, tmp_path, monkeypatch, options):
    monkeypatch.setattr("paddle_resnet.exporting.export", lambda *_, **__: pytest.fail("exported"))
    (tmp_path / "file").touch()
    done = tool("export", run.path, *options, tmp_path / "file" / "deployed" / "model")
    assert done.exit_code == 1
    assert re.fullmatch(r"error: .*: cannot be written \(.*file is no folder\)\n", done.stderr)


@pytest.mark.parametrize(
    ("paddlex", "others"),
    [
        ("px", ["--runtime", "https://example.org/", "--web", "px/../px"]),
        ("px/inside", ["--runtime", "https://example.org/", "--web", "px"]),
        ("repository", ["--triton", "repository"]),
    ],
)
def test_one_folder_for_two_platforms_is_told_before_the_export(run, tool, tmp_path, monkeypatch, paddlex, others):
    monkeypatch.setattr("paddle_resnet.exporting.export", lambda *_, **__: pytest.fail("exported"))
    monkeypatch.chdir(tmp_path)
    done = tool("export", run.path, "--paddlex", paddlex, *others)
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "give --paddlex, --triton and --web folders of their own" in done.stderr
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import json, sys
from paddlex import create_model
name, folder, *pictures = sys.argv[1:]
model = create_model(model_name=name, model_dir=folder, device="cpu")
results = [result.json["res"] for result in model.predict(pictures, batch_size=8, topk=2)]
rows = [[each["input_path"], each["label_names"], [float(score) for score in each["scores"]]] for each in results]
print(json.dumps(rows))
"""


def crops_alike(longer, shorter, resize):
    """PaddleX rounds the resized side, and this project cuts it; some crops are a pixel apart."""
    theirs, ours = round(longer * resize / shorter), longer * resize // shorter
    return theirs == ours and (theirs - SIZE) // 2 == round((ours - resize) / 2) + round((resize - SIZE) / 2)


@pytest.mark.skipif(not PADDLEX.is_file(), reason="needs an environment with requirements/paddlex.txt in .venv-paddlex")
def test_paddlex_predicts_the_same(run, paddlex, tmp_path):
    name, folder = paddlex
    generator = np.random.default_rng(0)
    paths = []
    while len(paths) < 100:
        height, width = generator.integers(SIZE, 4 * SIZE, 2)
        if len(paths) % 2 and not crops_alike(max(height, width), min(height, width), run.splits().resize):
            continue
        height, width = (height, width) if len(paths) % 2 else (height, height)
        small = generator.integers(0, 256, (3, 3, 3), dtype=np.uint8)
        path = tmp_path / f"{len(paths):03}.png"
        Image.fromarray(small).resize((int(width), int(height)), Image.Resampling.BICUBIC).save(path)
        paths.append(path)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [PADDLEX, "-c", SCRIPT, name, folder, *paths], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = {Path(path).name: (labels, scores) for path, labels, scores in json.loads(done.stdout.splitlines()[-1])}
    expected = Predictor(run.inference_path, device="cpu").predict(paths)
    assert len(results) == 100
    for path, prediction in zip(paths, expected, strict=True):
        labels, scores = results[path.name]
        assert labels[0] == prediction.label
        assert scores[0] == pytest.approx(prediction.top[0].probability, abs=1e-3)


def test_paddlexs_program_takes_levels_of_planes(run, paddlex):
    """As PaddleX calls it: float32 [N, 3, S, S] of levels, normalised by scale 1, mean 0 and deviation 1."""
    from paddle import inference

    _, folder = paddlex
    program = next(path for path in folder.iterdir() if path.suffix in (".json", ".pdmodel"))
    config = inference.Config(str(program), str(folder / "inference.pdiparams"))
    config.disable_gpu()
    config.disable_glog_info()
    predictor = inference.create_predictor(config)
    pixels = random_pixels(3, seed=2)
    tensor = predictor.get_input_handle(predictor.get_input_names()[0])
    tensor.copy_from_cpu(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32))
    predictor.run()
    found = predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()
    expected = Predictor(run.inference_path, device="cpu").scores(pixels)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_prediction_names_a_model_of_paddlex(paddlex):
    with pytest.raises(UsageError, match=r"a model of PaddleX or PaddleClas, with which paddlex\.create_model"):
        Predictor(paddlex[1])


def test_an_export_without_the_earlier_ones_onnx_file_says_so(run, tmp_path, caplog):
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    report = export(copy, images=0)
    assert "model.onnx" not in {path.name for path in report.files}
    [line] = [message for message in caplog.messages if "model.onnx" in message]
    assert "--onnx" in line
