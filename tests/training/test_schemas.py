"""What a run keeps in JSON and CSV, edited and damaged: one line that names file and field, never a fault."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_run import make_run

from paddle_resnet.config import Config
from paddle_resnet.errors import UsageError
from paddle_resnet.evaluation import evaluate
from paddle_resnet.files import md5_of
from paddle_resnet.results import EpochRecord
from paddle_resnet.text_files import read_json, write_json
from paddle_resnet.training.checkpoints import _checked_arrays, read_checkpoint
from paddle_resnet.training.run_folder import Run

STEPS = 3
EPOCH = {
    "epoch": 1,
    "train_loss": 1.0,
    "train_top1": 0.5,
    "validation_loss": 1.25,
    "validation_top1": 0.25,
    "learning_rate": 0.1,
    "images_per_second": 10.0,
    "seconds": 2.0,
}
STATE = {
    "model": "resnet8",
    "epoch": 1,
    "step": 2,
    "finished": False,
    "processes": 1,
    "trained_on": {"paddle": "3.3.1", "device": "cpu", "threads": 1},
    "data": {"training images": 18},
    "states": {
        "Recorder": {
            "records": [EPOCH],
            "step": 5,
            "learning_rate": 0.1,
            "means": {"loss": 3.5, "correct": 1, "samples": 12},
            "train": {"cross_entropy": 1.5, "top1": 0.5},
            "images": 12,
            "seconds": 0.5,
            "seconds_of_run": 3.5,
        },
        "TrainLoader": {"generator": np.random.default_rng(0).bit_generator.state},
        "VisualDLLog": {"train": 100, "validation": 50},
    },
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("run"))
    last = run.checkpoint_path("last")
    last.mkdir()
    for name in ("model.pdparams", "optimizer.pdopt"):
        (last / name).write_bytes(name.encode())
    return run


def put(run, state=STATE):
    """Write `state` as the run's, with the digests of its files."""
    last = run.checkpoint_path("last")
    digests = {name: md5_of(last / name) for name in ("model.pdparams", "optimizer.pdopt")}
    write_json(last / "state.json", {**state, "md5": digests, **({"md5": state["md5"]} if "md5" in state else {})})


def changed(key: str, value: object) -> dict:
    state = json.loads(json.dumps(STATE))
    *groups, last = key.split(".")
    inner = state
    for group in groups:
        inner = inner[int(group)] if isinstance(inner, list) else inner[group]
    inner[last] = value
    return state


def test_a_whole_state_is_read(run):
    put(run)
    checkpoint = read_checkpoint(run)
    checkpoint.require_within(STEPS)
    assert checkpoint.position == (1, 2)
    assert checkpoint.states["TrainLoader"]["generator"] == STATE["states"]["TrainLoader"]["generator"]
    assert checkpoint.states["Recorder"]["records"] == [EPOCH]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epoch", -1),
        ("epoch", "1"),
        ("epoch", True),
        ("epoch", 1.0),
        ("epoch", 10**9),
        ("epoch", None),
        ("step", -2),
        ("step", 10**12),
        ("step", 10**30),
        ("step", 4),
        ("step", [2]),
        ("finished", True),
        ("finished", "no"),
        ("finished", 1),
        ("processes", 0),
        ("processes", "2"),
        ("trained_on", []),
        ("trained_on", {"paddle": [1]}),
        ("data", "none"),
        ("states", []),
        ("states", {}),
        ("states.Recorder", None),
        ("states.Recorder.records", [EPOCH, EPOCH]),
        ("states.Recorder.records", []),
        ("states.Recorder.records", [{"epoch": 1}]),
        ("states.Recorder.records.0.epoch", 7),
        ("states.Recorder.records.0.train_top1", 50),
        ("states.Recorder.records.0.seconds", "long"),
        ("states.Recorder.step", 10**12),
        ("states.Recorder.learning_rate", -0.1),
        ("states.Recorder.means.samples", -1),
        ("states.Recorder.train", {}),
        ("states.Recorder.seconds", 0),
        ("states.TrainLoader", {}),
        ("states.TrainLoader.generator.bit_generator", "MT19937"),
        ("states.TrainLoader.generator.state.state", 1 << 128),
        ("states.TrainLoader.generator.state.inc", -1),
        ("states.TrainLoader.generator.has_uint32", 2),
        ("states.TrainLoader.generator.uinteger", 1 << 32),
        ("states.VisualDLLog.train", -1),
        ("states.MovingAverage", {"steps": 7}),
        ("states.ReduceOnPlateau", {"reductions": 10**9}),
        ("md5", {}),
        ("md5", {"/dev/zero": "0" * 32}),
        ("md5", {"../best/model.pdparams": "0" * 32}),
        ("md5", {"model.pdparams": None}),
    ],
)
def test_an_edited_field_is_one_line_that_names_it(run, key, value):
    put(run, changed(key, value))
    with pytest.raises(UsageError) as caught:
        read_checkpoint(run).require_within(STEPS)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 600
    assert f"{run.checkpoint_path('last')}: damaged: state.json: {key.partition('.')[0]}" in line


