"""A run in a line and as HTML."""

from __future__ import annotations

import base64
import io
import re

import pytest
from PIL import Image
from tiny_run import quickstart

from paddle_resnet.results import EpochRecord
from paddle_resnet.training import Run

HISTORY = [
    EpochRecord(number, 2.0 / number, 0.5, 1.0, 0.25 * number, 0.1, images_per_second=9.0, seconds=1.0)
    for number in (1, 2, 3)
]
METRICS = {"train": {"loss": 0.5, "top1": 0.75}, "environment": {"device": "cpu"}, "test": {"loss": 0.25, "top1": 0.9}}


def make(folder):
    run = Run.new(quickstart([f"output={folder}", "train.learning_rate=0.3"]))
    with run.create(with_data=False):
        pass
    return run


def test_a_line_says_network_data_epochs_and_accuracy(tmp_path):
    run = make(tmp_path)
    assert repr(run) == f"<Run {run.path}: resnet20 on digits, 0 of 20 epochs>"
    run.write_history(HISTORY)
    run.write_metrics(METRICS)
    assert repr(run) == f"<Run {run.path}: resnet20 on digits, 3 of 20 epochs, test top-1 90.00%>"


@pytest.mark.posix  # Windows cannot have that folder
def test_html_has_changed_keys_metrics_and_curves(tmp_path):
    (tmp_path / "<b>").mkdir()  # a new folder would not get such a name
    run = make(tmp_path / "<b>")
    assert "<img" not in run._repr_html_()
    run.write_history(HISTORY)
    run.write_metrics(METRICS)
    html = run._repr_html_()
    assert "<td>train.learning_rate</td><td>0.3</td>" in html
    assert "train.momentum" not in html  # a default
    assert "<td>test</td><td>90.00%</td><td>0.2500</td>" in html and "environment" not in html
    assert "&lt;b&gt;" in html and str(tmp_path / "<b>") not in html
    (encoded,) = re.findall('base64,([^"]+)', html)
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
        assert picture.format == "PNG" and picture.width > picture.height > 200
