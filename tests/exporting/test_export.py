"""Export: the written files, the network's probabilities, and an earlier export that stays after a failure."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
import yaml
from PIL import Image
from tiny_run import COLOURS, SIZE, make_run, random_pixels

from paddle_resnet import signals
from paddle_resnet.errors import RunFailure, Stopped, UsageError
from paddle_resnet.evaluation import NetworkScorer
from paddle_resnet.exporting import accuracy, export
from paddle_resnet.exporting.accuracy import compare
from paddle_resnet.exporting.program import save_program
from paddle_resnet.exporting.quantization import calibration_batches
from paddle_resnet.inference import InferenceConfig, Predictor, paddle_backend
from paddle_resnet.inference.inference_config import check_program, find_model
from paddle_resnet.training.run_folder import Run

pytestmark = pytest.mark.slow

PROGRAM = "model.json" if int(paddle.__version__.split(".")[0]) >= 3 else "model.pdmodel"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def report(run):
    return export(run)


@pytest.fixture
def copy(report, tmp_path):
    """A copy of the exported folder that a test may damage."""
    return shutil.copytree(report.path, tmp_path / "inference")


def change(folder, **keys):
    path = folder / "inference.yml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **keys}))


def test_inference_yml_describes_the_exported_files(run, report):
    assert report.path == run.inference_path
    assert {PROGRAM, "model.pdiparams", "inference.yml"} <= {path.name for path in report.files}
    written = yaml.safe_load((report.path / "inference.yml").read_text())
    assert written["classes"] == list(COLOURS)
    assert written["model"] == "resnet8"
    assert written["format"] == 2
    assert written["input"] == {
        "batch": None,
        "image_size": SIZE,
        "resize": run.splits().resize,
        "crop": "center",
        "channels": 3,
        "layout": "NHWC",
        "dtype": "uint8",
    }
    assert written["versions"]["paddle"] == paddle.__version__
    for file in ("program", "parameters"):
        content = (report.path / written["files"][file]["name"]).read_bytes()
        assert written["files"][file]["sha256"] == hashlib.sha256(content).hexdigest()
    assert written["files"]["onnx"] is None
    assert written["test"] is None
    assert not [path.name for path in run.path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("images", [1, 2, 7])
def test_raw_pixels_give_the_networks_probabilities(run, report, images):
    pixels = random_pixels(images, seed=images)
    normal = (pixels / 255 - np.array(run.splits().mean)) / np.array(run.splits().std)
    with paddle.no_grad():
        logits = run.load_network("best")(paddle.to_tensor(normal.transpose(0, 3, 1, 2).astype(np.float32))).numpy()
    powers = np.exp(logits - logits.max(1, keepdims=True))
    with Predictor(report.path, device="cpu") as predictor:
        scores = predictor.scores(pixels)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, powers / powers.sum(1, keepdims=True), atol=1e-4)


def test_the_check_used_real_images(report):
    assert report.images == 12
    assert 0 <= report.max_difference <= 1e-4


@pytest.mark.once
def test_metrics_of_the_same_checkpoint_are_copied(tmp_path):
    run = make_run(tmp_path)
    run.update_metrics("test", {"top1": 0.75, "images": 12, "checkpoint": "last"})
    assert InferenceConfig.load(export(run).path).test is None
    run.update_metrics("test", {"top1": 0.75, "images": 12, "checkpoint": "best"})
    (run.inference_path / "notes.txt").write_text("mine")
    figures = InferenceConfig.load(export(run).path).test
    assert figures is not None
    assert (figures.top1, figures.images) == (0.75, 12)
    assert (run.inference_path / "notes.txt").read_text() == "mine"


def test_a_failed_check_replaces_nothing(run, report, monkeypatch):
    before = {path.name: path.read_bytes() for path in report.path.iterdir()}
    monkeypatch.setattr(NetworkScorer, "scores", lambda self, batch: np.full((len(batch), 3), 0.5, np.float32))
    with pytest.raises(RunFailure, match="in paddle the exported model's probabilities differ"):
        export(run)
    assert {path.name: path.read_bytes() for path in report.path.iterdir()} == before
    assert not [path.name for path in run.path.iterdir() if path.name.startswith(".")]


def test_a_full_disk_replaces_nothing(run, report, monkeypatch):
    """Paddle truncates the program without an error; paddle2onnx would exit with status 255."""
    before = {path.name: path.read_bytes() for path in report.path.iterdir()}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(RunFailure, match=r"inference: cannot be written \(No space left on device\)"):
        export(run)
    assert {path.name: path.read_bytes() for path in report.path.iterdir()} == before


def test_nan_scores_fail_the_check(run, monkeypatch):
    monkeypatch.setattr(NetworkScorer, "scores", lambda self, batch: np.full((len(batch), 3), np.nan, np.float32))
    with pytest.raises(RunFailure, match="not exported"):
        export(run)


def test_a_run_without_a_checkpoint_exits_2(tool, tmp_path):
    run = make_run(tmp_path, checkpoint=False)
    done = tool("export", run.path)
    assert done.exit_code == 2
    assert "no checkpoint" in done.stderr
    assert not run.inference_path.exists()


def test_export_prints_the_next_command(run, report, tool):
    done = tool("export", run.path)
    assert done.exit_code == 0
    assert f"tools/predict.py {run.inference_path}" in done.stdout


def test_a_model_is_found_in_its_runs_folder(run, report):
    assert find_model(run.path) == find_model(report.path) == report.path


def test_a_file_in_the_place_of_a_folder_is_called_so(report):
    with pytest.raises(UsageError, match=": is a file; expected the folder of an exported model"):
        find_model(report.path / "inference.yml")


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"format": 3}, "format 3 is newer"),
        ({"format": 1}, "format 1, expected 2; export a trained run"),
        ({"format": "2"}, "format '2', expected 2; export a trained run"),
        ({"format": None}, "format None"),
        ({"colour": "red"}, "colour"),
        ({"classes": []}, "classes"),
        ({"input": {"image_size": -1, "resize": 16}}, "image_size"),
        ({"input": {"image_size": 10**9, "resize": 10**9}}, "image_size"),
        ({"input": {"image_size": 17, "resize": 16}}, r"image_size \(17\) must be at most resize \(16\)"),
        ({"files": {"program": {"name": "../model.json", "sha256": "0" * 64}}}, "program.name"),
        ({"files": {"program": {"name": "/etc/passwd", "sha256": "0" * 64}}}, "program.name"),
        ({"precisions": {"fp4": {}}}, "precisions"),
    ],
)
def test_a_wrong_inference_yml_names_the_key(copy, keys, complaint):
    change(copy, **keys)
    with pytest.raises(UsageError, match=complaint):
        InferenceConfig.load(copy)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "", "\x00", "exported_at: 2026-13-45\n", "[" * 3000])
def test_a_malformed_inference_yml_is_a_usage_error(copy, text):
    (copy / "inference.yml").write_text(text)
    with pytest.raises(UsageError, match=r"inference\.yml"):
        Predictor(copy, device="cpu")


def test_a_missing_class_is_a_usage_error(copy):
    classes = yaml.safe_load((copy / "inference.yml").read_text())["classes"]
    change(copy, classes=classes[:-1])
    with (
        Predictor(copy, device="cpu") as predictor,
        pytest.raises(UsageError, match="2 classes, but the model has 3"),
    ):
        predictor.scores(np.zeros((1, SIZE, SIZE, 3), np.uint8))


@pytest.mark.parametrize("name", [PROGRAM, "model.pdiparams"])
def test_missing_and_damaged_files_are_usage_errors(copy, name):
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="damaged"):
        Predictor(copy, device="cpu")
    (copy / name).unlink()
    with pytest.raises(UsageError, match="missing"):
        Predictor(copy, device="cpu")


def test_a_missing_export_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="export a trained run with paddle-resnet export RUN"):
        Predictor(tmp_path, device="cpu")
    with pytest.raises(UsageError, match="no such folder"):
        Predictor(tmp_path / "nowhere", device="cpu")


@pytest.mark.parametrize(("running", "refused"), [("2.6.2", True), ("3.3.1", False), ("0.0.0", False)])
def test_paddle_2_cannot_read_a_json_program(copy, running, refused):
    # Paddle 2.6 would crash with a segmentation fault.
    config = InferenceConfig.load(copy)
    program = config.files.program.model_copy(update={"name": "model.json"})
    config = config.model_copy(
        update={"versions": {"paddle": "3.3.1"}, "files": config.files.model_copy(update={"program": program})}
    )
    if not refused:
        check_program(config, running)
        return
    with pytest.raises(UsageError, match=r"3\.3\.1.*2\.6\.2"):
        check_program(config, running)


def test_paddle_2_never_loads_a_json_program(copy, monkeypatch):
    if PROGRAM != "model.json":
        (copy / PROGRAM).rename(copy / "model.json")
        files = yaml.safe_load((copy / "inference.yml").read_text())["files"]
        files["program"]["name"] = "model.json"
        change(copy, files=files)
    monkeypatch.setattr(paddle, "__version__", "2.6.2")
    monkeypatch.setattr(paddle_backend.inference, "create_predictor", lambda settings: pytest.fail("reached Paddle"))
    with pytest.raises(UsageError, match="needs Paddle 3"):
        Predictor(copy, device="cpu")


def test_metrics_cover_the_whole_test_split(run, report):
    """Compared with the network's own predictions."""
    network, splits = run.load_network("best"), run.splits()
    network.eval()
    with paddle.no_grad():
        normal = run.normalize()(paddle.to_tensor(splits.test.batch(np.arange(12))[:, :SIZE, :SIZE]))
        right = (network(normal).numpy().argmax(1) == splits.test.labels).sum()
    figures = report.precisions["fp32"]["paddle"]
    assert (figures.images, figures.agreement) == (12, 1)
    assert figures.top1 == pytest.approx(right / 12)
    assert InferenceConfig.load(report.path).precisions == report.precisions


