"""A training chooses its threads between epochs, says so, and a resumed epoch keeps its number."""

from __future__ import annotations

import logging
import os
import signal

import pytest
from resumed_runs import differences
from tiny_run import quickstart

from paddle_resnet.errors import Stopped
from paddle_resnet.system import threads
from paddle_resnet.training import Run, resume, train, trainer
from paddle_resnet.training.callbacks.steps import StepSeeds
from paddle_resnet.training.callbacks.threads import ThreadChoice

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not threads.can_change(), reason="this Paddle has no OpenMP"),
]


@pytest.fixture
def choices(monkeypatch):
    """Let a training measure before each epoch, and let the measurements find these numbers one after the other."""
    found: list[int] = []
    monkeypatch.setattr(threads, "SHARE", 0)
    monkeypatch.setattr(threads, "SHARE_OF_CHANGE", 0)
    monkeypatch.setattr(threads, "LEAST_LOAD", 0)
    monkeypatch.setattr(trainer, "thread_callbacks", lambda config, network, device: [ThreadChoice(network, 8, 8)])

    def fastest(works):
        for work in works.values():
            work()
        return found[0], {number: 2.0 if number == found.pop(0) else 1.0 for number in [found[0]]}

    monkeypatch.setattr(threads, "fastest", fastest)
    return found


def config_for(folder, *overrides):
    small = ["model.name=resnet8", "train.epochs=3", "train.batch_size=110", "data.image_size=8", "augment.pad=1"]
    small += ["data.validation_fraction=0.5", "data.test_fraction=0.5"]  # 449 training images
    return quickstart([*small, "device=cpu", f"output={folder}", *overrides])


def test_a_resumed_epoch_keeps_its_threads(tmp_path, monkeypatch, choices, caplog):
    caplog.set_level(logging.INFO, logger="paddle_resnet")
    choices += [2, 1, 2]
    through = train(config_for(tmp_path / "through"))
    assert [record.threads for record in through.history()] == [2, 1, 2]
    assert "threads: 1 instead of 2" in caplog.text

    original = StepSeeds.on_train_batch_begin

    def stop_in_second_epoch(seeds, step, logs=None):
        original(seeds, step, logs)
        if (seeds._epoch, step) == (1, 2):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(StepSeeds, "on_train_batch_begin", stop_in_second_epoch)
    choices += [2, 1]
    with pytest.raises(Stopped):
        train(config_for(tmp_path / "stopped"))
    monkeypatch.setattr(StepSeeds, "on_train_batch_begin", original)
    choices[:] = [2, 2]  # the load has changed meanwhile: the epoch in progress goes on with 1 all the same
    resumed = resume(tmp_path / "stopped" / "quickstart")
    assert [record.threads for record in resumed.history()] == [2, 1, 2]
    assert differences(through.path, resumed.path) == []


def test_a_fixed_number_is_used_and_restored(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="paddle_resnet")
    before = threads.count()
    other = 1 if before > 1 else 2
    run = train(config_for(tmp_path, "train.epochs=1", f"train.threads={other}"))
    assert [record.threads for record in run.history()] == [other]
    assert threads.count() == before
    assert f"threads: {other} (train.threads)" in caplog.text
    assert Run.open(run.path).config.train.threads == other
