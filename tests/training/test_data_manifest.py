"""What a run was trained on: measured and exported alike, whatever has happened to its folder of pictures since."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny_run import COLOURS, make_run

from paddle_resnet.config import Config
from paddle_resnet.data import Normalize, open_splits
from paddle_resnet.errors import UsageError
from paddle_resnet.evaluation import evaluate
from paddle_resnet.exporting import export
from paddle_resnet.inference import InferenceConfig
from paddle_resnet.training.data_manifest import DataManifest
from paddle_resnet.training.run_folder import Run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_plots")]

PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("record"))


@pytest.fixture
def run(made, tmp_path):
    """The run opened again, with pictures of its own to be changed."""
    shutil.copytree(made.path, tmp_path / "run")
    root = shutil.copytree(made.config.data.root, tmp_path / "pictures")
    return Run.open_trained(tmp_path / "run", [f"data.root={root}"])


def again(run):
    return Run.open_trained(run.path, [f"data.root={run.config.data.root}"])


def names(run):
    return {part: (split := getattr(run.splits(), part)).names(np.arange(len(split))) for part in PARTS}


def test_the_manifest_holds_classes_splits_and_preprocessing(made):
    record = json.loads(made.data_path.read_text())
    assert record["classes"] == list(COLOURS)
    assert {part: record["files"][part]["names"] for part in PARTS} == names(made)
    assert record["files"]["test"]["labels"] == [0] * 4 + [1] * 4 + [2] * 4
    assert (record["image_size"], record["resize"], record["source"]) == (16, 16, "image_folder")
    assert (record["mean"], record["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def test_newer_pictures_and_classes_are_not_used(run, caplog):
    root, before = run.config.data.root, names(run)
    for number in range(5):
        shutil.copy(root / "train/red/0.png", root / f"train/red/new{number}.png")
    shutil.copytree(root / "train/red", root / "train/amber")
    evaluation = evaluate(run, "test")
    caplog.clear()
    run = again(run)
    assert names(run) == before and run.classes() == tuple(COLOURS)
    assert [record.getMessage() for record in caplog.records] == [
        f"warning: {root}: new since {run.path} was divided for training, and not used: train/amber/0.png (and 17 more)"
    ]
    np.testing.assert_array_equal(evaluate(run, "test").scores, evaluation.scores)
    assert InferenceConfig.load(export(run).path).classes == tuple(COLOURS)


def test_labels_that_changed_are_not_used(tmp_path, caplog):
    (tmp_path / "images").mkdir()
    for number in range(20):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"images/{number}.png")
    labels = tmp_path / "labels.csv"
    rows = [f"{number},{'ab'[number % 2]}\n" for number in range(20)]
    labels.write_text("id,label\n" + "".join(rows))
    data = {"source": "image_list", "root": tmp_path, "train_list": labels, "image_size": 8}
    config = Config.model_validate({"data": data})
    splits = open_splits(config.data)
    manifest = DataManifest.of(config, splits, Normalize((0.5,) * 3, (0.2,) * 3))
    labels.write_text("id,label\n" + "".join(rows[:-2]) + "18,b\n19,c\n")
    caplog.clear()
    again = manifest.open(tmp_path / "run", config)
    assert caplog.messages == [
        f"warning: {tmp_path}: labelled anew since {tmp_path / 'run'} was divided for training, and not used: "
        "images/18.png as b (and 1 more)"
    ]
    for part in PARTS:
        np.testing.assert_array_equal(getattr(again, part).labels, getattr(splits, part).labels)


def test_a_validation_split_that_is_the_test_split_stays_so(run, caplog):
    root = run.config.data.root
    (root / "test").rename(root / "val")
    new = Run.new(run.config.model_copy(update={"name": "other"}))
    with new.create():
        pass
    shutil.copytree(run.checkpoint_path("best"), new.checkpoint_path("best"))
    caplog.clear()
    new = Run.open(new.path)
    assert (
        names(new)["validation"]
        == names(new)["test"]
        == json.loads(new.data_path.read_text())["files"]["test"]["names"]
    )
    assert evaluate(new).images == 12
    assert "warning: there is no test split: these are the validation images" in caplog.text


def _remove(root):
    (root / "test/red/0.png").unlink()


def _rename_class(root):
    for part in ("train", "test"):
        (root / part / "blue").rename(root / part / "violet")


def _swap(root):
    (root / "test/red/0.png").write_bytes((root / "test/blue/0.png").read_bytes())


def _fifo(root):
    _remove(root)
    os.mkfifo(root / "test/red/0.png")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (_remove, r"test/red/0\.png is missing"),
        (_rename_class, r"train/blue/\d\.png is missing \(and 11 more of 36 files\)"),
        (_swap, r"test/red/0\.png has another content"),
        (_fifo, r"test/red/0\.png cannot be read \(not a regular file\)"),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_changed_data_are_neither_measured_nor_exported(run, change, what):
    run.update_metrics("test", {"top1": 0.75, "images": 12, "checkpoint": "best"})
    change(run.config.data.root)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    for action in (evaluate, export):
        with pytest.raises(UsageError, match=f"{what}.*-o data.root=FOLDER") as caught:
            action(again(run))
        assert str(caught.value).isprintable()
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_export_without_measuring_needs_no_data(run):
    shutil.rmtree(run.config.data.root)
    report = export(again(run), images=0)
    assert report.random and report.images == 64 and report.max_difference <= 1e-4
    assert InferenceConfig.load(report.path).classes == tuple(COLOURS)
    with pytest.raises(UsageError, match="no such folder"):
        export(again(run), precisions=["int8"], images=0)


def test_preprocessing_cannot_change_after_training(run):
    with pytest.raises(UsageError, match=r"-o data\.image_size=32: .*as it was trained; expected one of data\.memory"):
        Run.open_trained(run.path, ["data.image_size=32"])
    Config.load(run.config_path, ["data.image_size=32"]).save(run.config_path)
    with pytest.raises(UsageError, match=r"data\.image_size is 32 now, but the run was trained with 16.*put it back"):
        Run.open(run.path).classes()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("classes", []),
        ("classes", None),
        ("fingerprint", 1),
        ("mean", ["x"]),
        ("files.test.names", ["/etc/passwd"] * 12),
        ("files.test.names", ["../secret"] * 12),
        ("files.test.names", ["a"]),
        ("files.test.labels", [3] * 12),
        ("files.test.labels", [-1] * 12),
        ("files.test.crc32", [1 << 40] * 12),
        ("files.test.sizes", [True] * 12),
        ("files.test", None),
    ],
)
def test_a_damaged_manifest_is_one_line(run, field, value):
    record = json.loads(run.data_path.read_text())
    *groups, key = field.split(".")
    group = record
    for each in groups:
        group = group[each]
    group[key] = value
    run.data_path.write_text(json.dumps(record))
    with pytest.raises(UsageError, match=rf"data\.json: damaged: {field.partition('.')[0]}") as caught:
        again(run).classes()
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()


def _began(run):
    """Make it a run of before there were records."""
    record = json.loads(run.data_path.read_text())
    run.data_path.unlink()
    run.checkpoint_path("last").mkdir()
    (run.checkpoint_path("last") / "state.json").write_text(json.dumps({"data": record["fingerprint"]}))
    return again(run)


def test_an_early_runs_fingerprint_is_compared(run):
    assert names(_began(run))["test"][0] == "test/blue/0.png"
    _swap(run.config.data.root)
    with pytest.raises(UsageError, match=r"the data changed: held-out images' checksums .*start a new run"):
        evaluate(again(run))
    _rename_class(run.config.data.root)
    assert again(run).classes() == tuple(COLOURS)


def test_a_damaged_fingerprint_is_refused(run):
    run = _began(run)
    (run.checkpoint_path("last") / "state.json").write_text('{"data": {"classes": [1]}}')
    with pytest.raises(UsageError, match=r"state\.json: damaged: data\.classes\.0: expected a text"):
        evaluate(again(run))


def test_a_run_without_manifest_is_measured_with_a_warning(run, caplog):
    run.data_path.unlink()
    assert len(again(run).splits().test) == 12
    assert [each.getMessage() for each in caplog.records] == [
        f"warning: {run.path} does not say what it was trained on: its data are taken as they are"
    ]


def test_images_without_files_are_compared_by_fingerprint(tmp_path, monkeypatch):
    config = Config.model_validate({"name": "digits", "output": str(tmp_path), "data": {"source": "digits"}})
    run = Run.new(config)
    with run.create():
        pass
    assert json.loads(run.data_path.read_text())["files"] is None
    assert Run.open(run.path).splits().classes == run.classes()
    other = open_splits(config.data.model_copy(update={"split_seed": 7}))
    monkeypatch.setattr("paddle_resnet.training.data_manifest.open_splits", lambda *_: other)
    with pytest.raises(UsageError, match=r"the data changed: .*put the images back"):
        Run.open(run.path).splits()
    assert Run.open(run.path).classes() == run.classes()