@pytest.mark.once
def test_images_limits_the_measurement(tmp_path):
    run = make_run(tmp_path)
    assert export(run, images=5).precisions["fp32"]["paddle"].images == 5
    seen = []
    assert export(run, images=0, progress=lambda *counts: seen.append(counts)).precisions == {"fp32": {"paddle": None}}
    assert seen == []


def test_agreement_and_top1():
    class FixedScorer:
        def __init__(self, *classes):
            self.rows = np.eye(3, dtype=np.float32)[list(classes)]

        def scores(self, batch):
            return self.rows[batch]

    batches = [(np.array([0, 1, 2]), np.array([0, 0, 0])), (np.array([3]), np.array([2]))]
    found = compare(FixedScorer(0, 1, 2, 2), {"a": FixedScorer(0, 1, 0, 2), "b": FixedScorer(1, 1, 1, 1)}, batches)
    assert (found["a"].top1, found["a"].agreement, found["a"].images) == (0.75, 0.75, 4)
    assert (found["b"].top1, found["b"].agreement) == (0, 0.25)


def test_a_fixed_batch_is_padded(run, report, tmp_path):
    copied = Run(tmp_path, run.config)
    shutil.copytree(run.checkpoint_path("best"), copied.checkpoint_path("best"))
    fixed = export(copied, batch=4)
    pixels = random_pixels(6)
    with Predictor(fixed.path, device="cpu", batch_size=100) as predictor, Predictor(report.path, "cpu") as free:
        assert predictor.batch_size == 4
        np.testing.assert_allclose(predictor.scores(pixels), free.scores(pixels), atol=1e-5)
        np.testing.assert_allclose(predictor.scores(pixels[:1]), free.scores(pixels[:1]), atol=1e-5)