def test_a_changed_file_is_named(run):
    put(run, changed("md5", {"model.pdparams": "0" * 32, "optimizer.pdopt": "0" * 32}))
    with pytest.raises(UsageError, match=r"checkpoints/last: damaged: model\.pdparams is not as it was written"):
        read_checkpoint(run)


PIPE = pytest.param(lambda path: os.mkfifo(path), marks=pytest.mark.posix)


@pytest.mark.parametrize(
    "make",
    [PIPE, Path.mkdir, lambda path: path.symlink_to("/dev/zero")],
)
@pytest.mark.parametrize("name", ["model.pdparams", "state.json"])
def test_special_files_are_refused(tmp_path, name, make):
    run = make_run(tmp_path, checkpoint=False)
    last = run.checkpoint_path("last")
    last.mkdir(parents=True)
    for each in ("model.pdparams", "optimizer.pdopt"):
        (last / each).write_bytes(b"x")
    put(run)
    (last / name).unlink()
    make(last / name)
    with pytest.raises(UsageError, match=r"damaged: .*not a regular file|damaged: .*directory"):
        read_checkpoint(run)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON at line 1"),
        (b"{", "not JSON at line 1"),
        (b'{"a": NaN}', "NaN is not a finite number"),
        (b'{"a": -Infinity}', "-Infinity is not a finite number"),
        (b'{"a": 1e999}', "1e999 is not a finite number"),
        (b'{"a": 1, "a": 2}', 'the key "a" appears twice'),
        (b"[" * 100_000 + b"]" * 100_000, "recursion"),
        (b'{"a": ' + b"9" * 5000 + b"}", "damaged"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        (b"\xff\xfe{\x00}\x00", "byte 0 is not UTF-8"),
        (b'{"a": 1} {"b": 2}', "not JSON at line 1"),
        (b"\x00" * 10, "not JSON at line 1"),
    ],
)
def test_unusual_json_is_one_line(tmp_path, content, words):
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=words) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_json_round_trip(tmp_path):
    value = {"name": "k\udce4tzchen.png", "other": "Kätzchen", "numbers": [1, 2.5, 1 << 127]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "a.json").read_bytes())
    assert read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"conv_0.w_0_velocity_0": np.zeros((3, 3), np.float32)}, r"velocity_0 has the shape \(3, 3\)"),
        ({"conv_0.w_0_velocity_0": np.full((2, 3), np.nan, np.float32)}, "not a finite number"),
        ({"conv_0.w_0_velocity_0": "text"}, "not a finite number"),
        ({"other_velocity_0": np.zeros(2, np.float32)}, r"has the shape \(2,\)"),
        ({"LR_Scheduler": {"last_lr": float("inf")}}, "last_lr holds what is not a finite number"),
    ],
)
def test_an_optimizer_state_fits_its_parameters(tmp_path, arrays, words):
    path = tmp_path / "optimizer.pdopt"
    _checked_arrays(
        path, {"conv_0.w_0_velocity_0": np.ones((2, 3)), "LR_Scheduler": {"last_epoch": 3}}, {"conv_0.w_0": [2, 3]}
    )
    with pytest.raises(UsageError, match=words):
        _checked_arrays(path, arrays, {"conv_0.w_0": [2, 3], "conv_0.w": [3, 3]})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"test": 1}',
        b'{"test": {"top1": "x", "images": 3}}',
        b'{"test": {}}',
        b'{"train": {"epochs": -1, "seconds": 1}}',
        b'{"train": {"epochs": 1, "seconds": NaN}}',
        b'{"validation": []}',
    ],
)
def test_damaged_metrics_are_one_line(tmp_path, content):
    run = Run(tmp_path, Config())
    run.metrics_path.write_bytes(content)
    with pytest.raises(UsageError, match=r"metrics\.json: damaged") as caught:
        run.metrics()
    assert len(str(caught.value)) < 600 and str(caught.value).isprintable()


