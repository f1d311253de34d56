"""A stopped run resumes bit for bit as if it had never been stopped: in this process, and after SIGKILL in another."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import paddle
import pytest
from resumed_runs import differences, read_curves
from tiny_run import make_run, quickstart

from paddle_resnet import onednn
from paddle_resnet.config import Config
from paddle_resnet.data import MemorySplit
from paddle_resnet.errors import RunFailure, Stopped, UsageError
from paddle_resnet.models import read_state_dict
from paddle_resnet.training import Run, resume, train, train_or_resume
from paddle_resnet.training.callbacks.steps import StepSeeds
from paddle_resnet.training.callbacks.visual_dl import Curves

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[2]
QUICK = [
    "model.name=resnet8",
    "train.epochs=2",
    "train.batch_size=110",
    "data.validation_fraction=0.5",
    "data.test_fraction=0.5",
    "train.learning_rate=0.05",
    "data.image_size=8",
    "augment.pad=1",
    "device=cpu",
    "train.cpu_backend=native",
    "train.ema=0.9",
]
STEPS = 4
"""In an epoch: 449 training images."""


def config_for(output: Path, *overrides: str) -> Config:
    return quickstart([*QUICK, f"output={output}", *overrides])


@pytest.fixture
def stop_in(monkeypatch):
    """Send a signal at the beginning of a step: `stop_in(step of the run, signal)`."""
    original = StepSeeds.on_train_batch_begin

    def stop_in(number: int, which: int = signal.SIGINT) -> None:
        def begin(seeds, step, logs=None):
            original(seeds, step, logs)
            if seeds._epoch * STEPS + step == number:
                os.kill(os.getpid(), which)

        monkeypatch.setattr(StepSeeds, "on_train_batch_begin", begin)

    return stop_in


RECIPES = {
    "oneDNN, average, growing images": [
        "train.cpu_backend=auto",
        "train.first_size=8",
        "data.image_size=12",
    ],
    "AdamW, dropout": [
        "train.ema=null",
        "train.optimizer=adamw",
        "train.clip_norm=1",
        "model.dropout=0.3",
        "model.stochastic_depth=0.3",
    ],
    "oneDNN in bfloat16, Muon, whitening": [
        "train.cpu_backend=auto",
        "train.cpu_precision=bfloat16",
        "train.optimizer=muon",
        "model.stem=whitening",
        "data.image_size=16",
        "train.schedule=step",
    ],
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_resume_within_an_epoch_is_exact(tmp_path, stop_in, recipe):
    if "bfloat16" in recipe and onednn.bfloat16_unavailable_reason() is not None:
        pytest.skip(onednn.bfloat16_unavailable_reason())
    through = train(config_for(tmp_path, "name=through", *RECIPES[recipe]))
    stop_in(STEPS + 2)
    with pytest.raises(Stopped):
        train(config_for(tmp_path, "name=stopped", *RECIPES[recipe]))
    state = json.loads((tmp_path / "stopped" / "checkpoints" / "last" / "state.json").read_text())
    assert (state["epoch"], state["step"]) == (1, 3)
    assert differences(through.path, tmp_path / "stopped") != []
    resume(tmp_path / "stopped")
    assert differences(through.path, tmp_path / "stopped") == []


@pytest.fixture(scope="module")
def through(tmp_path_factory) -> Run:
    """The plain recipe, never stopped."""
    return train(config_for(tmp_path_factory.mktemp("through")))


@pytest.mark.parametrize("stopped_in", [0, STEPS - 1])
def test_resume_after_first_or_last_step_is_exact(tmp_path, stop_in, through, stopped_in):
    """In the last step all batches of the epoch have been seen, and its validation has not begun."""
    stop_in(stopped_in)
    with pytest.raises(Stopped):
        train(config_for(tmp_path))
    resume(tmp_path / "quickstart")
    assert differences(through.path, tmp_path / "quickstart") == []


def test_resume_from_a_validation_is_exact(tmp_path, through, monkeypatch):
    original = paddle.Model.eval_batch

    def press(model, *arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(model, *arguments)

    monkeypatch.setattr(paddle.Model, "eval_batch", press)
    with pytest.raises(Stopped, match="terminated") as stopped:
        train(config_for(tmp_path))
    assert stopped.value.exit_code == 143
    monkeypatch.undo()
    resume(tmp_path / "quickstart")
    assert differences(through.path, tmp_path / "quickstart") == []


KILLED = """
import os, signal, sys
sys.path.insert(0, {project!r})
import paddle_resnet
import paddle
from paddle_resnet.config import Config
from paddle_resnet.training import train

saved, files = paddle.save, []

def save(values, path):
    saved(values, path)
    files.append(path)
    if len(files) == {files}:
        os.kill(os.getpid(), signal.SIGKILL)

