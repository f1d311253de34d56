"""The commands in an interpreter without what Windows' Python lacks (tests/helpers/stripped)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

STRIPPED = Path(__file__).parents[1] / "helpers" / "stripped"


def run(folder: Path, *command: str) -> str:
    """Run a command of the package in `folder`, with the code page of Chinese Windows; return what it printed."""
    paths = os.pathsep.join([str(STRIPPED), str(STRIPPED.parents[2])])
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONWARNINGS": "ignore", "PYTHONIOENCODING": "gbk"}
    arguments = [sys.executable, "-m", "paddle_resnet", *command]
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, encoding="gbk")
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_quickstart_to_prediction_without_posix(tmp_path: Path) -> None:
    assert "exported model" in run(tmp_path, "quickstart", "-o", "train.epochs=1")
    folder = tmp_path / "output" / "quickstart"
    assert "finished" in run(tmp_path, "train", "--resume", str(folder))
    assert "359 images" in run(tmp_path, "eval", str(folder))
    run(tmp_path, "predict", str(folder), str(folder / "samples"), "--quiet", "--json", "predictions.json")
    assert len(json.loads((tmp_path / "predictions.json").read_text())) == 10


def test_posix_is_missing_in_the_stripped_interpreter(tmp_path: Path) -> None:
    found = "print(importlib.util.find_spec('fcntl'), hasattr(os, 'fork'), hasattr(signal, 'SIGHUP'))"
    code = f"import importlib.util, os, signal; {found}"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(STRIPPED)}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "None False False", done.stderr
