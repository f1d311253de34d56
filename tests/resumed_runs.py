"""Comparing a run that was stopped and resumed with one that ran through."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import paddle_resnet  # noqa: F401, I001  (prepares the process before paddle is imported)
import numpy as np
from visualdl import LogReader

from paddle_resnet.models import read_state_dict
from paddle_resnet.training import RunFolder

OF_TIME = {"images_per_second", "seconds"}
"""Columns of ``history.csv`` that differ from one run to the next."""


def differences(reference: Path, resumed: Path) -> list[str]:
    """In what the resumed run is not as the other; empty where it is, bit for bit."""
    found = []
    first, second = RunFolder.open(reference), RunFolder.open(resumed)
    for which in ("last", "best"):
        for file in sorted(first.checkpoint_path(which).glob("*.pdparams")):
            expected, weights = read_state_dict(file), read_state_dict(second.checkpoint_path(which) / file.name)
            found += [
                f"{which}/{file.name}: {name}" for name in expected if not np.array_equal(expected[name], weights[name])
            ]
    if steps_of_history(first) != steps_of_history(second):
        found.append("history.csv")
    for part in ("train", "validation"):
        curves, others = read_curves(first.vdl_path / part), read_curves(second.vdl_path / part)
        found += [
            f"VisualDL {part}: {tag}" for tag in curves.keys() | others.keys() if curves.get(tag) != others.get(tag)
        ]
        for tag, points in others.items():
            steps = [step for step, _ in points]
            if any(later <= earlier for earlier, later in itertools.pairwise(steps)):
                found.append(f"VisualDL {part}: steps of {tag} do not rise")
    found += [f"left: {path.name}" for path in second.path.rglob(".*")]
    return found


def steps_of_history(run: RunFolder) -> list[dict[str, float]]:
    """The rows of ``history.csv`` without the columns of time; their epochs must rise one by one."""
    rows = [{name: value for name, value in vars(record).items() if name not in OF_TIME} for record in run.history()]
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
    return rows


def read_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and value of each point in VisualDL's one file of a folder, by tag, without the speed."""
    (file,) = folder.iterdir()
    reader = LogReader(file_path=str(file))
    tags = [tag for tag in reader.get_tags()["scalar"] if tag != "epoch/images per second"]
    return {tag: [(point.id, point.value) for point in reader.get_data("scalar", tag)] for tag in tags}
