"""Two hosts train one network, each on a disk of its own: one is killed, and both resume to the same bits.

The hosts are network namespaces of this machine. The second one has another run at the same place on its disk.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from resumed_runs import differences
from tiny_run import make_pictures, quickstart
from two_hosts import run_in_namespaces, unavailable_reason

from paddle_resnet.training import Run

pytestmark = [pytest.mark.slow, pytest.mark.posix, pytest.mark.once]

CONFIG = [
    "name=hosts",
    "output=output",
    "device=cpu",
    "data.source=image_folder",
    "data.validation_fraction=0.25",
    "data.image_size=8",
    "augment.pad=1",
    "model.name=resnet8",
    "model.dropout=0.3",
    "train.epochs=2",
    "train.batch_size=11",
    "train.ema=0.9",
    "train.checkpoint_steps=2",
    "evaluation.embeddings=0",
]
"""Four steps an epoch: 90 training images."""
OTHER = "host1/output/hosts/config.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where two hosts have trained, once without an interruption."""
    if reason := unavailable_reason(tmp_path_factory.mktemp("probe")):
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("hosts")
    pictures = make_pictures(folder / "pictures", {"train": 40, "test": 4})
    config = quickstart([*CONFIG, f"data.root={pictures}"])
    config.save(folder / "config.yaml")
    other = folder / "killed" / OTHER
    other.parent.mkdir(parents=True)
    config.model_copy(update={"device": "auto"}).save(other)
    done = run_in_namespaces(folder, "train")
    logs = [path.read_text() for path in sorted(folder.rglob("launch.log"))]
    assert (folder / "seen.json").is_file(), "\n".join([done.stdout + done.stderr, *logs])
    return folder


@pytest.fixture(scope="module")
def seen(folder) -> dict:
    """Exit codes, and the position of the checkpoint when the second host was gone."""
    return json.loads((folder / "seen.json").read_text())


def test_the_surviving_host_ends_in_one_line(folder, seen):
    assert (seen["code"], seen["position"]) == (1, [1, 2])
    lines = (folder / "killed/host0/log/workerlog.0").read_text().splitlines()
    (error,) = [line for line in lines if "error: " in line]
    assert "process 0 of 2: another one ended" in error
    assert not [line for line in lines if "Traceback" in line]


def test_hosts_resume_as_if_none_had_died(folder, seen):
    assert (seen["through"], seen["resumed"]) == ([0, 0], [0, 0])
    through, killed = (folder / name / "host0/output/hosts" for name in ("through", "killed"))
    assert differences(through, killed) == []
    first, second = (json.loads((run / "evaluation_test.json").read_text()) for run in (through, killed))
    assert first["confusion"] == second["confusion"]


def test_another_host_keeps_its_own_folder(folder):
    assert not (folder / "through/host1/output").exists()
    assert [path.name for path in (folder / "killed" / OTHER).parent.iterdir()] == ["config.yaml"]
    assert Run.open((folder / "killed" / OTHER).parent).config.device == "auto"
