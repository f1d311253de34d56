"""Standard streams that are closed, full, without a reader, or of an encoding that lacks letters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from paddle_resnet.system.streams import StandardStream

PROJECT = str(Path(__file__).resolve().parents[2])
TOOL = """
import sys
sys.path.insert(0, {project!r})
from paddle_resnet.cli import parsing, program
def act(arguments):
    from paddle_resnet.console import console, logger, show_log_lines
    show_log_lines()
    for _ in range(3):
        console.print("┏ ä 猫 \\udcff")
        logger.info("ä 猫")
        print("ä 猫", flush=True)
        sys.stdin.read()
    open({done!r}, "w").close()
program.run(parsing.command_parser("A command\\n\\nthat is made up."), act, {options})
"""


@pytest.mark.posix
@pytest.mark.parametrize(
    ("redirection", "options", "code", "line", "is_done"),
    [
        ("<&- >&- 2>&-", "", 0, "", True),
        (">/dev/full", "only_prints=True", 1, "error: standard output: No space left on device\n", False),
        (">/dev/full", "", 1, "error: standard output: No space left on device\n", True),
        (">/dev/full", "results_in_files=True", 0, "warning: standard output: No space left on device\n", True),
        ("| true", "", 0, "", True),
        ("| true", "only_prints=True", 0, "", False),
        ("2>/dev/full | cat", "", 0, "", True),
    ],
)
def test_a_lost_output_ends_a_command_in_one_line(tmp_path, redirection, options, code, line, is_done):
    done = tmp_path / "done"
    script = tmp_path / "tool.py"
    script.write_text(TOOL.format(project=PROJECT, done=str(done), options=options))
    # The reader, where there is one, has gone before the tool begins.
    command = f"set -o pipefail; ({{ sleep 0.2; exec {sys.executable} {script}; }} {redirection})"
    ended = subprocess.run(
        ["bash", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (ended.returncode, ended.stderr.decode()) == (code, line)
    assert done.exists() == is_done
    if redirection.endswith("cat"):
        assert ended.stdout.decode("ascii").splitlines()[1:3] == ["\\xe4 \\u732b"] * 2


def test_a_lost_stream_drops_output_and_keeps_the_reason():
    reading, writing = os.pipe()
    os.close(reading)
    stream = StandardStream(writing, may_be_lost=True)
    assert stream.write(b"12345") == 5
    assert isinstance(stream.lost, BrokenPipeError)
    os.close(writing)
