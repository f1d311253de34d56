"""What a run leaves for VisualDL, read back with VisualDL's own reader."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from paddle.static import InputSpec
from resumed_runs import differences, read_curves
from tiny_run import quickstart
from visualdl import LogReader
from visualdl.server import lib

from paddle_resnet.config import Config
from paddle_resnet.errors import RunFailure, Stopped
from paddle_resnet.models import count_parameters, create_model
from paddle_resnet.tracking.records import RecordFile, replace_records
from paddle_resnet.tracking.training_log import VisualDLLog, hyper_parameters
from paddle_resnet.training import Run, resume, train
from paddle_resnet.training.callbacks.steps import StepSeeds
from paddle_resnet.training.callbacks.visual_dl import Histograms
from paddle_resnet.training.metrics import TrainMetrics
from paddle_resnet.training.train_step import TrainStepModel

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[2]
PEAK, DECAY, EPOCHS = 0.05, 0.5, 2
QUICK = [
    *("model.name=resnet8", "data.image_size=8", "augment.pad=1", "device=cpu", "train.cpu_backend=native"),
    *("data.validation_fraction=0.5", "data.test_fraction=0.5", "train.batch_size=110", f"train.epochs={EPOCHS}"),
    *(f"train.learning_rate={PEAK}", "train.schedule=one_cycle", "train.warmup=0.25"),
]
WATCHED = [f"train.layer_decay={DECAY}", "train.freeze_epochs=1", "train.histogram_steps=3", "train.clip_norm=0.1"]


def config_for(output: Path, *overrides: str) -> Config:
    return quickstart([*QUICK, f"output={output}", *overrides])


def read(folder: Path) -> LogReader:
    (file,) = folder.iterdir()
    return LogReader(file_path=str(file))


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    """Two runs, one with everything that is off by default."""
    output = tmp_path_factory.mktemp("output")
    train(config_for(output, "name=plain", "train.epochs=1"))
    train(config_for(output, "name=watched", *WATCHED))
    return output


@pytest.mark.once
def test_disabled_records_are_not_written(output):
    tags = read(output / "plain" / "vdl" / "train").get_tags()
    assert "histogram" not in tags
    by_epoch = {f"epoch/{what}" for what in ("loss", "top-1", "learning rate", "images per second")}
    assert set(tags["scalar"]) == {"step/loss", "step/learning rate"} | by_epoch
    assert {path.name for path in (output / "plain" / "vdl").iterdir()} == {"train", "validation"}


def test_histograms_count_each_weight_once(output):
    """At every third step; in the first epoch the head alone learns."""
    reader = read(output / "watched" / "vdl" / "train")
    network = create_model("resnet8", num_classes=10)
    sizes = {name: each.size for name, each in network.named_parameters() if not each.stop_gradient}
    assert set(reader.get_tags()["histogram"]) == {
        f"{kind}/{name}" for kind in ("weights", "gradients") for name in sizes
    }
    for kind in ("weights", "gradients"):
        counted = 0
        for name, size in sizes.items():
            records = reader.get_data("histogram", f"{kind}/{name}")
            assert [record.id for record in records] == ([2, 5] if name.startswith("fc.") else [5]), name
            assert all(sum(record.histogram.hist) == size for record in records), name
            counted += int(sum(records[-1].histogram.hist))
        assert counted == count_parameters(network)


class MeanOutput(paddle.nn.Layer):
    """The mean of a layer's outputs as the loss: its gradient is the mean of the layer's inputs."""

    def forward(self, outputs, labels):
        return outputs.mean()


def test_histograms_show_the_gradient_of_the_batch(tmp_path):
    network = paddle.nn.Linear(3, 1, bias_attr=False)
    before = network.weight.numpy()
    model = TrainStepModel(
        network, InputSpec([None, 3], name="images"), InputSpec([None, 1], name="labels"), micro_batch=2
    )
    clip = paddle.nn.ClipGradByGlobalNorm(1e-3)
    optimizer = paddle.optimizer.SGD(0.1, parameters=network.parameters(), grad_clip=clip)
    model.prepare(optimizer, MeanOutput(), TrainMetrics())
    log = VisualDLLog(tmp_path)
    histograms = Histograms(log, network, 3, SimpleNamespace(steps=11))
    histograms.set_model(model)
    histograms.on_train_begin()
    inputs = np.array([[1, 2, 30], [2, 2, 10], [3, 5, 5], [2, 7, 3]], np.float32)
    model.train_batch([paddle.to_tensor(inputs)], [paddle.zeros([4, 1], "int64")])
    log.close()
    assert not np.array_equal(network.weight.numpy(), before)
    for tag, values in (("weights/weight", before), ("gradients/weight", inputs.mean(0))):
        (record,) = read(tmp_path / "train").get_data("histogram", tag)
        assert record.id == 11
        edges = list(record.histogram.bin_edges)
        assert sum(record.histogram.hist) == 3
        np.testing.assert_allclose([edges[0], edges[-1]], [values.min(), values.max()], rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "counted"),
    [([np.nan, 1, 2, np.inf], 2), ([np.nan], None), ([0, 0, 0], 3), ([1, np.nextafter(np.float32(1), 2)], 2)],
)
def test_a_histogram_of_odd_values(tmp_path, values, counted):
    log = VisualDLLog(tmp_path)
    log.histogram("odd", np.array(values, np.float32), 0)
    log.close()
    records = read(tmp_path / "train").get_data("histogram", "odd")
    assert [sum(record.histogram.hist) for record in records] == ([] if counted is None else [counted])


def test_hyper_parameters_of_all_runs_are_shown(output):
    """As VisualDL's server shows the folder of all runs."""
    rows = {row["name"]: row for row in lib.get_hparam_list(LogReader(logdir=str(output)))}
    assert set(rows) == {str(output / name / "vdl" / "validation") for name in ("plain", "watched")}
    for name, epochs in (("plain", 1), ("watched", EPOCHS)):
        run = Run.open(output / name)
        best = max(run.history(), key=lambda record: (record.validation_top1, -record.validation_loss))
        row = rows[str(run.vdl_path / "validation")]
        assert row["metrics"] == {
            "selected/top-1": pytest.approx(best.validation_top1, rel=1e-6),
            "selected/loss": pytest.approx(best.validation_loss, rel=1e-6),
            "selected/epoch": best.epoch,
        }
        assert row["hparams"]["train/epochs"] == epochs
        assert row["hparams"]["train/learning_rate"] == PEAK
        assert row["hparams"]["model/name"] == "resnet8"
    assert rows[str(output / "watched" / "vdl" / "validation")]["hparams"]["train/clip_norm"] == "0.1"
    assert rows[str(output / "plain" / "vdl" / "validation")]["hparams"]["train/clip_norm"] == "null"


