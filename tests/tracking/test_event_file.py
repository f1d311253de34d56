"""TensorBoard's event files, read by TensorBoard's own reader."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from resumed_runs import read_curves
from tiny_run import quickstart

from paddle_resnet.errors import Stopped, UsageError
from paddle_resnet.training import Run, resume, train
from paddle_resnet.training.callbacks.visual_dl import Curves

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from paddle_resnet.tracking.event_file import EventWriter

TINY = [
    "model.name=resnet8",
    "data.image_size=8",
    "augment.pad=0",
    "train.batch_size=300",
    "data.validation_fraction=0.5",
    "train.epochs=2",
    "train.threads=1",
    "train.histogram_steps=2",
    "tracking=[visualdl, tensorboard]",
    "device=cpu",
]


def read(folder: Path) -> EventAccumulator:
    """All records of the one file; duplicates, which TensorBoard would hide, are kept."""
    assert len(list(folder.iterdir())) == 1
    events = EventAccumulator(str(folder), size_guidance=dict.fromkeys(("scalars", "histograms", "images"), 0))
    events.purge_orphaned_data = False
    return events.Reload()


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = read(folder)
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.slow
def test_a_resumed_run_has_the_curves_of_an_unbroken_one(tmp_path, monkeypatch):
    whole = train(quickstart([*TINY, f"output={tmp_path}", "name=whole"]))
    logged = Curves.on_train_batch_end

    def stop(curves, step, logs=None):
        logged(curves, step, logs)
        if curves._recorder.steps == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Curves, "on_train_batch_end", stop)
    with pytest.raises(Stopped):
        train(quickstart([*TINY, f"output={tmp_path}", "name=stopped"]))
    monkeypatch.undo()
    with contextlib.closing(EventWriter(tmp_path / "stopped" / "tensorboard" / "train")) as writer:
        writer.add_scalar("step/loss", 7.0, 3)  # of a step after the checkpoint, as if killed
    run = resume(tmp_path / "stopped")
    for part in ("train", "validation"):
        found = scalars(run.path / "tensorboard" / part)
        found.pop("epoch/images per second", None)
        assert found == {
            tag: points for tag, points in read_curves(whole.vdl_path / part).items() if isinstance(points[0][1], float)
        }
    events = read(run.path / "tensorboard" / "train")
    assert [each.step for each in events.Histograms("weights/fc.weight")] == [1, 3]
    assert len(events.Images("augmented training images")) == 1
    (text,) = events.Tensors("config")
    assert "resnet8" in text.tensor_proto.string_val[0].decode()
    plugin = read(run.path / "tensorboard" / "validation").SummaryMetadata("_hparams_/session_start_info").plugin_data
    hparams = HParamsPluginData.FromString(plugin.content).session_start_info.hparams
    assert hparams["model/name"].string_value == "resnet8" and hparams["train/epochs"].number_value == 2


def test_histograms_and_images_come_back(tmp_path):
    values = np.random.default_rng(0).normal(size=500)
    pixels = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    writer = EventWriter(tmp_path)
    writer.add_histogram("h", values, 4, buckets=9)
    writer.add_image("i", pixels, 0)
    writer.close()
    events = read(tmp_path)
    counts, edges = np.histogram(values, 9)
    (histogram,) = events.Histograms("h")
    assert (list(histogram.histogram_value.bucket), histogram.step) == (list(counts), 4)
    assert histogram.histogram_value.bucket_limit == pytest.approx(edges[1:])
    (image,) = events.Images("i")
    assert (image.height, image.width) == (5, 7)


@pytest.mark.slow
def test_either_program_alone(tmp_path):
    run = train(quickstart([*TINY, f"output={tmp_path}", "tracking=[tensorboard]", "train.epochs=1"]))
    assert not run.vdl_path.exists() and (run.path / "tensorboard" / "train").is_dir()
    resume(run.path, ["train.epochs=2", "tracking=[visualdl]"])
    assert Run.open(run.path).config.tracking == ("visualdl",)
    assert [step for step, _ in read_curves(run.vdl_path / "train")["epoch/loss"]] == [2]
    with pytest.raises(UsageError, match="tracking"):
        quickstart(["tracking=[wandb]"])