def test_exports_are_reproducible(run, tmp_path):
    first, second = (save_program(run, "best", tmp_path / name / "model") for name in "ab")
    assert first[1].read_bytes() == second[1].read_bytes()
    # For its own debugging, Paddle 3 notes that this is the process's second program: "/ResNet_1/Conv2D/".
    first_program, second_program = (
        re.sub(rb"/(\w+?)_\d+/", rb"/\1/", program.read_bytes()) for program, _ in (first, second)
    )
    assert first_program == second_program


def test_a_signal_waits_until_paddle_has_made_a_program(run, tmp_path, monkeypatch):
    """Paddle's compiled code may crash where an exception comes from the Python code that it calls."""
    save = paddle.jit.save

    def save_after_a_signal(*arguments, **options):
        signal.raise_signal(signal.SIGINT)
        save(*arguments, **options)

    monkeypatch.setattr(paddle.jit, "save", save_after_a_signal)
    with signals.stoppable(), pytest.raises(Stopped):
        save_program(run, "best", tmp_path / "model")
    assert (tmp_path / "model.pdiparams").is_file()


@pytest.mark.once
def test_options_of_the_command_reach_the_export(run, tool):
    done = tool("export", run.path, "--batch", 2, "--images", 3)
    assert done.exit_code == 0
    assert "fp32 by paddle" in done.stdout
    assert "of 3 images" in done.stdout
    assert InferenceConfig.load(run.inference_path).input.batch == 2
    done = tool("export", run.path, "--batch", "dynamic", "--images", 0)
    assert done.exit_code == 0
    assert "top-1" not in done.stdout
    assert InferenceConfig.load(run.inference_path).input.batch is None
    assert tool("export", run.path, "--batch", "many").exit_code == 2
    assert tool("export", run.path, "--precision", "fp8").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"precisions": "int8"}, r"precisions: expected a list, such as \['int8'\], got 'int8'"),
        ({"precisions": ["int4"]}, "precisions: expected one of fp32, fp16, bf16, int8, got 'int4'"),
        ({"checkpoint": "lsat"}, r"checkpoint: expected one of last, best, got 'lsat' \(did you mean"),
        ({"batch": 0}, "batch: expected a whole number of at least 1, got 0"),
        ({"images": -1}, "images: expected a whole number of at least 1, got -1"),
        ({"calibrate": "absent"}, "absent: no such folder"),
    ],
)
def test_wrong_arguments_change_nothing(run, report, arguments, complaint):
    before = [path.stat().st_mtime_ns for path in sorted(report.path.iterdir())]
    with pytest.raises(UsageError, match=complaint):
        export(run, **arguments)
    assert [path.stat().st_mtime_ns for path in sorted(report.path.iterdir())] == before


