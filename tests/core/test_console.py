"""Progress: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import logging
import sys

import pytest
from rich.console import Console
from rich.table import Table

from paddle_resnet import console as console_module
from paddle_resnet.training.callbacks import steps as training_progress


@pytest.fixture
def screen(monkeypatch):
    def make(terminal: bool) -> io.StringIO:
        text = io.StringIO()
        screen = Console(file=text, force_terminal=terminal, width=140, highlight=False)
        monkeypatch.setattr(console_module, "console", screen)
        monkeypatch.setattr(training_progress, "console", screen)
        return text

    return make


def one_epoch() -> None:
    progress = training_progress.Progress()
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
    monkeypatch.setattr(training_progress, "SECONDS_BETWEEN_LINES", -1.0)
    # A tool that ran in this process before may have left its handler.
    monkeypatch.setattr(logging.getLogger("paddle_resnet"), "handlers", [])
    monkeypatch.setattr(logging.getLogger("paddle_resnet"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="paddle_resnet"):
        one_epoch()
    assert text.getvalue().strip() == ""
    assert [record.getMessage().split("  ")[:4] for record in caplog.records] == [
        ["epoch 2/3", f"step {step}/4", "loss 1.2500", "top-1 50.00%"] for step in (1, 2, 3, 4)
    ]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("[red]c[/red]", "[red]c[/red]"),
        (":smile:", ":smile:"),
        ("\u202etxt.exe", r"\u202etxt.exe"),
        ("\udcff", r"\udcff"),
        ("a\u202fb \u4e2d", "a\u202fb \u4e2d"),
    ],
)
def test_names_are_printed_with_control_characters_escaped(name, shown, capsys):
    console_module.console.print(name)
    table = Table("class")
    table.add_row(name)
    console_module.console.print(table)
    assert capsys.readouterr().out.count(shown) == 2


def test_a_log_record_stays_one_line(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("paddle_resnet"), "propagate", True)
    console_module.logger.warning("%s is a copy", "a\nerror: \x1b[2J.png")
    assert caplog.messages == [r"a\nerror: \x1b[2J.png is a copy"]


def test_plain_stream_passes_only_richs_colours(project, monkeypatch):
    monkeypatch.syspath_prepend(str(project / "tools"))
    from paddle_resnet.cli import program

    written = io.StringIO()
    monkeypatch.setattr("sys.stdout", program.PlainStream(written))
    sys.stdout.write("a\x1b]0;title\x07\tb\n")
    assert written.getvalue() == "a\\x1b]0;title\\x07\tb\n"
    assert console_module.console.file is written


def test_counting_on_a_terminal_and_in_a_log(monkeypatch):
    for terminal in (True, False):
        text = io.StringIO()
        monkeypatch.setattr(
            console_module, "error_console", Console(file=text, force_terminal=terminal, width=100, highlight=False)
        )
        monkeypatch.setattr(console_module, "SECONDS_BETWEEN_LINES", -1.0)
        with console_module.count_progress("pictures", 4000) as advance:
            advance(1000)
            advance(3000)
        if terminal:
            assert "4000/4000" in text.getvalue()
            continue
        first, last = text.getvalue().splitlines()
        assert first.startswith("1,000 of 4,000 pictures, ")
        assert last.startswith("4,000 of 4,000 pictures, ")
        assert last.endswith("0 s left")
        with console_module.count_progress("pictures", None, hidden=True) as advance:
            advance(1)
        assert len(text.getvalue().splitlines()) == 2
