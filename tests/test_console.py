"""Progress as a person sees it: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from paddle_resnet import console as console_module
from paddle_resnet.training import callbacks


@pytest.fixture
def screen(monkeypatch):
    def make(terminal: bool) -> io.StringIO:
        text = io.StringIO()
        screen = Console(file=text, force_terminal=terminal, width=140, highlight=False)
        monkeypatch.setattr(console_module, "console", screen)
        monkeypatch.setattr(callbacks, "console", screen)
        return text

    return make


def one_epoch() -> None:
    progress = callbacks.Progress()
    progress.set_params({"epochs": 3, "steps": 4})
    progress.on_epoch_begin(1)
    for step in range(4):
        progress.on_train_batch_end(step, {"batch_size": 10, "cross_entropy": 1.25, "top1": 0.5, "loss": [9.0]})
    progress.on_epoch_end(1)


def test_bar_on_a_terminal(screen):
    text = screen(terminal=True)
    one_epoch()
    shown = text.getvalue()
    for part in ("epoch 2/3", "4/4", "loss 1.2500", "top-1 50.00%", "images/s", "ETA"):
        assert part in shown


def test_plain_lines_in_a_log(screen, monkeypatch, caplog):
    text = screen(terminal=False)
    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_LINES", -1.0)
    # A tool that ran in this process before may have left its handler.
    monkeypatch.setattr(logging.getLogger("paddle_resnet"), "handlers", [])
    monkeypatch.setattr(logging.getLogger("paddle_resnet"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="paddle_resnet"):
        one_epoch()
    assert text.getvalue().strip() == ""
    assert [record.getMessage().split("  ")[:4] for record in caplog.records] == [
        ["epoch 2/3", f"step {step}/4", "loss 1.2500", "top-1 50.00%"] for step in (1, 2, 3, 4)
    ]