def test_hyper_parameters_keep_their_type(tmp_path):
    first, second = (
        hyper_parameters(config_for(tmp_path, *overrides))
        for overrides in ([], ["augment.pad=0", "augment.scale=[0.5, 1]", *WATCHED])
    )
    assert {key: type(value) for key, value in first.items()} == {key: type(value) for key, value in second.items()}
    assert (first["augment/scale"], second["augment/scale"]) == ("null", "[0.5, 1.0]")
    assert (first["augment/flip"], first["train/seed"], first["augment/mixup"]) == ("false", 0, 0.0)
    assert not any("." in name for name in first)  # VisualDL's table would leave the column empty


def test_a_stopped_run_resumes_its_records(output, tmp_path, monkeypatch):
    """Stopped in the second epoch, after the step of its histograms."""
    begin = StepSeeds.on_train_batch_begin

    def stop(seeds, step, logs=None):
        begin(seeds, step, logs)
        if (seeds._epoch, step) == (1, 2):
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(StepSeeds, "on_train_batch_begin", stop)
        train(config_for(tmp_path, "name=watched", *WATCHED, "train.checkpoint_steps=1"))
    resume(tmp_path / "watched")
    assert "gradients/conv1.weight" in set(read_curves(tmp_path / "watched" / "vdl" / "train"))
    assert differences(output / "watched", tmp_path / "watched") == []


def test_only_whole_records_are_written(tmp_path):
    log = VisualDLLog(tmp_path)
    (path,) = (tmp_path / "train").iterdir()
    for step in range(200):
        log.histogram("values", np.arange(100.0), step)
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            assert len(data) >= 8 + length
            data = data[8 + length :]
    log.close()
    assert len(read(tmp_path / "train").get_data("histogram", "values")) == 200


def test_new_records_replace_earlier_ones(tmp_path):
    for value in (1.0, 2.0):
        replace_records(tmp_path, lambda writer, value=value: writer.add_scalar("value", value, 0))
    earlier, later = sorted(tmp_path.iterdir())
    assert earlier.stat().st_size == 0  # it stays: a server that reads it could not bear its absence
    assert [record.value for record in LogReader(file_path=str(later)).get_data("scalar", "value")] == [2.0]
    assert [Path(name) for name in LogReader(logdir=str(tmp_path)).logs().values()] == [Path(later.name)]


def test_failed_records_leave_earlier_ones(tmp_path):
    def fail(writer):
        writer.add_scalar("value", 2.0, 0)
        raise RunFailure("no space")

    replace_records(tmp_path, lambda writer: writer.add_scalar("value", 1.0, 0))
    with pytest.raises(RunFailure):
        replace_records(tmp_path, fail)
    assert [record.value for record in read(tmp_path).get_data("scalar", "value")] == [1.0]


def test_a_full_disk_is_one_line():
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    file = RecordFile(Path("/dev/full"))
    file.add_record(_Record())
    with pytest.raises(RunFailure, match="/dev/full: cannot be written"):
        file.flush()


class _Record:
    """Of any kind."""

    def SerializeToString(self) -> bytes:  # noqa: N802
        return b"record"


def test_training_works_without_a_writable_home(tmp_path):
    """VisualDL makes a folder there when it is imported. Below a file not even root can."""
    (tmp_path / "file").write_text("")
    program = "import os, paddle_resnet.tracking.records as found; found.LogWriter; print(os.environ['HOME'])"
    home = str(tmp_path / "file" / "home")
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, env=os.environ | {"HOME": home}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, home), done.stderr
