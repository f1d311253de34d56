#!/usr/bin/env python3
# ruff: noqa: E402, T201
"""Measure histograms of every weight and gradient, in time and on disk, for docs/training.md.

python docs/experiments/histogram_cost.py resnet20 resnet18 resnet50
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddle_resnet import runtime

runtime.import_paddle()

import paddle

from paddle_resnet.models import create_model
from paddle_resnet.tracking.training_log import VisualDLLog
from paddle_resnet.training.callbacks.visual_dl import log_histograms

REPEATS = 6

for name in sys.argv[1:]:
    network = create_model(name, num_classes=10)
    network(paddle.randn([2, 3, 32, 32])).mean().backward()
    with tempfile.TemporaryDirectory() as folder:
        log = VisualDLLog(Path(folder))
        times = []
        for step in range(REPEATS):
            began = time.perf_counter()
            log_histograms(log, network, step)
            times.append(time.perf_counter() - began)
        log.close()
        size = sum(path.stat().st_size for path in Path(folder, "train").iterdir()) / REPEATS
    print(f"{name}: median {1000 * statistics.median(times):.1f} ms of {REPEATS}, {size / 1000:.0f} kB each")
