"""The commands as users run them: what they print, their exit codes, and one line for every wrong use."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from paddle_resnet.cli import program, quickstart

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[2]
TINY = ["-o", "train.epochs=1", "-o", "data.image_size=8", "-o", "train.batch_size=200", "-o", "model.name=resnet8"]


@pytest.fixture(scope="module")
def quick_run(tool, tmp_path_factory) -> Path:
    """A finished quickstart, on the smallest network."""
    output = tmp_path_factory.mktemp("quickstart")
    assert tool("quickstart", *TINY, "-o", f"output={output}", "-o", "device=cpu").exit_code == 0
    return output / "quickstart"


def test_quickstart_measures_and_exports(quick_run):
    metrics = json.loads((quick_run / "metrics.json").read_text())
    assert metrics["test"]["images"] == 359  # a fifth of the 1,797 digits
    assert 0 < metrics["test"]["top1"] <= 1
    assert (quick_run / "inference" / "inference.yml").is_file()
    assert len(list((quick_run / "samples").glob("*.png"))) == 10
    assert {path.name for path in (quick_run / "figures").iterdir()} == {
        "learning_curves.png", "samples_test.png", "confusion_matrix_test.png", "mistakes_test.png",
        "precision_recall_test.png", "calibration_test.png", "confused_pairs_test.png",
    }  # fmt: skip


def test_samples_are_named_by_classes_of_any_text(tmp_path):
    classes = ("../../cat", "nul", "a:b")
    pixels = np.arange(3 * 8 * 8 * 3, dtype=np.uint8).reshape(3, 8, 8, 3)
    split = SimpleNamespace(labels=np.array([2, 0, 1]), batch=lambda rows: pixels[rows])
    run = SimpleNamespace(path=tmp_path, classes=lambda: classes, splits=lambda: SimpleNamespace(test=split))
    for path, image in zip(quickstart._write_samples(run), pixels[[1, 2, 0]], strict=True):
        assert path.parent == tmp_path / "samples" and not set(path.name) & set(":/")
        np.testing.assert_array_equal(np.asarray(Image.open(path)), image)


def test_a_class_without_a_test_picture_has_no_sample(tmp_path):
    """As with a data.limit, whose test split may be smaller than the number of classes."""
    pixels = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    split = SimpleNamespace(labels=np.array([2, 0]), batch=lambda rows: pixels[rows])
    run = SimpleNamespace(path=tmp_path, classes=lambda: ("a", "b", "c"), splits=lambda: SimpleNamespace(test=split))
    paths = quickstart._write_samples(run)
    assert [path.name for path in paths] == ["a.png", "c.png"]
    for path, image in zip(paths, pixels[[1, 0]], strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), image)


def test_texts_of_the_commands_have_both_languages_and_equal_values():
    folder = PROJECT / "paddle_resnet/cli"
    source = " ".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    for key, text in yaml.safe_load((folder / "text.yaml").read_text(encoding="utf-8")).items():
        assert set(text) == {"en", "zh"} and re.search(r"[\u4e00-\u9fff]", text["zh"]), key
        english, chinese = (sorted(re.findall(r"\{(\w+)", words)) for words in text.values())
        assert english == chinese, key
        assert f'"{key}"' in source or re.sub("(row|next)_", "", key) in source, key


def test_the_quick_starts_accuracy_is_written_in_its_language():
    values = {"top1": 0.9416, "low": 0.921, "high": 0.958}
    assert program.messages("en")("accuracy", **values) == "94.16% (95% interval 92.1% to 95.8%)"
    assert program.messages("zh")("accuracy", **values).endswith(
        "95% 区间 92.1% 至 95.8%\N{FULLWIDTH RIGHT PARENTHESIS}"
    )


def test_one_picture_is_counted_as_one(tool, quick_run):
    assert tool("predict", quick_run, quick_run / "samples" / "7.png").stderr.startswith("1 picture in ")


def test_the_exported_model_has_the_networks_top1(tool, quick_run, without_plots):
    trained = json.loads((quick_run / "metrics.json").read_text())["test"]["top1"]
    assert tool("eval", quick_run, "--exported", "--device", "cpu").exit_code == 0
    assert json.loads((quick_run / "metrics.json").read_text())["exported_test"]["top1"] == pytest.approx(
        trained, abs=1e-3
    )


def test_print_config_trains_nothing(tool, tmp_path):
    done = tool("train", "-c", PROJECT / "configs/quickstart.yaml", "-o", f"output={tmp_path}", "--print-config")
    assert done.exit_code == 0
    assert "label_smoothing: 0.1" in done.stdout and "momentum: 0.9" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_check_tries_everything_and_keeps_nothing(tool, tmp_path, monkeypatch):
    """With what needs care on two steps: several seeds, frozen epochs, balanced weights and accumulation."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    recipe = ["train.seeds=[0, 1]", "train.freeze_epochs=3", "train.class_weights=balanced", "train.accumulate=4"]
    options = [option for key in [*recipe, "model.name=resnet8", "device=cpu"] for option in ("-o", key)]
    done = tool("train", "-c", PROJECT / "configs/quickstart.yaml", "--check", *options)
    assert done.exit_code == 0, done.stderr
    for words in ("32 training images", "two steps", "32 test images", "exported model", "prediction: 32 images"):
        assert words in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        "train",
        "eval",
        "export",
        "predict",
        "quickstart",
        "benchmark",
        "convert_weights",
        "doctor",
        "lesson",
        "models",
        "serve",
    ],
)
def test_help_has_examples(tool, name):
    done = tool(name, "--help")
    assert done.exit_code == 0
    assert "--debug" in done.stdout and len(done.stdout.splitlines()) > 10


