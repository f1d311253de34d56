"""More epochs for a run that has ended, epochs by time, and what the last epochs leave out."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from resumed_runs import differences
from sklearn.metrics import f1_score
from tiny_run import quickstart

from paddle_resnet.config import Config
from paddle_resnet.data import TrainLoader
from paddle_resnet.errors import Stopped, UsageError
from paddle_resnet.training import Run, resume, train, train_or_resume, train_seeds
from paddle_resnet.training.callbacks.recipe import unmixed_epochs
from paddle_resnet.training.callbacks.recorder import Recorder
from paddle_resnet.training.trials import time_budget

pytestmark = pytest.mark.slow

TINY = [
    "model.name=resnet8",
    "data.image_size=8",
    "augment.pad=0",
    "train.batch_size=300",
    "data.validation_fraction=0.5",
    "train.learning_rate=0.05",
    "train.threads=1",
    "device=cpu",
]
"""Two steps an epoch."""


def config_for(output: Path, *overrides: str) -> Config:
    return quickstart([*TINY, f"output={output}", *overrides])


def unlike(reference: Path, other: Path) -> list[str]:
    """The differences, except VisualDL's table of hyper-parameters, which is written in the first epoch."""
    return [each for each in differences(reference, other) if "hparam" not in each]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_three_and_two_epochs_are_five(tmp_path):
    """Milestones and warm-up are shares of the epochs, so those of the five are given as three fifths."""
    schedule = ["train.schedule=step", "train.milestones=[0.5, 0.8]", "train.warmup=0.5"]
    five = ["train.schedule=step", "train.milestones=[0.3, 0.48]", "train.warmup=0.3", "train.epochs=5", "name=five"]
    whole = train(config_for(tmp_path, *five))
    run = train(config_for(tmp_path, *schedule, "train.epochs=3"))
    before = contents(run.path)
    resume(run.path, ["train.epochs=3"])
    assert contents(run.path) == before
    extended = resume(run, ["train.epochs=5"])
    assert unlike(whole.path, extended.path) == []
    assert (extended.path / "metrics_3_epochs.json").read_bytes() == before[str(run.metrics_path)]
    assert extended.metrics()["train"]["epochs"] == 5
    with pytest.raises(UsageError, match=r"train\.epochs is 4 now"):
        resume(run.path, ["train.epochs=4"])


EXTENDED = ["train.epochs=4", "train.extended_from=[2]", "train.extend_rate=0.5"]


def test_an_extended_run_repeats_by_its_config(tmp_path, monkeypatch):
    """Stopped in the added cycle, too, and with everything that depends on the number of epochs."""
    recipe = ["train.ema=0.9", "train.first_size=8", "data.image_size=12", "augment.mixup=0.4", "train.stop_mixing=0.3"]
    run = train(config_for(tmp_path, *recipe, "train.epochs=2"))
    seen = Recorder.on_eval_end

    def stop(recorder, logs=None):
        seen(recorder, logs)
        if len(recorder.records) == 3:
            raise Stopped(2)

    monkeypatch.setattr(Recorder, "on_eval_end", stop)
    with pytest.raises(Stopped):
        resume(run.path, EXTENDED[::2])
    monkeypatch.undo()
    resume(run.path)
    repeated = train(Config.load(run.config_path, ["name=repeated"]))
    assert repeated.config.train.extended_from == (2,)
    assert unlike(repeated.path, run.path) == []
    again = train_or_resume(Run(run.path, config_for(tmp_path, *recipe, *EXTENDED[::2])))
    assert again.config.train == Run.open(run.path).config.train


@pytest.mark.once
def test_a_run_that_stopped_early_needs_more_patience(tmp_path):
    still = [
        "train.learning_rate=1e-12",
        "train.patience=1",
        "train.epochs=9",
        "model.name=lenet",
        "data.test_fraction=0.9",
    ]
    run = train(config_for(tmp_path, *still, "data.image_size=32"))
    ended = len(run.history())
    assert ended < 9
    with pytest.raises(UsageError, match=rf"stopped early after epoch {ended}, .* give train\.patience=null"):
        resume(run.path, ["train.epochs=10"])
    resume(run.path, ["train.epochs=10", "train.patience=null"])
    assert [record.epoch for record in run.history()] == list(range(1, 11))


