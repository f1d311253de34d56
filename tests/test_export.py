"""Export: what is written, that it answers as the network does, and that nothing is replaced by something worse."""

from __future__ import annotations

import runpy

import numpy as np
import paddle
import pytest
import yaml
from tiny_run import COLOURS, SIZE, make_run

from paddle_resnet.deploy import InferenceConfig, Predictor, export, export_run
from paddle_resnet.deploy.inference_config import check_model, find_model
from paddle_resnet.errors import RunFailure, UsageError

PROGRAM = "model.json" if int(paddle.__version__.split(".")[0]) >= 3 else "model.pdmodel"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def report(run):
    return export_run(run)


@pytest.fixture
def copy(report, tmp_path):
    """The exported folder, to be damaged."""
    import shutil

    return shutil.copytree(report.path, tmp_path / "inference")


def change(folder, **keys):
    path = folder / "inference.yml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **keys}))


def test_the_folder_holds_what_a_deployer_needs(run, report):
    assert report.path == run.inference_path
    assert {PROGRAM, "model.pdiparams", "inference.yml"} <= {path.name for path in report.files}
    written = yaml.safe_load((report.path / "inference.yml").read_text())
    assert written["classes"] == list(COLOURS)
    assert written["model"] == "resnet8"
    assert written["input"] == {
        "image_size": SIZE,
        "resize": run.splits().resize,
        "crop": "center",
        "channels": 3,
        "layout": "NHWC",
        "dtype": "uint8",
    }
    assert written["paddle"] == paddle.__version__
    assert written["test"] is None
    assert not [path.name for path in run.path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("images", [1, 2, 7])
def test_raw_pixels_give_the_networks_probabilities_for_any_batch(run, report, images):
    pixels = np.random.default_rng(images).integers(0, 256, (images, SIZE, SIZE, 3), dtype=np.uint8)
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


def test_figures_of_the_same_checkpoint_are_passed_on(tmp_path):
    run = make_run(tmp_path)
    run.update_metrics("test", {"top1": 0.75, "images": 12, "checkpoint": "last"})
    assert InferenceConfig.load(export_run(run).path).test is None
    run.update_metrics("test", {"top1": 0.75, "images": 12, "checkpoint": "best"})
    (run.inference_path / "notes.txt").write_text("mine")
    figures = InferenceConfig.load(export_run(run).path).test
    assert figures is not None
    assert (figures.top1, figures.images) == (0.75, 12)
    assert (run.inference_path / "notes.txt").read_text() == "mine"


def test_an_export_that_fails_its_check_replaces_nothing(run, report, monkeypatch):
    before = {path.name: path.read_bytes() for path in report.path.iterdir()}
    monkeypatch.setattr(export.NetworkScorer, "scores", lambda self, batch: np.full((len(batch), 3), 0.5, np.float32))
    with pytest.raises(RunFailure, match="differ"):
        export_run(run)
    assert {path.name: path.read_bytes() for path in report.path.iterdir()} == before
    assert not [path.name for path in run.path.iterdir() if path.name.startswith(".")]


def test_a_network_without_finite_weights_is_not_exported(run, monkeypatch):
    monkeypatch.setattr(
        export.NetworkScorer, "scores", lambda self, batch: np.full((len(batch), 3), np.nan, np.float32)
    )
    with pytest.raises(RunFailure, match="not exported"):
        export_run(run)


def test_a_run_without_a_checkpoint_exits_2(tmp_path, project, monkeypatch, capsys):
    run = make_run(tmp_path, checkpoint=False)
    monkeypatch.syspath_prepend(str(project / "tools"))
    monkeypatch.setattr("sys.argv", ["export.py", str(run.path)])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(project / "tools" / "export.py"), run_name="__main__")
    assert exit_.value.code == 2
    assert "no checkpoint" in capsys.readouterr().err
    assert not run.inference_path.exists()


def test_the_tool_names_the_next_command(run, report, project, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(project / "tools"))
    monkeypatch.setattr("sys.argv", ["export.py", str(run.path)])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(project / "tools" / "export.py"), run_name="__main__")
    assert exit_.value.code == 0
    assert f"tools/predict.py {run.inference_path}" in capsys.readouterr().out


def test_the_model_is_found_in_the_runs_folder_too(run, report):
    assert find_model(run.path) == find_model(report.path) == report.path


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"format": 2}, "newer"),
        ({"colour": "red"}, "colour"),
        ({"classes": []}, "classes"),
        ({"input": {"image_size": -1, "resize": 16}}, "image_size"),
        ({"program": {"name": "../model.json", "md5": "0" * 32}}, "program.name"),
        ({"program": {"name": "/etc/passwd", "md5": "0" * 32}}, "program.name"),
    ],
)
def test_a_wrong_inference_yml_names_the_key(copy, keys, complaint):
    change(copy, **keys)
    with pytest.raises(UsageError, match=complaint):
        InferenceConfig.load(copy)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "", "\x00"])
def test_a_malformed_inference_yml_is_a_usage_error(copy, text):
    (copy / "inference.yml").write_text(text)
    with pytest.raises(UsageError, match=r"inference\.yml"):
        Predictor(copy, device="cpu")


@pytest.mark.parametrize("name", [PROGRAM, "model.pdiparams"])
def test_missing_and_damaged_files_are_found_before_paddle_reads_them(copy, name):
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="damaged"):
        Predictor(copy, device="cpu")
    (copy / name).unlink()
    with pytest.raises(UsageError, match="missing"):
        Predictor(copy, device="cpu")


def test_no_export_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"tools/export\.py"):
        Predictor(tmp_path, device="cpu")
    with pytest.raises(UsageError, match="no such folder"):
        Predictor(tmp_path / "nowhere", device="cpu")


@pytest.mark.parametrize(("running", "refused"), [("2.6.2", True), ("3.3.1", False), ("0.0.0", False)])
def test_a_program_of_paddle_3_is_refused_by_paddle_2(copy, running, refused):
    # Paddle 2.6 would die of a segmentation fault.
    (copy / PROGRAM).rename(copy / "model.json")
    config = InferenceConfig.load(copy)
    config = config.model_copy(
        update={"paddle": "3.3.1", "program": config.program.model_copy(update={"name": "model.json"})}
    )
    if not refused:
        check_model(copy, config, running)
        return
    with pytest.raises(UsageError, match=r"3\.3\.1.*2\.6\.2"):
        check_model(copy, config, running)
