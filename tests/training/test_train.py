"""A whole run on the digits: the files it writes, and that their metrics are correct."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import paddle
import pytest
from tiny_run import quickstart
from visualdl import LogReader

from paddle_resnet.config import Config
from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.models import read_state_dict
from paddle_resnet.tracking.training_log import image_grid
from paddle_resnet.training import Run, train
from paddle_resnet.training.callbacks.recorder import Recorder
from paddle_resnet.training.setup import open_data_and_network

pytestmark = pytest.mark.slow

QUICK = [
    "model.name=resnet8",
    "train.epochs=2",
    "data.image_size=8",
    "augment.pad=1",
    "train.batch_size=100",
    "train.learning_rate=0.05",
    "device=cpu",
]


def config_for(output: Path, *overrides: str) -> Config:
    return quickstart([*QUICK, f"output={output}", *overrides])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return train(config_for(tmp_path_factory.mktemp("runs")))


def test_the_folder_holds_the_run(run):
    assert Config.load(run.config_path) == run.config
    assert Run.open(run.path).config == run.config
    assert {each.name for each in run.path.iterdir()} == {
        "config.yaml", "data.json", "metrics.json", "history.csv", "train.log", "vdl", "checkpoints",
    }  # fmt: skip
    assert {each.name for each in (run.path / "checkpoints").iterdir()} == {"last", "best"}
    assert "threads" in run.log_path.read_text()
    assert "epoch 2/2" in run.log_path.read_text()


def test_history_and_metrics_agree(run):
    history = run.history()
    assert [record.epoch for record in history] == [1, 2]
    assert history[1].train_loss < history[0].train_loss < 3
    best = max(history, key=lambda record: (record.validation_top1, -record.validation_loss))
    metrics = json.loads(run.metrics_path.read_text())
    assert metrics["validation"] == {"epoch": best.epoch, "loss": best.validation_loss, "top1": best.validation_top1}
    assert metrics["train"]["epochs"] == 2
    assert metrics["environment"]["device"] == "cpu"
    assert metrics["environment"]["processor"] in Path("/proc/cpuinfo").read_text()


@pytest.mark.parametrize("which", ["best", "last"])
def test_recorded_validation_is_that_of_the_checkpoint(run, which):
    """Measured again, image by image in numpy, from the weights on disk."""
    from paddle_resnet.data import uint8_batches

    state = json.loads((run.checkpoint_path(which) / "state.json").read_text())
    network, normalize = run.load_network(which), run.normalize()
    losses, correct = [], []
    for images, labels in uint8_batches(run.splits().validation, 64, run.splits().resize, 8):
        with paddle.no_grad():
            logits = network(normalize(paddle.to_tensor(images))).numpy().astype("float64")
        losses += list(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels])
        correct += list(logits.argmax(axis=1) == labels)
    assert len(correct) == len(run.splits().validation)
    assert state["validation_top1"] == pytest.approx(np.mean(correct), abs=1e-9)
    assert state["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def test_last_checkpoint_holds_the_optimizer(run):
    optimizer = paddle.load(str(run.checkpoint_path("last") / "optimizer.pdopt"))
    steps = 2 * (len(run.splits().train) // 100)
    assert optimizer["LR_Scheduler"]["last_epoch"] == steps


def test_visual_dl_has_the_curves(run):
    history = run.history()
    for part, values in (
        (
            "train",
            {
                "loss": "train_loss",
                "top-1": "train_top1",
                "learning rate": "learning_rate",
                "images per second": "images_per_second",
            },
        ),
        ("validation", {"loss": "validation_loss", "top-1": "validation_top1"}),
    ):
        (log,) = (run.vdl_path / part).iterdir()
        reader = LogReader(file_path=str(log))
        for tag, column in values.items():
            points = reader.get_data("scalar", f"epoch/{tag}")
            assert [point.id for point in points] == [1, 2]
            expected = [getattr(record, column) for record in history]
            np.testing.assert_allclose([point.value for point in points], expected, rtol=1e-5)
    (log,) = (run.vdl_path / "train").iterdir()
    reader = LogReader(file_path=str(log))
    assert len(reader.get_data("image", "augmented training images")) == 1
    assert "quickstart" in str(reader.get_data("text", "config")[0])
    steps = [point.id for point in reader.get_data("scalar", "step/loss")]
    assert steps == list(range(2 * (len(run.splits().train) // 100)))


def test_same_seed_gives_same_weights(run, tmp_path):
    again = train(config_for(tmp_path))
    once_more = train(config_for(tmp_path, "train.seed=1"))
    assert once_more.path == again.path
    kept = tmp_path / "quickstart.1"
    assert Config.load(kept / "config.yaml").train.seed == 0
    first, repeated, other = (
        read_state_dict(folder / "checkpoints" / "last" / "model.pdparams")
        for folder in (run.path, kept, once_more.path)
    )
    for name, weights in first.items():
        np.testing.assert_array_equal(weights, repeated[name], err_msg=name)
    assert not np.array_equal(first["conv1.weight"], other["conv1.weight"])


def test_an_infinite_loss_stops_the_run(tmp_path):
    with pytest.raises(RunFailure, match=r"epoch 1 became (nan|inf) at learning rate .*learning_rate"):
        train(config_for(tmp_path, "train.learning_rate=1e30", "train.warmup=0"))
    assert not (tmp_path / "quickstart" / "metrics.json").exists()


def test_start_from_the_weights_of_another_run(run, tmp_path, caplog):
    weights = run.checkpoint_path("best") / "model.pdparams"
    with caplog.at_level(logging.INFO, logger="paddle_resnet"):
        logging.getLogger("paddle_resnet").propagate = True
        second = train(config_for(tmp_path, f"model.pretrained={weights}", "train.epochs=1"))
    assert "model.pdparams" in caplog.text
    assert second.history()[0].train_loss < run.history()[0].train_loss


def test_ctrl_c_ends_between_two_steps(tmp_path, monkeypatch):
    earlier = signal.getsignal(signal.SIGINT)
    steps = []

    def press_in_the_second_epoch(recorder, step, logs=None):
        steps.append((recorder._epoch, step, "begun"))
        if (recorder._epoch, step) == (2, 3):
            os.kill(os.getpid(), signal.SIGINT)

    original = Recorder.on_train_batch_end

    def note_the_end(recorder, step, logs=None):
        original(recorder, step, logs)
        steps.append((recorder._epoch, step, "ended"))

    monkeypatch.setattr(Recorder, "on_train_batch_begin", press_in_the_second_epoch)
    monkeypatch.setattr(Recorder, "on_train_batch_end", note_the_end)
    with pytest.raises(KeyboardInterrupt):
        train(config_for(tmp_path))
    assert steps[-2:] == [(2, 3, "begun"), (2, 3, "ended")]
    assert signal.getsignal(signal.SIGINT) is earlier
    run = Run.open(tmp_path / "quickstart")
    assert [record.epoch for record in run.history()] == [1]
    assert run.load_network("last") is not None
    assert "interrupted" in run.log_path.read_text()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.name=resnet21"], "resnet2"),
        (["device=gpu:99"], "gpu:99"),
        (["model.pretrained=nowhere.pdparams"], "nowhere"),
        (["train.cpu_backend=onednn", "model.name=lenet", "data.image_size=28"], "LeNet; use auto or native"),
        (["train.cpu_backend=native", "train.cpu_precision=bfloat16"], "bfloat16 needs the oneDNN backend"),
    ],
)
def test_wrong_use_leaves_no_folder(tmp_path, overrides, words):
    with pytest.raises(UsageError, match=words):
        train(config_for(tmp_path, *overrides))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_other_files_is_never_moved_for_a_run(tmp_path):
    (tmp_path / "quickstart").mkdir()
    names = [".backup.old", ".config", ".notes.20241130", "backup", "photo.png"]
    for name in names:
        (tmp_path / "quickstart" / name).touch()
    with pytest.raises(UsageError, match=r"quickstart: exists and is no run .*; choose another -o name="):
        train(config_for(tmp_path))
    assert sorted(each.name for each in tmp_path.rglob("*")) == [*names, "quickstart"]


def test_a_file_of_the_runs_name_is_refused_before_data_are_read(tmp_path):
    (tmp_path / "quickstart").write_text("a user's notes")
    config = Config.load("configs/quickstart.yaml", [f"output={tmp_path}", "data.source=cifar10", "data.root=missing"])
    with pytest.raises(UsageError, match="quickstart: exists and is no folder; choose another name"):
        train(config)
    assert (tmp_path / "quickstart").read_text() == "a user's notes"


def test_a_folder_that_is_no_run(tmp_path, run):
    with pytest.raises(UsageError, match="no such run"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"config\.yaml"):
        Run.open(tmp_path)
    run.config.save(tmp_path / "config.yaml")
    with pytest.raises(UsageError, match="no checkpoint"):
        Run.open(tmp_path).load_network()


def test_the_weights_of_a_run_that_has_not_finished_are_called_so(tmp_path, run, caplog):
    part = Path(shutil.copytree(run.path, tmp_path / "part"))
    (part / "metrics.json").unlink()  # which the end of a training writes
    logging.getLogger("paddle_resnet").propagate = True
    for folder, warned in ((run.path, False), (part, True)):
        caplog.clear()
        Run.open(folder).load_network()
        assert (f"{folder}: its training has not finished" in caplog.text) == warned


@pytest.mark.parametrize(
    ("overrides", "warned"),
    [
        (["train.batch_size=1"], True),
        (["train.batch_size=1293"], False),
        (["train.batch_size=1293", "train.accumulate=2"], True),  # of 1,294 images one is left for the last piece
        (["train.batch_size=2"], False),
        (["train.batch_size=1", "model.name=lenet", "data.image_size=28"], False),  # no BatchNorm
    ],
)
def test_single_image_batches_with_batch_norm_warn(tmp_path, caplog, overrides, warned):
    config = config_for(tmp_path, *overrides)
    caplog.clear()
    open_data_and_network(Run.new(config))
    lines = [each.getMessage() for each in caplog.records if "BatchNorm" in each.getMessage()]
    found = [line.partition(":")[::2] for line in lines]
    words = f" {overrides[0].replace('=', ' ')} with 1294 training images"
    assert [(kind, line.partition(":")[0]) for kind, line in found] == [("warning", words)] * warned


def test_image_grid_keeps_each_picture():
    images = np.arange(16, dtype="uint8")[:, None, None, None].repeat(32, 1).repeat(32, 2).repeat(3, 3)
    grid = image_grid(images, columns=8)
    assert grid.shape == (2 * 66, 8 * 66, 3)
    centres = grid[33::66, 33::66, 0]
    np.testing.assert_array_equal(centres, np.arange(16).reshape(2, 8))