paddle.save = save
train(Config.load({config!r}))
"""


def test_resume_after_kill_in_checkpoint_is_exact(tmp_path, through):
    """After two checkpoints of three files each and the best's one, in the middle of the next."""
    config = config_for(tmp_path, "train.checkpoint_steps=2")
    config.save(tmp_path / "config.yaml")
    code = KILLED.format(project=str(PROJECT), files=8, config=str(tmp_path / "config.yaml"))
    process = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    path = tmp_path / "quickstart"
    assert [*(path / "checkpoints").glob(".*")] != []
    state = json.loads((path / "checkpoints" / "last" / "state.json").read_text())
    assert (state["epoch"], state["step"]) == (0, 4)
    resume(path)
    assert differences(through.path, path) == []


@pytest.mark.once
def test_curves_after_the_checkpoint_are_not_doubled(tmp_path, through, monkeypatch):
    """As if killed three steps into the second epoch, with these in the curves' file, and a checkpoint two steps in."""
    original = Curves.on_train_batch_end

    def die(curves, step, logs=None):
        original(curves, step, logs)
        if curves._recorder.steps == STEPS + 3:
            curves._log.close()
            raise MemoryError

    monkeypatch.setattr(Curves, "on_train_batch_end", die)
    with pytest.raises(MemoryError):
        train(config_for(tmp_path, "train.checkpoint_steps=2"))
    monkeypatch.undo()
    path = tmp_path / "quickstart"
    assert len(read_curves(path / "vdl" / "train")["step/loss"]) == STEPS + 3
    resume(path)
    assert differences(through.path, path) == []


@pytest.mark.once
def test_a_run_without_a_checkpoint_begins_again(tmp_path, through, stop_in, monkeypatch):
    stop_in(3, signal.SIGUSR1)
    earlier = signal.signal(signal.SIGUSR1, lambda number, frame: (_ for _ in ()).throw(MemoryError))
    try:
        with pytest.raises(MemoryError):
            train(config_for(tmp_path))
    finally:
        signal.signal(signal.SIGUSR1, earlier)
        monkeypatch.undo()
    path = tmp_path / "quickstart"
    assert not (path / "checkpoints").exists()
    resume(path)
    assert differences(through.path, path) == []


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_stays_unchanged(through, caplog):
    before = everything_in(through.path)
    logging.getLogger("paddle_resnet").propagate = True
    with caplog.at_level(logging.INFO, logger="paddle_resnet"):
        assert resume(through.path).path == through.path
        assert train_or_resume(through).path == through.path
    assert "finished" in caplog.text
    assert everything_in(through.path) == before


def unfinished_copy(through: Run, folder: Path) -> Path:
    """A copy of the run without its metrics."""
    path = folder / "quickstart"
    shutil.copytree(through.path, path)
    (path / "metrics.json").unlink()
    return path


def test_kill_before_the_metrics_is_resumed(tmp_path, through):
    path = unfinished_copy(through, tmp_path)
    (path / "history.csv").unlink()
    expected = through.metrics()
    found = resume(path).metrics()
    assert found["validation"] == expected["validation"]
    assert found["train"]["loss"] == expected["train"]["loss"]
    assert differences(through.path, path) == []


def test_resume_drops_metrics_of_earlier_weights(tmp_path, through):
    """As of `tools/eval.py` on a stopped run: the finished one would be taken for measured."""
    path = unfinished_copy(through, tmp_path)
    Run.open(path).update_metrics("test", {"top1": 0.25, "checkpoint": "best"})
    assert set(resume(path).metrics()) == {"validation", "environment", "train"}


@pytest.mark.once
def test_the_log_is_written_line_by_line(tmp_path, monkeypatch):
    """`kill -9` leaves no time for what is held back."""
    seen = []
    original = StepSeeds.on_train_batch_begin

    def begin(seeds, step, logs=None):
        original(seeds, step, logs)
        seen.append((tmp_path / "quickstart" / "train.log").read_text())

    monkeypatch.setattr(StepSeeds, "on_train_batch_begin", begin)
    train(config_for(tmp_path))
    assert "449 training" in seen[0]
    assert "epoch 1/2" in seen[STEPS]
    assert "epoch 2/2" not in seen[-1]


def test_load_network_leaves_a_training_run_alone(tmp_path, through):
    """Between its two renames `best` is away for a moment; who brings it back then ends the training."""
    path = unfinished_copy(through, tmp_path)
    run, best, earlier = Run.open(path), path / "checkpoints" / "best", path / "checkpoints" / ".best.old"
    with run.lock():
        best.rename(earlier)
        with pytest.raises(UsageError, match="no checkpoint 'best'"):
            run.load_network("best")
        assert earlier.is_dir()
    run.load_network("best")
    assert best.is_dir()


def test_only_mutable_keys_may_change(tmp_path, through):
    path = unfinished_copy(through, tmp_path)
    with pytest.raises(UsageError, match=r"train\.learning_rate is 0\.2 now, but the run began with 0\.05"):
        resume(path, ["train.learning_rate=0.2"])
    with pytest.raises(UsageError, match=r"train\.epochs is 1 now"):
        resume(path, ["train.epochs=1"])
    assert not (path / "metrics.json").exists()
    run = resume(path, ["data.workers=3", "train.checkpoint_minutes=1"])
    assert Config.load(run.config_path).train.checkpoint_minutes == 1


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda last: (last / "model.pdparams").write_bytes(b"x" * 100), r"model\.pdparams is not as it was written"),
        (lambda last: (last / "optimizer.pdopt").unlink(), r"optimizer\.pdopt: No such file"),
        (lambda last: (last / "state.json").write_text("{"), r"state\.json cannot be understood"),
        (lambda last: (last / "state.json").write_text("{}"), r"written by a version that could not resume"),
    ],
)
def test_a_damaged_checkpoint_is_one_line(tmp_path, through, damage, words):
    path = unfinished_copy(through, tmp_path)
    damage(path / "checkpoints" / "last")
    with pytest.raises(UsageError, match=words):
        resume(path)


