"""Comparing a run that was stopped and resumed with one that ran through."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import paddle_resnet  # noqa: F401, I001  (prepares the process before paddle is imported)
import numpy as np
from visualdl import LogReader

from paddle_resnet.models import read_state_dict
from paddle_resnet.training import Run

OF_TIME = {"images_per_second", "seconds"}
"""Columns of ``history.csv`` that differ from one run to the next."""

VALUES: dict[str, Callable[[Any], Any]] = {
    "scalar": lambda record: record.value,
    "histogram": lambda record: (list(record.histogram.hist), list(record.histogram.bin_edges)),
    "image": lambda record: record.image.encoded_image_string,
    "hyper_parameters": lambda record: (str(record.hparam.hparamInfos), str(record.hparam.metricInfos)),
}
"""What a record holds, by VisualDL's kinds."""


def differences(reference: Path, resumed: Path) -> list[str]:
    """In what the resumed run is not as the other; empty where it is, bit for bit."""
    found = []
    first, second = Run.open(reference), Run.open(resumed)
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


def steps_of_history(run: Run) -> list[dict[str, float]]:
    """The filled cells of ``history.csv`` without the columns of time; their epochs must rise one by one."""
    filled = [{name: value for name, value in vars(record).items() if value is not None} for record in run.history()]
    rows = [{name: value for name, value in row.items() if name not in OF_TIME} for row in filled]
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
    return rows


def read_curves(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """Step and value of each record in VisualDL's one file of a folder, by tag, without times and without texts.

    Values are numbers for curves, the two lists of a histogram, an image's file and a run's hyper-parameters.
    """
    (file,) = folder.iterdir()
    reader = LogReader(file_path=str(file))
    curves: dict[str, list[tuple[int, Any]]] = {}
    for kind, value in VALUES.items():
        for tag in reader.get_tags().get(kind, []):
            curves[tag] = [(record.id, value(record)) for record in reader.get_data(kind, tag)]
    curves.pop("epoch/images per second", None)
    return curves
