"""What a small machine lacks is said before the first step."""

from __future__ import annotations

import os
import shutil
from types import SimpleNamespace

import pytest

from paddle_resnet.errors import RunFailure
from paddle_resnet.models import create_model
from paddle_resnet.system import machine
from paddle_resnet.training.process_setup import LogFile, check_resources

LENET_PARAMETERS = 61_706  # by hand: 156 + 2,416 + 48,120 + 10,164 + 850


@pytest.fixture
def lenet():
    return create_model("lenet", num_classes=10, in_channels=1)


@pytest.mark.parametrize("bytes_missing", [0, 1])
def test_a_disk_too_small_for_two_checkpoints_is_one_line(lenet, tmp_path, monkeypatch, bytes_missing):
    enough = 3 * 4 * LENET_PARAMETERS + 4_000_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=enough - bytes_missing))
    if not bytes_missing:
        check_resources(tmp_path, lenet)
        return
    with pytest.raises(RunFailure, match="checkpoints: needs at least 5 MB, and its disk has 5 MB left; free some"):
        check_resources(tmp_path, lenet)


@pytest.mark.parametrize(("free", "warned"), [(200_000_000, True), (2_000_000_000, False), (None, False)])
def test_little_memory_is_warned_of(lenet, tmp_path, monkeypatch, caplog, free, warned):
    monkeypatch.setattr(machine, "free_memory", lambda: free)
    check_resources(tmp_path, lenet)
    assert ("200 MB of memory are free" in caplog.text) == warned


@pytest.mark.posix
def test_a_log_is_not_written_to_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "train.log")
    with pytest.raises(RunFailure, match=r"train\.log: cannot be written \(it is no file; remove it\)"):
        LogFile(tmp_path / "train.log")