HELP_OF_ALL = """
import io, sys
from contextlib import redirect_stdout, suppress
from paddle_resnet import cli
slow = {"PIL", "matplotlib", "numpy", "onnxruntime", "paddle", "psutil", "pydantic", "rich", "scipy", "sklearn", "yaml"}
for name in cli.COMMANDS:
    sys.argv = [f"tools/{name.replace('-', '_')}.py", "--help"]
    with redirect_stdout(io.StringIO()) as printed, suppress(SystemExit):
        cli.main(name)
    assert f"usage: python {sys.argv[0]} " in printed.getvalue(), printed.getvalue()
    assert not slow & {*sys.modules}, (name, slow & {*sys.modules})
"""
WITHOUT_PADDLE = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from paddle_resnet import cli
sys.modules["paddle"] = None  # an import of it raises ModuleNotFoundError
ends = []
for name, *sys.argv[1:] in json.loads(sys.argv[1]):
    with redirect_stdout(io.StringIO()) as printed, redirect_stderr(io.StringIO()) as errors:
        try:
            cli.main(name)
        except SystemExit as end:
            ends.append([end.code or 0, printed.getvalue(), errors.getvalue()])
print(json.dumps(ends))
"""


@pytest.mark.once
def test_help_imports_no_slow_package():
    done = subprocess.run([sys.executable, "-c", HELP_OF_ALL], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.once
def test_tables_and_unknown_names_need_no_paddle():
    commands = [["models"], ["models", "resnet19"], ["lesson"], ["lesson", "residual-blok"]]
    command = [sys.executable, "-c", WITHOUT_PADDLE, json.dumps(commands)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    models, no_model, lessons, no_lesson = json.loads(done.stdout)
    assert models[0] == 0 and "resnet18 " in models[1]
    assert no_model[0] == 2 and 'no model "resnet19"' in no_model[2]
    assert lessons[0] == 0 and "residual-block" in lessons[1]
    assert no_lesson[0] == 2 and 'no lesson "residual-blok"' in no_lesson[2]


def test_next_steps_begin_with_the_activation_of_an_environment_that_is_not_active(monkeypatch, tmp_path):
    scripts = tmp_path / ".venv" / "bin"
    scripts.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(scripts / "python"))
    monkeypatch.setenv("PATH", "/usr/bin")
    assert quickstart._activation() is None  # no virtual environment
    (scripts / "activate").touch()
    assert Path(quickstart._activation().split()[-1]) == Path(".venv/bin/activate")
    monkeypatch.setenv("PATH", os.pathsep.join([str(scripts), "/usr/bin"]))
    assert quickstart._activation() is None


@pytest.mark.once
def test_the_home_folder_in_an_argument_needs_no_shell(tool, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    options = ["-c", PROJECT / "configs/quickstart.yaml", "-o", "data.limit=20"]
    assert tool("shard", *options, "--output=~/shards").exit_code == 0
    assert tool("preview", *options, "--output=~/preview.png").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} >= {"preview.png", "shards"}
    assert not (tmp_path / "~").exists()


def test_predict_reads_digits_back(tool, quick_run, tmp_path):
    predictions = tmp_path / "predictions.json"
    done = tool("predict", quick_run, quick_run / "samples", "--json", predictions)
    assert done.exit_code == 0, done.stderr
    rows = json.loads(predictions.read_text())
    assert [Path(row["file"]).name for row in rows] == [f"{digit}.png" for digit in range(10)]
    probabilities = [[best["probability"] for best in row["top"]] for row in rows]
    assert np.all(np.diff(probabilities, axis=1) <= 0)


def test_predict_of_a_text_named_jpg_is_one_line(tool, quick_run, tmp_path):
    (tmp_path / "notes.jpg").write_text("a text")
    done = tool("predict", quick_run, tmp_path / "notes.jpg")
    assert (done.exit_code, done.stdout) == (2, "")
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and "notes.jpg" in line
    done = tool("predict", quick_run, tmp_path / "notes.jpg", quick_run / "samples" / "3.png")
    assert done.exit_code == 1
    assert "3.png" in done.stdout and "1 of 2 pictures" in done.stderr


def test_missing_paddle_is_one_line(tool, quick_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "paddle", None)
    done = tool("predict", quick_run, quick_run / "samples")
    assert done.exit_code == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: paddle is not installed for {sys.executable}: ")


def test_train_is_stopped_and_resumed(tool, tmp_path, monkeypatch, without_plots):
    from paddle_resnet.training.callbacks.steps import StepSeeds

    config = ["-c", PROJECT / "configs/quickstart.yaml", *TINY, "-o", f"output={tmp_path}", "-o", "device=cpu"]
    run = tmp_path / "quickstart"
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        with monkeypatch.context() as patch:
            patch.setattr(StepSeeds, "on_train_batch_begin", lambda *_, number=number: os.kill(os.getpid(), number))
            done = tool("train", *config, "--resume", "auto")
        assert done.exit_code == status
        assert len(done.stderr.splitlines()) == 1
    state = json.loads((run / "checkpoints" / "last" / "state.json").read_text())
    assert state["step"] == 2
    assert f"tools/train.py --resume {run}" in (run / "train.log").read_text()
    done = tool("train", "--resume", run)
    assert done.exit_code == 0
    assert "test: top-1" in done.stdout
    figures = (run / "metrics.json").read_bytes()
    for arguments in (["--resume", run], [*config, "--resume", "auto"]):
        done = tool("train", *arguments)
        assert done.exit_code == 0
        assert "is finished" in done.stdout
    assert (run / "metrics.json").read_bytes() == figures
    assert not (tmp_path / "quickstart.1").exists()


@pytest.mark.once
def test_seeds_give_a_mean_and_a_standard_deviation(tool, tmp_path, without_plots):
    config = ["-c", PROJECT / "configs/quickstart.yaml", *TINY, "-o", f"output={tmp_path}", "-o", "device=cpu"]
    done = tool("train", *config, "-o", "train.seeds=[3, 5]")
    assert done.exit_code == 0
    whole = tmp_path / "quickstart"
    runs = [json.loads((whole / f"seed_{seed}" / "metrics.json").read_text()) for seed in (3, 5)]
    found = json.loads((whole / "metrics.json").read_text())["seeds"]
    assert found["seeds"] == [3, 5]
    for section, column in (("validation", "validation_top1"), ("test", "test_top1")):
        values = [run[section]["top1"] for run in runs]
        assert found[column]["values"] == values
        assert found[column]["mean"] == pytest.approx(np.mean(values))
        assert found[column]["std"] == pytest.approx(np.std(values, ddof=1))
        assert found[column]["n"] == 2
        assert f"{np.mean(values):.2%}" in done.stdout
    seeds = [yaml.safe_load((whole / f"seed_{seed}" / "config.yaml").read_text())["train"]["seed"] for seed in (3, 5)]
    assert seeds == [3, 5]

    # As if stopped in the second: what is there stays, what is missing is done again and comes to the same.
    shutil.rmtree(whole / "seed_5")
    (whole / "metrics.json").unlink()
    first = (whole / "seed_3" / "metrics.json").read_bytes()
    assert tool("train", "--resume", whole).exit_code == 0
    assert json.loads((whole / "metrics.json").read_text())["seeds"] == found
    assert (whole / "seed_3" / "metrics.json").read_bytes() == first
    done = tool("eval", whole)
    assert done.exit_code == 2
    assert "seed_<number>" in done.stderr


@pytest.mark.once
def test_preview_draws_eight_images_in_eight_draws(tool, tmp_path):
    picture = tmp_path / "preview.png"
    config = ("-c", PROJECT / "configs/quickstart.yaml", "-o", "augment.rotate=30", "-o", "device=cpu")
    assert tool("preview", *config, "--output", picture).exit_code == 0
    with Image.open(picture) as image:
        width, height = image.size
        # Nine columns (the image itself first) and eight rows of squares.
        assert width / height == pytest.approx(9 / 8, rel=0.06)
        assert len(image.getcolors(1 << 20)) > 50
    assert not (tmp_path / "output").exists()
