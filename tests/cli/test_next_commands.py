"""The commands that `lr-find` and `shard` print as the next step: they train what was asked for."""

from __future__ import annotations

import shlex
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from paddle_resnet.config import Config
from paddle_resnet.data import open_splits
from paddle_resnet.training.trials import lr_finder


def next_config(done) -> Config:
    """Load the config of the printed command."""
    assert done.exit_code == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("next: "))
    words = shlex.split(line)
    assert words[1:4] == ["paddle-resnet", "train", "-c"] or words[2].endswith("train.py")
    values = words[words.index("-c") + 1 :]
    assert values[1::2] == ["-o"] * (len(values) // 2)
    return Config.load(values[0], values[2::2])


def test_lr_find_repeats_the_overrides(tool, monkeypatch, tmp_path):
    monkeypatch.setattr(lr_finder, "find_learning_rate", lambda config, **options: SimpleNamespace(proposed=0.0066))
    monkeypatch.setattr(lr_finder, "write_sweep", lambda sweep, config: tmp_path)
    overrides = [
        "model.name=resnet8",
        "train.learning_rate=3",
        "train.optimizer=adamw",
        f"output={tmp_path / 'my runs'}",
    ]
    done = tool("lr_find", "-c", "quickstart", *(part for each in overrides for part in ("-o", each)))
    expected = [*overrides[:1], *overrides[2:], "train.learning_rate=0.0066"]
    assert next_config(done) == Config.load("quickstart", expected)


@pytest.mark.parametrize("where", ["config", "overrides"])
@pytest.mark.parametrize("source", ["image_folder", "image_list", "image_names"])
def test_the_training_that_shard_prints_opens_the_shards(tool, tmp_path, source, where):
    for number in range(20):
        name = ("cat", "dog")[number % 2]
        path = tmp_path / f"photos/{name}/{name}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)
    lines = [
        f"{name}/{name}_{number}.png {number % 2 + 1}\n"
        for number in range(20)
        for name in [("cat", "dog")[number % 2]]
    ]
    (tmp_path / "photos/all.txt").write_text("".join(lines))
    (tmp_path / "photos/names.txt").write_text("1 cat\n2 dog\n")
    lists = {key: str(tmp_path / "photos/all.txt") for key in ("train_list", "validation_list", "test_list")}
    lists["class_names"] = str(tmp_path / "photos/names.txt")
    data = {"source": source, "root": str(tmp_path / "photos"), "image_size": 8}
    data |= {"image_folder": {}, "image_list": lists, "image_names": {"pattern": "(?P<class>[a-z]+)_"}}[source]
    in_file, given = (data, {}) if where == "config" else ({"image_size": 16}, data)
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"data": in_file}))
    overrides = ["model.name=resnet8", *(f"data.{key}={value}" for key, value in given.items())]
    options = [part for each in overrides for part in ("-o", each)]
    config = next_config(tool("shard", "-c", tmp_path / "own.yaml", *options, "--output", tmp_path / "my shards"))
    assert (config.data.source, config.data.root) == ("image_shards", tmp_path / "my shards")
    assert (config.data.image_size, config.model.name) == (8, "resnet8")
    splits = open_splits(config.data)
    assert splits.classes == ("cat", "dog")
    counts = [len(each) for each in (splits.train, splits.validation, splits.test)]
    assert counts == ([20, 20, 20] if source == "image_list" else [14, 2, 4])