@pytest.mark.once
def test_all_seeds_are_extended(tmp_path):
    whole = Run.new(config_for(tmp_path, "train.epochs=1", "train.seeds=[0, 1]"))
    train_seeds(whole)
    runs = train_seeds(Run.open(whole.path, ["train.epochs=2"]), resume=True)
    assert [len(run.history()) for run in runs] == [2, 2]
    assert Run.open(whole.path).config.train.plan == (1, 2)


@pytest.mark.once
def test_minutes_choose_epochs_and_change_no_bit(tmp_path, monkeypatch):
    """By hand: an epoch of 2 steps of 3 s and 3 s of validation fits 3 times into half a minute."""
    real = time_budget._measure

    def measured(*arguments):
        step, steps, validation = real(*arguments)
        assert step > 0 and steps == 2 and validation > 0
        return 3.0, steps, 3.0

    monkeypatch.setattr(time_budget, "_measure", measured)
    clock = itertools.count(0, 0.01)  # seconds; a busy machine takes more than half a minute to measure
    monkeypatch.setattr(time_budget, "time", SimpleNamespace(monotonic=clock.__next__))
    run = train(config_for(tmp_path, "train.minutes=0.5", "train.epochs=100", "model.dropout=0.2"))
    assert len(run.history()) == 3
    saved = Run.open(run.path).config.train
    assert (saved.epochs, saved.minutes) == (3, None)
    plain = train(config_for(tmp_path, "train.epochs=3", "model.dropout=0.2", "name=plain"))
    assert unlike(plain.path, run.path) == []
    assert train_or_resume(Run(run.path, config_for(tmp_path, "train.minutes=9", "model.dropout=0.2"))).is_trained


@pytest.mark.once
def test_best_is_chosen_by_what_is_monitored(tmp_path, monkeypatch):
    """Macro F1 and loss of each epoch as scikit-learn and numpy compute them of the same logits."""
    original, outputs, epochs = paddle.Model.eval_batch, [], []

    def watched(model, inputs, labels):
        model.network.eval()
        outputs.append((model.network(*inputs).numpy(), labels[0].numpy().ravel()))
        return original(model, inputs, labels)

    monkeypatch.setattr(paddle.Model, "eval_batch", watched)
    run = train(config_for(tmp_path, "train.epochs=4", "train.monitor=macro_f1", "train.class_weights=balanced"))
    each = len(outputs) // 4
    for epoch in range(4):
        logits, labels = map(np.concatenate, zip(*outputs[epoch * each : (epoch + 1) * each], strict=True))
        epochs.append(f1_score(labels, logits.argmax(axis=1), average="macro", zero_division=0))
    assert [record.validation_macro_f1 for record in run.history()] == pytest.approx(epochs)
    best = json.loads((run.checkpoint_path("best") / "state.json").read_text())["epoch"]
    assert best == 1 + int(np.argmax(epochs))
    assert run.metrics()["validation"]["macro_f1"] == pytest.approx(max(epochs))
    following = train(config_for(tmp_path, "train.epochs=1", "name=following"))
    assert following.history()[0].validation_macro_f1 is None


@pytest.mark.once
def test_the_last_epochs_do_not_mix(tmp_path, monkeypatch):
    assert unmixed_epochs(0.1, (4,)) == {3}
    assert unmixed_epochs(0.25, (8, 12)) == {6, 7, 11}
    assert unmixed_epochs(0.5, (3, 4)) == {1, 2, 3}
    batches, original = [], TrainLoader.__iter__

    def watched(loader):
        for batch in original(loader):
            batches.append(len(batch))
            yield batch

    monkeypatch.setattr(TrainLoader, "__iter__", watched)
    train(config_for(tmp_path, "train.epochs=3", "augment.cutmix=1.0", "train.stop_mixing=0.4"))
    assert batches[-6:] == [4, 4, 4, 4, 2, 2]
