"""Several seeds in one folder: what happens to an earlier one, and what is said when they are stopped."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import pytest
from tiny_run import quickstart

from paddle_resnet.errors import Stopped, UsageError
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