@pytest.mark.parametrize("images", [0, 3])
def test_the_check_is_on_the_pictures_that_are_named(tmp_path, monkeypatch, images):
    """Also where the test split is measured; docs/deployment.md promises it."""
    run = make_run(tmp_path / "run")
    folder = tmp_path / "pictures"
    folder.mkdir()
    levels = (10, 90, 170)
    for level in levels:
        Image.new("RGB", (SIZE, SIZE), (level, level, level)).save(folder / f"{level:03}.png")
    check, seen = accuracy.check_export, []
    monkeypatch.setattr(accuracy, "check_export", lambda *all: (seen.append(all[-1]), check(*all))[1])
    report = export(run, images=images, calibrate=folder)
    (pixels,) = seen
    assert sorted({int(image.min()) for image in pixels} | {int(image.max()) for image in pixels}) == [*levels]
    assert (report.images, report.random) == (3, False)
    measured = report.precisions["fp32"]["paddle"]
    assert (measured and measured.images) == (images or None)


def test_eval_exported_writes_a_section_per_precision(run, tool):
    export(run, images=0)
    done = tool("eval", run.path, "--exported", "--precision", "fp32")
    assert done.exit_code == 0
    assert "test split, exported model, fp32 by paddle: 12 images" in done.stdout
    assert run.metrics()["exported_test_fp32"]["images"] == 12
    done = tool("eval", run.path, "--precision", "fp32")
    assert done.exit_code == 2
    assert "give --exported too" in done.stderr


def test_calibration_covers_exactly_the_validation_split(run):
    """A folder's images are sorted by class, so the first ones would be of one class."""
    validation = {image.tobytes() for image in run.splits().validation.batch(np.arange(6))}
    batches = list(calibration_batches(run, 4))
    assert len(batches) == 64
    assert {batch.shape for batch in batches} == {(4, SIZE, SIZE, 3)}
    assert {image.tobytes() for batch in batches for image in batch} == validation


@pytest.mark.posix
def test_an_export_needs_no_writable_home(run, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.write_text("a file, so that no folder can be made in it")
    monkeypatch.setenv("HOME", str(home))
    program, parameters = save_program(run, "best", tmp_path / "model")
    assert program.is_file() and parameters.is_file()
    assert os.environ["HOME"] == str(home)
