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


TINY = ["train.epochs=1", "data.image_size=8", "train.batch_size=200", "model.name=resnet8"]

# One interpreter for all commands, as each import of Paddle takes seconds.
RUN = """
import json, runpy, sys
for command in json.loads(sys.argv[1]):
    sys.argv = ["paddle-resnet", *command]
    try:
        runpy.run_module("paddle_resnet", run_name="__main__")
    except SystemExit as end:
        assert not end.code, command
    print("NEXT", flush=True)
    print("NEXT", file=sys.stderr, flush=True)
"""


@pytest.mark.once
def test_quickstart_to_prediction_without_posix(tmp_path: Path) -> None:
    """With the code page of Chinese Windows."""
    folder = "output/quickstart"
    commands = [
        ["quickstart", *(part for key in TINY for part in ("-o", key))],
        ["train", "--resume", folder],
        ["eval", folder],
        ["predict", folder, f"{folder}/samples", "--quiet", "--json", "predictions.json"],
    ]
    paths = os.pathsep.join([str(STRIPPED), str(STRIPPED.parents[2])])
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONWARNINGS": "ignore", "PYTHONIOENCODING": "gbk"}
    arguments = [sys.executable, "-c", RUN, json.dumps(commands)]
    done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, encoding="gbk")
    assert done.returncode == 0, done.stderr
    quickstart, resumed, measured, *_ = map(
        "".join, zip(done.stdout.split("NEXT"), done.stderr.split("NEXT"), strict=True)
    )
    assert "exported model" in quickstart
    assert "finished" in resumed
    assert "359 images" in measured
    assert len(json.loads((tmp_path / "predictions.json").read_text())) == 10


@pytest.mark.once
def test_posix_is_missing_in_the_stripped_interpreter(tmp_path: Path) -> None:
    found = "print(importlib.util.find_spec('fcntl'), hasattr(os, 'fork'), hasattr(signal, 'SIGHUP'))"
    code = f"import importlib.util, os, signal; {found}"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(STRIPPED)}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "None False False", done.stderr
