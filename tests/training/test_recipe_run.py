"""All parts of a recipe in one run: steps are optimizer steps, and a stopped run resumes exactly."""

from __future__ import annotations

import json

import numpy as np
import paddle
import pytest
from tiny_run import quickstart
from visualdl import LogReader

from paddle_resnet.models import read_state_dict
from paddle_resnet.training import resume, train
from paddle_resnet.training.callbacks.recorder import Recorder

pytestmark = pytest.mark.slow

BATCH, ACCUMULATE, EPOCHS = 100, 3, 2
RECIPE = [
    *("data.image_size=8", "augment.pad=1", "augment.mixup=0.5", "augment.cutmix=1", "augment.mix_probability=0.8"),
    *(
        "augment.erase=0.5",
        "augment.trivial_augment=true",
        "model.name=resnet8",
        "device=cpu",
        f"train.epochs={EPOCHS}",
    ),
    *(f"train.batch_size={BATCH}", f"train.accumulate={ACCUMULATE}", "train.ema=0.9", "train.clip_norm=1"),
    *("train.schedule=plateau", "train.plateau_patience=1", "train.patience=5", "train.layer_decay=0.8"),
]


def trained(output, *overrides):
    return train(quickstart([*RECIPE, f"output={output}", *overrides]))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs"))


def test_a_step_is_the_optimizers(run):
    steps = EPOCHS * (len(run.splits().train) // (BATCH * ACCUMULATE))
    last = run.checkpoint_path("last")
    assert paddle.load(str(last / "optimizer.pdopt"))["LR_Scheduler"]["last_epoch"] == steps
    assert json.loads((last / "state.json").read_text())["averaged_steps"] == steps
    (log,) = (run.vdl_path / "train").iterdir()
    points = LogReader(file_path=str(log)).get_data("scalar", "step/loss")
    assert [point.id for point in points] == list(range(steps))
    assert all(np.isfinite(record.train_loss) for record in run.history())


def test_a_run_stopped_within_an_epoch_resumes_exactly(run, tmp_path, monkeypatch):
    begin = Recorder.on_train_batch_begin

    def stop_before_the_third_step(recorder, step, logs=None):
        if (recorder._epoch, step) == (2, 2):
            raise KeyboardInterrupt
        begin(recorder, step, logs)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "on_train_batch_begin", stop_before_the_third_step)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path, "train.checkpoint_steps=1")
    resumed = resume(tmp_path / "quickstart")
    for file in ("model.pdparams", "trained.pdparams"):
        expected = read_state_dict(run.checkpoint_path("last") / file)
        for name, found in read_state_dict(resumed.checkpoint_path("last") / file).items():
            np.testing.assert_array_equal(found, expected[name], err_msg=name)
    for record, expected in zip(resumed.history(), run.history(), strict=True):
        assert (record.train_loss, record.validation_loss) == (expected.train_loss, expected.validation_loss)
