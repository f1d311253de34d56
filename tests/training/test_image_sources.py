"""Each source of the user's own images, from training to prediction, and images that vanish meanwhile."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_run import COLOURS, SIZE, make_pictures

from paddle_resnet.config import Config, DataConfig
from paddle_resnet.data import open_splits
from paddle_resnet.data.datasets import file_split, open_files
from paddle_resnet.errors import RunFailure, UsageError
from paddle_resnet.evaluation import evaluate
from paddle_resnet.exporting import export
from paddle_resnet.inference import Predictor
from paddle_resnet.models import read_state_dict
from paddle_resnet.training import resume, train
from paddle_resnet.training.callbacks.steps import StepSeeds
from paddle_resnet.training.run_folder import Run


def as_folder(pictures, root):
    shutil.copytree(pictures, root)
    return {"source": "image_folder"}


def as_list(pictures, root):
    """The layout of PaddleX: images/, train.txt, test.txt, label.txt."""
    shutil.copytree(pictures, root / "images")
    for split in ("train", "test"):
        files = sorted((root / "images" / split).rglob("*.png"))
        lines = [f"{file.relative_to(root)} {list(COLOURS).index(file.parent.name)}\n" for file in files]
        (root / f"{split}.txt").write_text("".join(lines))
    (root / "label.txt").write_text("\n".join(COLOURS))
    return {"source": "image_list"}


def as_table(pictures, root):
    """As competitions: ids without a suffix, one table."""
    (root / "train").mkdir(parents=True)
    rows = ["id,breed\n"]
    for number, file in enumerate(sorted(pictures.rglob("*.png"))):
        shutil.copy(file, root / "train" / f"{number:04x}.png")
        rows.append(f"{number:04x},{file.parent.name}\n")
    (root / "labels.csv").write_text("".join(rows))
    return {"source": "image_list", "train_list": str(root / "labels.csv")}


def as_names(pictures, root):
    for file in pictures.rglob("*.png"):
        split, colour, name = file.relative_to(pictures).parts
        (root / split).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, root / split / f"{colour}.{name}")
    return {"source": "image_names", "pattern": "(?P<class>[a-z]+)[.]"}


def configured(folder, data, **train):
    return Config.model_validate(
        {
            "name": "own",
            "output": str(folder / "output"),
            "device": "cpu",
            "data": {"root": str(folder / "own"), "image_size": SIZE, "validation_fraction": 0.25, **data},
            "model": {"name": "resnet8"},
            "train": {"epochs": 1, "batch_size": 6, "learning_rate": 0.02, **train},
        }
    )


@pytest.mark.slow
@pytest.mark.usefixtures("without_plots")
@pytest.mark.parametrize("make", [as_folder, as_list, as_table, as_names])
def test_source_from_training_to_prediction(tmp_path, make):
    pictures = make_pictures(tmp_path / "pictures", {"train": 8, "test": 4})
    run = train(configured(tmp_path, make(pictures, tmp_path / "own")))
    (tmp_path / "own").rename(tmp_path / "moved")
    run = Run.open_trained(run.path, [f"data.root={tmp_path / 'moved'}"])
    assert run.classes() == tuple(COLOURS)
    names = [name for split in json.loads(run.data_path.read_text())["files"].values() for name in split["names"]]
    assert len(set(names)) == 36 and all((tmp_path / "moved" / name).is_file() for name in names)
    evaluation = evaluate(run)
    split = run.splits().test
    np.testing.assert_array_equal(evaluation.labels, split.labels)
    with Predictor(export(run).path, device="cpu") as predictor:
        predictions = predictor.predict(split.sources(np.arange(len(split))))
    found = np.array([[{t.label: t.probability for t in each.top}[c] for c in COLOURS] for each in predictions])
    np.testing.assert_allclose(found, evaluation.scores, atol=1e-4)


LOST = r"(no such file|cannot be read as an image \(an empty file\))"


@pytest.mark.slow
def test_vanished_image_saves_the_run_and_it_resumes(tmp_path, monkeypatch):
    pictures = make_pictures(tmp_path / "pictures", {"train": 8, "test": 4})
    data = as_folder(pictures, tmp_path / "own") | {"memory_mb": 0, "prefetch": 1}
    whole = train(configured(tmp_path, data, epochs=2, batch_size=3))
    run = Run(whole.path.with_name("stopped"), whole.config)
    lost, kept = tmp_path / "own/train/red/1.png", tmp_path / "kept.png"
    original = StepSeeds.on_train_batch_begin

    def begin(seeds, step, logs=None):
        original(seeds, step, logs)
        if seeds._epoch == 1 and step == 0:
            lost.rename(kept)
            for file in (tmp_path / "own/train").rglob("*.png"):
                file.rename(file.with_suffix(".gone")).with_suffix(".png").touch()

    with monkeypatch.context() as patched:
        patched.setattr(StepSeeds, "on_train_batch_begin", begin)
        with pytest.raises(RunFailure, match=rf"{LOST}; put it back, and resume the run: .*--resume .*stopped"):
            train(whole.config.model_copy(update={"name": "stopped"}))
    for file in (tmp_path / "own/train").rglob("*.gone"):
        file.rename(file.with_suffix(".png"))
    kept.rename(lost)
    assert json.loads((run.checkpoint_path("last") / "state.json").read_text())["step"] > 0
    resume(run.path)
    states = [read_state_dict(each.checkpoint_path("last") / "model.pdparams") for each in (whole, run)]
    for name, values in states[0].items():
        np.testing.assert_array_equal(states[1][name], values)


@pytest.fixture
def lazy(tmp_path, monkeypatch):
    """Return splits of files that are not read before training."""
    monkeypatch.setattr(open_files, "MAX_EXAMINED", 0)
    root = make_pictures(tmp_path / "pictures", {"train": 30, "test": 4})

    def opened(**options):
        data = {"source": "image_folder", "root": str(root), "image_size": SIZE, "memory_mb": 0, **options}
        return open_splits(DataConfig.model_validate(data))

    return opened


def test_many_files_are_not_read_at_opening(lazy, monkeypatch):
    def refuse(*_):
        raise AssertionError("a file is read")

    for name in ("decode_whole", "check_readable", "read_file"):
        monkeypatch.setattr(file_split, name, refuse)
    splits = lazy()
    assert [len(each) for each in (splits.train, splits.validation, splits.test)] == [81, 9, 12]
    with pytest.raises(AssertionError, match="a file is read"):
        len(lazy(check=True).train)


def test_another_image_of_its_class_stands_in(lazy, caplog):
    split = lazy().train
    bad, following = map(Path, split.sources([27, 28]))
    expected = split.batch([3, 28, 28])
    bad.write_text("no image")
    np.testing.assert_array_equal(split.batch([3, 27, 28]), expected)
    assert split.labels[27] == split.labels[28] and following.parent == bad.parent
    assert [each.getMessage().split(": ", 2)[1] for each in caplog.records] == [str(bad)]
    assert list(split.table.unreadable()) == split.names([27])
    np.testing.assert_array_equal(split.batch([27]), expected[1:2])  # and not twice in the log
    assert len(caplog.records) == 1
    with pytest.raises(UsageError, match=rf"{bad.name}: cannot be read as an image"):
        lazy(strict=True).train.batch([27])


def test_last_image_of_a_class_has_its_first_stand_in(lazy):
    split = lazy().train
    last = int(np.flatnonzero(split.labels == 0)[-1])
    expected = split.batch([0])
    Path(split.sources([last])[0]).unlink()
    np.testing.assert_array_equal(split.batch([last]), expected)


def test_too_many_unreadable_files_are_an_error(lazy):
    split = lazy().train
    for path in map(Path, split.sources(np.arange(60))):
        path.unlink()
    with pytest.raises(UsageError, match=r"no such file \(and 20 more of 81 files so far\)"):
        split.batch(np.arange(60))
    only = lazy().test
    for path in map(Path, only.sources(np.flatnonzero(only.labels == 1))):
        path.unlink()
    with pytest.raises(UsageError, match="no such file"):
        only.batch([4])


@pytest.mark.slow
@pytest.mark.usefixtures("without_plots")
def test_unreadable_file_is_listed_after_training(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(open_files, "MAX_EXAMINED", 0)
    pictures = make_pictures(tmp_path / "pictures", {"train": 8, "test": 4})
    data = as_list(pictures, tmp_path / "own") | {"memory_mb": 0}
    bad = [f"images/{name}" for name in ("train/red/2.png", "test/red/1.png")]
    for name in bad:
        (tmp_path / "own" / name).write_text("no image")
    run = train(configured(tmp_path, data))
    rows = list(csv.reader((run.path / "pictures.csv").read_text().splitlines()))
    assert [row[:2] for row in rows] == [["file", "finding"], [bad[0], "unreadable"]]
    assert "36 images, not read before training" in caplog.text
    caplog.clear()
    assert evaluate(Run.open_trained(run.path)).images == 12
    assert sum("another image of its class and split stands in for it" in line for line in caplog.messages) == 1
