"""`tools/train.py` without plots. Where HALT names a file, it makes it at a checkpoint in epoch 2 and stands still."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import paddle_resnet  # noqa: F401  (prepares the process before paddle is imported)
from paddle_resnet.cli import main
from paddle_resnet.training.checkpoints import CheckpointSaver

HALTS_AT = (1, 2)
"""Epoch and step."""
NO_PLOTS = SimpleNamespace(
    SPLIT_PLOTS=(), draw_split_plots=lambda *_: {}, draw_history_plot=lambda _: None, embeddings_of=lambda *_: None
)
"""In place of `run_plots`: drawing takes longer than the training, and so does the import of what draws."""


def halt(saver: CheckpointSaver) -> None:
    """Stand still where the other rank goes on to the barrier."""
    if saver._position == HALTS_AT:
        Path(os.environ["HALT"]).touch()
        time.sleep(1000)


sys.modules["paddle_resnet.evaluation.run_plots"] = NO_PLOTS
if "HALT" in os.environ:
    CheckpointSaver._require_finite = halt
main("train")
