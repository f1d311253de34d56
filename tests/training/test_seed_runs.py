"""Several seeds in one folder: what happens to an earlier one, and what is said when they are stopped."""

from __future__ import annotations

import json
import logging
import os
import signal
from pathlib import Path

import pytest
from tiny_run import quickstart

from paddle_resnet.errors import RunFailure, Stopped, UsageError
from paddle_resnet.training import Run, train_seeds
from paddle_resnet.training.callbacks.steps import StepSeeds

pytestmark = pytest.mark.slow

QUICK = [
    "model.name=resnet8",
    "data.image_size=8",
    "augment.pad=1",
    "train.epochs=1",
    "data.validation_fraction=0.5",
    "data.test_fraction=0.5",
    "device=cpu",
    "train.seeds=[0, 1]",
]


def whole(output: Path, *overrides: str) -> Run:
    config = quickstart([*QUICK, f"output={output}", *overrides])
    return Run(config.run_folder, config)


@pytest.mark.parametrize("wrong", ["model.name=resnet21", "data.source=image_folder", "device=gpu:99"])
def test_a_wrong_value_leaves_an_earlier_run(tmp_path, wrong):
    earlier = tmp_path / "quickstart" / "config.yaml"
    earlier.parent.mkdir()
    earlier.write_text("kept")
    with pytest.raises(UsageError):
        train_seeds(whole(tmp_path, wrong))
    assert earlier.read_text() == "kept"
    assert list(tmp_path.iterdir()) == [earlier.parent]


def test_the_last_line_resumes_all_seeds(tmp_path, monkeypatch, caplog):
    """Resuming the stopped seed's own folder would leave the others untrained."""
    monkeypatch.setattr(StepSeeds, "on_train_batch_begin", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    logging.getLogger("paddle_resnet").propagate = True
    with pytest.raises(Stopped), caplog.at_level(logging.INFO, logger="paddle_resnet"):
        train_seeds(whole(tmp_path))
    assert f"--resume {tmp_path / 'quickstart'} resumes all seeds" in caplog.messages[-1]


def test_a_seed_that_fails_does_not_keep_the_others_from_training(tool, tmp_path, monkeypatch):
    def fail(callback: StepSeeds, step: int, logs: object = None) -> None:
        if callback._seed == 0:
            raise RunFailure("the loss became nan")

    arguments = ["-c", "configs/quickstart.yaml", *(f"-o{each}" for each in [*QUICK, f"output={tmp_path}"])]
    with monkeypatch.context() as failing:
        failing.setattr(StepSeeds, "on_train_batch_begin", fail)
        done = tool("train", *arguments)
    assert done.exit_code == 1
    folder = tmp_path / "quickstart"
    assert "seed 0 failed: the loss became nan" in done.stdout
    assert f"{folder}: seed 0 failed, see above; " in done.stderr.splitlines()[-1]
    top1 = json.loads((folder / "seed_1" / "metrics.json").read_text())["test"]["top1"]
    assert Run.open(folder).metrics()["seeds"]["test_top1"]["values"] == [top1]
    assert "n = 1; metrics in" in done.stdout

    done = tool("train", "--resume", folder)
    assert done.exit_code == 0
    assert f"{folder / 'seed_1'} is finished" in done.stdout
    values = Run.open(folder).metrics()["seeds"]
    assert values["seeds"] == [0, 1]
    assert values["test_top1"]["values"][1] == top1