HEAD = "epoch,train_loss,train_top1,validation_loss,validation_top1,learning_rate,images_per_second,seconds\n"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "x",
        HEAD + "1,2",
        HEAD + "1,2,3,4,5,6,7,x",
        HEAD + "1,2,3,4,5,6,7,nan",
        HEAD + "x,2,3,4,5,6,7,8",
        HEAD[1:],
        HEAD + "1,2,3,4,5,6,7,8,9",
        HEAD + "9" * 5000 + ",2,3,4,5,6,7,8",
        HEAD + '"',
        HEAD + "a" * 200_000,
        HEAD + "\n",
    ],
)
def test_a_damaged_history_is_one_line(tmp_path, content):
    run = Run(tmp_path, Config())
    run.history_path.write_text(content)
    with pytest.raises(UsageError, match=r"history\.csv: damaged") as caught:
        run.history()
    assert len(str(caught.value)) < 600 and str(caught.value).isprintable()


@pytest.mark.posix
def test_a_history_must_be_a_regular_file(tmp_path):
    run = Run(tmp_path, Config())
    os.mkfifo(run.history_path)
    with pytest.raises(UsageError, match=r"history\.csv: damaged: not a regular file; "):
        run.history()


@pytest.mark.parametrize("damaged", ["metrics.json", "history.csv"])
def test_nothing_is_measured_with_damaged_files(tmp_path, damaged):
    run = make_run(tmp_path)
    (run.path / damaged).write_text("{")
    before = {path.name for path in run.path.iterdir()}
    with pytest.raises(UsageError, match=rf"{damaged}: damaged"):
        evaluate(run)
    assert {path.name for path in run.path.iterdir()} == before
    assert (run.path / damaged).read_text() == "{"


def test_a_copy_without_best_is_one_line(run, tmp_path):
    part = Run(shutil.copytree(run.path, tmp_path / "part"), run.config)
    put(part)
    assert read_checkpoint(part) is not None
    shutil.rmtree(part.checkpoint_path("best"))
    with pytest.raises(UsageError, match=r"best/model\.pdparams: missing, so the run was copied in part: copy"):
        read_checkpoint(part)
    with pytest.raises(UsageError, match=r"no checkpoint 'best' here; train it first"):
        part.load_network()
    part.update_metrics("train", {"epochs": 1, "seconds": 1.0})
    with pytest.raises(UsageError, match=r"no checkpoint 'best' here; the run is trained, .*copy .*/best too"):
        part.load_network()


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_a_copy_without_last_does_not_begin_again(run, tmp_path, epochs):
    part = Run(shutil.copytree(run.path, tmp_path / "part"), run.config)
    shutil.rmtree(part.checkpoint_path("last"))
    part.write_history([EpochRecord(**{**EPOCH, "epoch": 1 + epoch}) for epoch in range(epochs)])
    if epochs < 2:  # killed before its first checkpoint
        assert read_checkpoint(part) is None
    else:
        with pytest.raises(UsageError, match=r"checkpoints/last: missing, so the run was copied in part"):
            read_checkpoint(part)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"data: {", b"\xff", b"\0", b"train: {epochs: x}", b"a: 1", b"data:\n  source: image_folder"],
)
def test_a_damaged_config_is_one_line(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=r"config\.yaml") as caught:
        Run.open(tmp_path)
    assert len(str(caught.value)) < 600 and str(caught.value).isprintable()


@pytest.mark.parametrize(
    "make",
    [PIPE, Path.mkdir, lambda path: path.symlink_to("/dev/zero")],
)
def test_a_config_must_be_a_regular_file(tmp_path, make):
    make(tmp_path / "config.yaml")
    with pytest.raises(UsageError, match=r"config\.yaml"):
        Run.open(tmp_path)