def test_other_images_and_other_versions(tmp_path, through, caplog):
    path = unfinished_copy(through, tmp_path)
    file = path / "checkpoints" / "last" / "state.json"
    state = json.loads(file.read_text())
    state["trained_on"]["paddle"] = "2.0.0"
    file.write_text(json.dumps(state))
    logging.getLogger("paddle_resnet").propagate = True
    with caplog.at_level(logging.INFO, logger="paddle_resnet"):
        resume(path)
    assert "the run began with paddle 2.0.0" in caplog.text
    (path / "metrics.json").unlink()
    state["data"]["training images"] = 1000
    file.write_text(json.dumps(state))
    with pytest.raises(UsageError, match="training images 449 now, 1000 when the run began"):
        resume(path)


def test_changed_images_are_found_by_checksum(tmp_path, through, monkeypatch):
    path = unfinished_copy(through, tmp_path)
    batch = MemorySplit.batch
    monkeypatch.setattr(MemorySplit, "batch", lambda split, indices: batch(split, indices) // 2)
    with pytest.raises(UsageError, match="images' checksum"):
        resume(path)


@pytest.mark.once
def test_a_full_disk_keeps_the_earlier_checkpoint(tmp_path, through, monkeypatch):
    saved = paddle.save

    def save(values, path):
        if "optimizer" in path and (tmp_path / "quickstart" / "checkpoints" / "last").exists():
            raise OSError(28, "No space left on device")
        saved(values, path)

    monkeypatch.setattr(paddle, "save", save)
    with pytest.raises(RunFailure, match=r"checkpoints/last: cannot be written \(No space left on device\)"):
        train(config_for(tmp_path, "train.checkpoint_steps=3"))
    monkeypatch.undo()
    path = tmp_path / "quickstart"
    assert {each.name for each in (path / "checkpoints").iterdir()} <= {"last", "best"}
    resume(path)
    assert differences(through.path, path) == []


def test_one_process_at_a_time(tmp_path, through):
    path = unfinished_copy(through, tmp_path)
    with Run.open(path).lock(), pytest.raises(UsageError, match="another process is at work there"):
        resume(path)


def test_infinite_weights_are_not_saved(tmp_path):
    """The second step's loss is finite, and its step makes the weights infinite."""
    overrides = ["train.learning_rate=1e38", "train.warmup=0", "train.checkpoint_steps=1"]
    with pytest.raises(RunFailure, match=r"became NaN or infinite at step 2 of epoch 1"):
        train(config_for(tmp_path, *overrides))
    last = tmp_path / "quickstart" / "checkpoints" / "last"
    assert json.loads((last / "state.json").read_text())["step"] == 1
    assert all(np.isfinite(weights).all() for weights in read_state_dict(last / "model.pdparams").values())


def test_infinite_loss_names_step_rate_and_batch(tmp_path):
    with pytest.raises(
        RunFailure, match=r"step \d of epoch 1 became \w+ at learning rate \S+, on the batch of .* 107 more"
    ):
        train(config_for(tmp_path, "train.learning_rate=1e30", "train.warmup=0"))


class Scaler:
    """In the place of `paddle.amp.GradScaler`, which is idle on a CPU."""

    made: ClassVar[list[Scaler]] = []

    def __init__(self) -> None:
        self.state = {"scale": np.array([512.0], dtype=np.float32), "incr_count": 0}
        self.made.append(self)

    def state_dict(self):
        return self.state

    def load_state_dict(self, state) -> None:
        self.state = state


def test_the_loss_scaler_is_resumed(tmp_path, stop_in, monkeypatch):
    original = paddle.Model.prepare

    def prepare(model, *arguments, **options):
        original(model, *arguments, **options)
        model._scaler = Scaler()
        model._scaler.state["incr_count"] = 7

    stop_in(1)
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(paddle.Model, "prepare", prepare)
        train(config_for(tmp_path))
    monkeypatch.setattr(paddle.amp, "GradScaler", Scaler)
    resume(tmp_path / "quickstart")
    assert Scaler.made[-1].state["scale"].tolist() == [512.0]
    assert Scaler.made[-1].state["incr_count"] == 7


def test_a_folder_that_is_no_run(tmp_path):
    run = make_run(tmp_path, checkpoint=False)
    with pytest.raises(UsageError, match="no such run folder"):
        resume(run.path.with_name("nowhere"))
    with pytest.raises(UsageError, match=r"config\.yaml"):
        resume(tmp_path)
